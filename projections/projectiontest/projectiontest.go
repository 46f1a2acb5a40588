// Package projectiontest gives tests of projections real event stores and events, and
// checks what every projection has to keep: a rebuild gives the rows that incremental
// folding gave.
package projectiontest

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/postgres"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/dbtest"
	"github.com/keytrail/keytrail/internal/seal"
	"github.com/keytrail/keytrail/projections"
)

// Database is an empty, migrated database of one test.
type Database struct {
	dialect projections.Dialect
	path    string
}

// Process is what one process has of the database.
type Process struct {
	Store eventstore.Store
	DB    projections.DB
	Codec *adapter.Codec
}

// EachDialect runs test on SQLite and on PostgreSQL. A package that calls it has a
// TestMain that calls dbtest.Main.
func EachDialect(t *testing.T, test func(t *testing.T, db Database)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, SQLite(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, Postgres(t))
	})
}

// Postgres makes a database in the cluster for tests.
func Postgres(t testing.TB) Database {
	t.Helper()
	url := dbtest.Postgres(t)
	require.NoError(t, postgres.Migrate(t.Context(), url))
	db := Database{dialect: projections.Postgres, path: url}
	require.NoError(t, projections.Migrate(t.Context(), db.Open(t).DB))
	return db
}

// SQLite makes a database in a file.
func SQLite(t testing.TB) Database {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keytrail.db")
	require.NoError(t, sqlite.Migrate(t.Context(), path))
	db := Database{dialect: projections.SQLite, path: path}
	require.NoError(t, projections.Migrate(t.Context(), db.Open(t).DB))
	return db
}

// Open opens the database as one more process would. It is closed with the test.
func (d Database) Open(t testing.TB) Process {
	t.Helper()
	p := Process{Codec: adapter.NewCodec(seal.Plain{})}
	if d.dialect == projections.Postgres {
		s, err := postgres.Open(t.Context(), d.path, postgres.Options{})
		require.NoError(t, err)
		p.Store, p.DB = s, projections.DB{Read: s.ReadDB(), Write: s.WriteDB(), Dialect: d.dialect}
	} else {
		s, err := sqlite.Open(t.Context(), d.path, sqlite.Options{})
		require.NoError(t, err)
		p.Store, p.DB = s, projections.DB{Read: s.ReadDB(), Write: s.WriteDB(), Dialect: d.dialect}
	}
	t.Cleanup(func() { require.NoError(t, p.Store.Close()) })
	return p
}

// Append records events with the given payloads on a stream, one transaction each time
// it is called.
func (p Process) Append(t testing.TB, stream eventstore.StreamID, drafts ...adapter.Draft) []eventstore.Event {
	t.Helper()
	events, err := p.TryAppend(t.Context(), stream, drafts...)
	require.NoError(t, err)
	return events
}

// TryAppend is Append for goroutines.
func (p Process) TryAppend(ctx context.Context, stream eventstore.StreamID, drafts ...adapter.Draft) ([]eventstore.Event, error) {
	news := make([]eventstore.NewEvent, 0, len(drafts))
	for _, d := range drafts {
		if d.Meta.CorrelationID == uuid.Nil {
			d.Meta.CorrelationID = eventstore.NewID()
		}
		e, err := p.Codec.Encode(ctx, d)
		if err != nil {
			return nil, err
		}
		news = append(news, e)
	}
	return p.Store.Append(ctx, eventstore.StreamAppend{Stream: stream, Events: news})
}

// AppendUser records one event on the stream of the user that it is about.
func (p Process) AppendUser(t testing.TB, at time.Time, payload adapter.UserPayload) eventstore.Event {
	t.Helper()
	ref := payload.User()
	return p.Append(t, adapter.UserStream(ref.Realm, ref.UserID), adapter.Draft{Payload: payload, OccurredAt: at})[0]
}

// Head is the head of the log.
func (p Process) Head(t testing.TB) eventstore.Position {
	t.Helper()
	head, err := p.Store.Head(t.Context())
	require.NoError(t, err)
	return head
}

// Engine returns an engine for the projections.
func (p Process) Engine(t testing.TB, o projections.Options, registered ...projections.Projection) *projections.Engine {
	t.Helper()
	e := projections.New(p.DB, p.Store, p.Codec, o)
	require.NoError(t, e.Register(registered...))
	return e
}

// CatchUp folds everything.
func (p Process) CatchUp(t testing.TB, e *projections.Engine) {
	t.Helper()
	require.NoError(t, e.CatchUp(t.Context(), p.Head(t)))
}

// Dump reads whole tables as text, sorted, to compare them.
func (p Process) Dump(t testing.TB, tables ...string) []string {
	t.Helper()
	var lines []string
	for _, table := range tables {
		err := projections.Query(t.Context(), p.DB.Read, func(rows *sql.Rows) error {
			columns, err := rows.Columns()
			if err != nil {
				return err
			}
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			if err := rows.Scan(values...); err != nil {
				return err
			}
			parts := []string{table}
			for i, c := range columns {
				v := *values[i].(*any)
				if b, ok := v.([]byte); ok {
					v = string(b)
				}
				parts = append(parts, fmt.Sprintf("%s=%v", c, v))
			}
			lines = append(lines, strings.Join(parts, " "))
			return nil
		}, `SELECT * FROM `+table)
		require.NoError(t, err)
	}
	slices.Sort(lines)
	return lines
}

// RebuildEqualsIncremental checks that a rebuild of the projection leaves its rows as
// they are. The projection has been folded, in whatever steps.
func (p Process) RebuildEqualsIncremental(t testing.TB, e *projections.Engine, projection projections.Projection) {
	t.Helper()
	before := p.Dump(t, projection.Tables()...)
	require.NotEmpty(t, before)
	require.NoError(t, e.Rebuild(t.Context(), projection.Name(), nil))
	require.Equal(t, before, p.Dump(t, projection.Tables()...))
}
