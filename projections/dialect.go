package projections

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keytrail/keytrail/internal/sqlmigrate"
)

// Dialect is the kind of database. SQL is written once, with $1 placeholders and
// ON CONFLICT; a Dialect names the column types and does what differs.
type Dialect int

// The dialects.
const (
	SQLite Dialect = iota + 1
	Postgres
)

// DB is where projections live.
type DB struct {
	// Read is for queries. They see committed rows only.
	Read *sql.DB
	// Write is for transactions. On SQLite it is one connection, shared with appends
	// to the event store, and begins transactions with BEGIN IMMEDIATE: transactions
	// must be short and must not read from elsewhere while they are open.
	Write   *sql.DB
	Dialect Dialect
}

func (d Dialect) String() string {
	switch d {
	case SQLite:
		return "sqlite"
	case Postgres:
		return "postgres"
	default:
		return fmt.Sprintf("dialect %d", int(d))
	}
}

func (d Dialect) migrations() sqlmigrate.Dialect {
	if d == Postgres {
		return sqlmigrate.Postgres
	}
	return sqlmigrate.SQLite
}

// Text is the type of texts that are compared and sorted byte by byte: order and
// paging are the same in every database and every locale.
func (d Dialect) Text() string {
	if d == Postgres {
		return `text COLLATE "C"`
	}
	return "text"
}

// JSON is the type of JSON documents. They are kept as they were written.
func (d Dialect) JSON() string {
	if d == Postgres {
		return "json"
	}
	return "text"
}

// Time is the type of points in time; write them with FormatTime and read them with
// Time.
func (d Dialect) Time() string {
	if d == Postgres {
		return "timestamptz"
	}
	return "text"
}

// Bool is the type of truth values.
func (Dialect) Bool() string { return "boolean" }

// Int is the type of positions, versions and counts.
func (Dialect) Int() string { return "bigint" }

// Statements makes a schema's statements from text with places for the column types
// ({text}, {json}, {time}, {bool}, {int}) and for what oldnew, pairs as for
// strings.NewReplacer, names. Each statement ends with a semicolon at a line's end.
func Statements(d Dialect, schema string, oldnew ...string) []string {
	oldnew = append(oldnew, "{text}", d.Text(), "{json}", d.JSON(), "{time}", d.Time(), "{bool}", d.Bool(), "{int}", d.Int())
	text := strings.NewReplacer(oldnew...).Replace(schema)
	var statements []string
	for statement := range strings.SplitSeq(text, ";\n") {
		if strings.TrimSpace(statement) != "" {
			statements = append(statements, statement)
		}
	}
	return statements
}

// timeFormat has a fixed width, so that text order is time order.
const timeFormat = "2006-01-02T15:04:05.000000Z"

// FormatTime is t as a parameter, nil for the zero time. Databases keep microseconds.
func FormatTime(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(timeFormat)
}

// FormatRequired is FormatTime for columns that cannot be empty: the zero time becomes
// the year 1970.
func FormatRequired(t time.Time) any {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return FormatTime(t)
}

// ParseTime reads what FormatTime wrote.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	return t.UTC(), err
}

// Time reads a time column, NULL as the zero time.
type Time struct{ time.Time }

// Scan implements sql.Scanner.
func (t *Time) Scan(src any) error {
	switch v := src.(type) {
	case nil:
		t.Time = time.Time{}
	case time.Time:
		t.Time = v.UTC()
	case string:
		parsed, err := ParseTime(v)
		if err != nil {
			return fmt.Errorf("time column: %w", err)
		}
		t.Time = parsed
	default:
		return fmt.Errorf("time column holds a %T", src)
	}
	return nil
}

// Value implements driver.Valuer.
func (t Time) Value() (driver.Value, error) {
	v, _ := FormatTime(t.Time).(string)
	if v == "" {
		return nil, nil
	}
	return v, nil
}

// CleanText is s as a text column can hold it: PostgreSQL refuses the character NUL,
// and one hostile name must not stop a projection.
func CleanText(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
}

// Upsert inserts rows, or overwrites those whose key exists, with few statements. No
// key may be in rows twice. Each row has a value for each column.
func Upsert(ctx context.Context, tx *sql.Tx, d Dialect, table string, key, columns []string, rows [][]any) error {
	var set []string
	for _, c := range columns {
		if !slices.Contains(key, c) {
			set = append(set, c+" = excluded."+c)
		}
	}
	onConflict := " ON CONFLICT (" + strings.Join(key, ", ") + ") DO "
	if len(set) == 0 {
		onConflict += "NOTHING"
	} else {
		onConflict += "UPDATE SET " + strings.Join(set, ", ")
	}
	return insert(ctx, tx, d, table, columns, onConflict, rows)
}

// SelectByKey calls query, which ends with the key columns in parentheses, for as many
// keys at a time as a statement takes, and scan for each row:
//
//	SELECT state FROM t WHERE (realm, user_id)
//
// Columns of the key must be of type {text}.
func SelectByKey(ctx context.Context, db DB, query string, keys [][]any, scan func(*sql.Rows) error) error {
	if len(keys) == 0 {
		return nil
	}
	columns := len(keys[0])
	return inChunks(keys, maxParameters/columns, func(chunk [][]any) error {
		args := make([]any, 0, len(chunk)*columns)
		for _, k := range chunk {
			args = append(args, k...)
		}
		return Query(ctx, db.Read, scan, query+" IN (VALUES "+db.Dialect.placeholders(len(chunk), columns)+")", args...)
	})
}

// Query calls scan for each row of the answer.
func Query(ctx context.Context, db *sql.DB, scan func(*sql.Rows) error, query string, args ...any) (err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := rows.Close(); err == nil {
			err = closeErr
		}
	}()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// maxParameters keeps statements well below SQLite's 32,766 and PostgreSQL's 65,535
// parameters; larger ones are not faster.
const maxParameters = 4096

// inChunks calls f with parts of rows whose lengths are powers of two: few different
// statements, which the driver therefore prepares once.
func inChunks(rows [][]any, most int, f func([][]any) error) error {
	size := 1
	for size*2 <= most {
		size *= 2
	}
	for len(rows) > 0 {
		for size > len(rows) {
			size /= 2
		}
		if err := f(rows[:size]); err != nil {
			return err
		}
		rows = rows[size:]
	}
	return nil
}

// placeholders is "($1, $2), ($3, $4)" for two rows of two columns. To SQLite $1 is a
// name, which it looks for among all the names of the statement, for each of them: a
// thousand of them cost more than the rows.
func (d Dialect) placeholders(rows, columns int) string {
	var b strings.Builder
	n := 0
	for r := range rows {
		if r > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('(')
		for c := range columns {
			if c > 0 {
				b.WriteString(", ")
			}
			n++
			if d == Postgres {
				fmt.Fprintf(&b, "$%d", n)
			} else {
				b.WriteByte('?')
			}
		}
		b.WriteByte(')')
	}
	return b.String()
}
