package projections_test

import (
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/projectiontest"
)

// TestManyRowsAreWrittenAsFewAre: every type of column, with texts that look like the
// syntax of arrays.
func TestManyRowsAreWrittenAsFewAre(t *testing.T) {
	t.Parallel()
	projectiontest.EachDialect(t, func(t *testing.T, db projectiontest.Database) {
		p := db.Open(t)
		schema := `CREATE TABLE {t} (id {text}, ord {int}, name {text}, doc {json}, at {time}, yes {bool}, n {int} NOT NULL, PRIMARY KEY (id, ord));
`
		columns := []string{"id", "ord", "name", "doc", "at", "yes", "n"}
		names := []any{`NULL`, `{"a",b}`, `back\slash "quoted"`, ``, nil, "new\nline", `é`}
		var rows [][]any
		for i := range 2500 {
			rows = append(rows, []any{
				fmt.Sprint("id", i), i, names[i%len(names)], fmt.Sprintf(`{ "i":%d,"s":"\"\\u0000"}`, i),
				[]any{projections.FormatTime(noon.Add(time.Duration(i) * time.Microsecond)), nil, projections.Time{Time: noon}}[i%3],
				[]any{true, false, nil}[i%3], int64(i) << 40,
			})
		}
		dump := func(table string, size int) []string {
			for _, statement := range projections.Statements(p.DB.Dialect, schema, "{t}", table) {
				_, err := p.DB.Write.ExecContext(t.Context(), statement)
				require.NoError(t, err)
			}
			write := func(rows [][]any, write func(tx *sql.Tx, rows [][]any) error) {
				for chunk := range slices.Chunk(rows, size) {
					tx, err := p.DB.Write.BeginTx(t.Context(), nil)
					require.NoError(t, err)
					require.NoError(t, write(tx, chunk))
					require.NoError(t, tx.Commit())
				}
			}
			upsert := func(tx *sql.Tx, rows [][]any) error {
				return projections.Upsert(t.Context(), tx, p.DB.Dialect, table, columns[:2], columns, rows)
			}
			write(rows[:2000], upsert)
			write(rows[1500:], upsert)
			var added [][]any
			for i, row := range rows[1000:] {
				added = append(added, []any{row[0], row[1], i})
			}
			write(added, func(tx *sql.Tx, rows [][]any) error {
				return projections.Add(t.Context(), tx, p.DB.Dialect, table, columns[:2], columns[6:], rows)
			})
			var lines []string
			for _, line := range p.Dump(t, table) {
				lines = append(lines, line[len(table):])
			}
			return lines
		}
		few, many := dump("few", 5), dump("many", 10_000)
		require.Len(t, few, len(rows))
		require.Equal(t, few, many)
	})
}
