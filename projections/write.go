package projections

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Add inserts rows of counts, or adds to those whose key exists. counts are the columns
// that are added to; the others are the key. No key may be in rows twice. It is exact
// because a projection's rows commit with its checkpoint: a batch that is folded twice
// is written once.
func Add(ctx context.Context, tx *sql.Tx, d Dialect, table string, key, counts []string, rows [][]any) error {
	var set []string
	for _, c := range counts {
		set = append(set, c+" = "+table+"."+c+" + excluded."+c)
	}
	columns := append(append([]string(nil), key...), counts...)
	onConflict := " ON CONFLICT (" + strings.Join(key, ", ") + ") DO UPDATE SET " + strings.Join(set, ", ")
	return insert(ctx, tx, d, table, columns, onConflict, rows)
}

// worthArrays is from how many rows on PostgreSQL gets a column as one array: before, it
// is not worth asking for the columns' types.
const worthArrays = 20

// arrayRows is how many rows one statement gets as arrays.
const arrayRows = 1000

func insert(ctx context.Context, tx *sql.Tx, d Dialect, table string, columns []string, onConflict string, rows [][]any) error {
	head := "INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") "
	if d != Postgres || len(rows) < worthArrays {
		return writeChunks(ctx, tx, d, "write to "+table, head+"VALUES ", onConflict, len(columns), rows)
	}
	types, err := columnTypes(ctx, tx, table)
	if err != nil {
		return fmt.Errorf("write to %s: %w", table, err)
	}
	var casts, names, arrays []string
	for i, c := range columns {
		names = append(names, fmt.Sprint("c", i))
		casts = append(casts, fmt.Sprintf("c%d::%s", i, types[c]))
		arrays = append(arrays, fmt.Sprintf("$%d::text[]", i+1))
	}
	statement := head + "SELECT " + strings.Join(casts, ", ") + " FROM unnest(" + strings.Join(arrays, ", ") +
		") u (" + strings.Join(names, ", ") + ")" + onConflict
	for chunk := range slices.Chunk(rows, arrayRows) {
		args := make([]any, len(columns))
		for i := range columns {
			if args[i], err = textArray(chunk, i); err != nil {
				return fmt.Errorf("write to %s.%s: %w", table, columns[i], err)
			}
		}
		if _, err := tx.ExecContext(ctx, statement, args...); err != nil {
			return fmt.Errorf("write to %s: %w", table, err)
		}
	}
	return nil
}

// columnTypes are the types of a PostgreSQL table's columns.
func columnTypes(ctx context.Context, tx *sql.Tx, table string) (types map[string]string, err error) {
	rows, err := tx.QueryContext(ctx, `
		SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
		WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped`, table)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	types = make(map[string]string)
	for rows.Next() {
		var name, kind string
		if err := rows.Scan(&name, &kind); err != nil {
			return nil, err
		}
		types[name] = kind
	}
	return types, rows.Err()
}

// textArray is a column of the rows as PostgreSQL casts it from text.
func textArray(rows [][]any, column int) ([]*string, error) {
	texts := make([]string, len(rows))
	array := make([]*string, len(rows))
	for i, row := range rows {
		text, null, err := valueText(row[column])
		if err != nil {
			return nil, err
		}
		if !null {
			texts[i] = text
			array[i] = &texts[i]
		}
	}
	return array, nil
}

// valueText is a value as PostgreSQL reads it from text.
func valueText(value any) (text string, null bool, err error) {
	switch v := value.(type) {
	case string:
		return v, false, nil
	case int64:
		return strconv.FormatInt(v, 10), false, nil
	}
	v, err := driver.DefaultParameterConverter.ConvertValue(value)
	if err != nil {
		return "", false, err
	}
	switch v := v.(type) {
	case nil:
		return "", true, nil
	case string:
		return v, false, nil
	case []byte:
		return string(v), false, nil
	case bool:
		return strconv.FormatBool(v), false, nil
	case int64:
		return strconv.FormatInt(v, 10), false, nil
	default:
		return "", false, fmt.Errorf("a %T cannot be written", v)
	}
}

// Delete deletes the rows with these keys. Keys that are not there do no harm. Columns
// of the key must be of type {text}.
func Delete(ctx context.Context, tx *sql.Tx, d Dialect, table string, key []string, keys [][]any) error {
	head := "DELETE FROM " + table + " WHERE (" + strings.Join(key, ", ") + ") IN (VALUES "
	return writeChunks(ctx, tx, d, "delete from "+table, head, ")", len(key), keys)
}

// writeChunks executes a statement around rows of values, for as many rows at a time
// as a statement takes.
func writeChunks(ctx context.Context, tx *sql.Tx, d Dialect, doing, head, tail string, columns int, rows [][]any) error {
	return inChunks(rows, maxParameters/columns, func(chunk [][]any) error {
		args := make([]any, 0, len(chunk)*columns)
		for _, row := range chunk {
			args = append(args, row...)
		}
		if _, err := tx.ExecContext(ctx, head+d.placeholders(len(chunk), columns)+tail, args...); err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		return nil
	})
}

// maxKeyText bounds texts in indexes: PostgreSQL refuses index rows above 2,704 bytes.
const maxKeyText = 400

// KeyText is s as a column that is indexed can hold it: cleaned, and cut where it is
// longer than any name of Keycloak's. What it is compared with has to be cut too.
func KeyText(s string) string {
	s = CleanText(s)
	if len(s) <= maxKeyText {
		return s
	}
	return strings.ToValidUTF8(s[:maxKeyText], "")
}
