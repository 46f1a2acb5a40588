package main

import (
	"bytes"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/sqlite"
	"github.com/keytrail/keytrail/internal/dbtest"
)

// ran is what one command has printed.
type ran struct {
	status         int
	stdout, stderr string
}

func runHere(t *testing.T, args ...string) ran {
	t.Helper()
	var out, errs bytes.Buffer
	status := execute(t.Context(), process{args: args, stdout: &out, stderr: &errs})
	return ran{status, out.String(), errs.String()}
}

func TestStoreFaultsOfPostgres(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(dbtest.Postgres(t))
	require.NoError(t, err)
	u.Path = "/nosuch"
	got := runHere(t, "user", "list", "--store-url", u.String())
	require.Equal(t, exitUsage, got.status)
	require.Regexp(t, `^Error: the event store postgres.*/nosuch.*: database "nosuch" does not exist .*3D000.*\nTry: create the database, or name another with KEYTRAIL_STORE_URL\n$`, got.stderr)
}

// What a migration has done is said in the terms of before and after.
func TestMigrationSaysWhatItDid(t *testing.T) {
	t.Parallel()
	u, err := config.ParseStoreURL("sqlite:k.db")
	require.NoError(t, err)
	for _, c := range []struct {
		before     *eventstore.SchemaError
		text, json string
	}{
		{nil, "is current", `{"store":"sqlite:k.db","status":"current","change":"none"}`},
		{&eventstore.SchemaError{Supported: 3}, "was created, version 3", `{"store":"sqlite:k.db","status":"current","change":"created","to":3}`},
		{&eventstore.SchemaError{Current: 1, Supported: 3}, "was brought from version 1 to 3", `{"store":"sqlite:k.db","status":"current","change":"upgraded","from":1,"to":3}`},
	} {
		var text, encoded bytes.Buffer
		require.NoError(t, (&session{process: process{stdout: &text}}).printMigration(u, c.before))
		require.Equal(t, "The schema of sqlite:k.db "+c.text+".\n", text.String())
		require.NoError(t, (&session{process: process{stdout: &encoded}, json: true}).printMigration(u, c.before))
		require.JSONEq(t, c.json, encoded.String())
	}
}

// A migration that was cut short is gone on with.
func TestMigrationCompletes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "k.db")
	require.NoError(t, sqlite.Migrate(t.Context(), path)) // the events, not the projections
	require.Zero(t, runHere(t, "migrate", "--store-url", "sqlite:"+path).status)
	require.Equal(t, ran{stdout: "The schema of sqlite:" + path + " is current.\n"}, runHere(t, "migrate", "--store-url", "sqlite:"+path))
}
