package projections

import (
	"context"
	"database/sql"
	"fmt"
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
	head := "INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES "
	onConflict := " ON CONFLICT (" + strings.Join(key, ", ") + ") DO UPDATE SET " + strings.Join(set, ", ")
	return writeChunks(ctx, tx, d, "add to "+table, head, onConflict, len(columns), rows)
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
