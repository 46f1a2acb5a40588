package projections

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/jackc/pgx/v5/stdlib"
)

// write writes the rows in the transaction tx of conn. The next rows are made while
// those before are written.
func (r Rows) write(ctx context.Context, conn *sql.Conn, tx *sql.Tx, d Dialect) error {
	if d == Postgres && r.New {
		return r.load(ctx, conn)
	}
	chunks, stop := r.ahead(arrayRows)
	defer stop()
	for c := range chunks {
		if c.err != nil {
			return c.err
		}
		if err := Upsert(ctx, tx, d, r.Table, r.Key, r.Columns, c.rows); err != nil {
			return err
		}
	}
	return nil
}

// chunk are a few rows.
type chunk struct {
	rows [][]any
	err  error
}

// ahead makes chunks of size rows. stop ends it, and is to be called.
func (r Rows) ahead(size int) (chunks <-chan chunk, stop func()) {
	to, stopped := make(chan chunk), make(chan struct{})
	go func() {
		defer close(to)
		var c chunk
		send := func() bool {
			select {
			case to <- c:
				c.rows = nil
				return true
			case <-stopped:
				return false
			}
		}
		for row, err := range r.Each {
			c.rows, c.err = append(c.rows, row), err
			if (err != nil || len(c.rows) == size) && (!send() || err != nil) {
				return
			}
		}
		if len(c.rows) > 0 {
			send()
		}
	}()
	return to, func() {
		close(stopped)
		for range to { // until it has ended
		}
	}
}

// load copies the rows into a PostgreSQL table, which takes a third of the time of an
// INSERT.
func (r Rows) load(ctx context.Context, conn *sql.Conn) error {
	err := conn.Raw(func(driverConn any) error {
		c, ok := driverConn.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("a connection of PostgreSQL is a %T", driverConn)
		}
		from, to := io.Pipe()
		made := make(chan error, 1)
		go func() {
			err := copyText(to, r.Each)
			_ = to.CloseWithError(err) // it always returns nil
			made <- err
		}()
		_, err := c.Conn().PgConn().CopyFrom(ctx, from, "COPY "+r.Table+" ("+strings.Join(r.Columns, ", ")+") FROM STDIN")
		_ = from.Close() // it always returns nil
		if cause := <-made; err != nil && cause != nil && !errors.Is(cause, io.ErrClosedPipe) {
			return cause // of which PostgreSQL has only been told
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("load %s: %w", r.Table, err)
	}
	return nil
}

// copyEscaper writes what has a meaning in COPY's text format.
var copyEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`)

// copyText writes rows in COPY's text format.
func copyText(to io.Writer, rows iter.Seq2[[]any, error]) error {
	w := bufio.NewWriterSize(to, 64<<10)
	for row, err := range rows {
		if err != nil {
			return err
		}
		for i, value := range row {
			text, null, err := valueText(value)
			if err != nil {
				return err
			}
			if i > 0 {
				_ = w.WriteByte('\t') // an error stays until the end of the line
			}
			if null {
				_, _ = w.WriteString(`\N`)
			} else if _, err := copyEscaper.WriteString(w, text); err != nil {
				return err
			}
		}
		if err := w.WriteByte('\n'); err != nil {
			return err
		}
	}
	return w.Flush()
}
