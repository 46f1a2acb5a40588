package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/reconcile"
	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/app"
)

// A run that ends without a judgement tells what happened apart from what to do.
func TestInterruptedRunTellsErrorAndNextStepApart(t *testing.T) {
	t.Parallel()
	interrupted := adapter.Errorf(adapter.CodeInterrupted, "listing the users: the run was interrupted").WithTry("keytrail reconcile")
	recorded := reconcile.Result{Verdict: reconcile.Incomplete}
	recorded.RunID, recorded.Realm, recorded.Status = eventstore.NewID(), "acme", adapter.RunAborted
	recorded.Code, recorded.Error = adapter.CodeInterrupted, interrupted.Detail+"\nTry: keytrail reconcile"
	a := &app.App{Config: &config.Config{Keycloak: config.Keycloak{Realms: []string{"acme"}}}}
	run := func(string) (reconcile.Result, error) { return recorded, interrupted }

	var out, errs bytes.Buffer
	s := &session{process: process{stdout: &out, stderr: &errs}, json: true}
	require.Equal(t, exitError(exitUnreachable), s.inEachRealm(a, "", "keytrail baseline", run, nil))
	var told map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &told))
	require.Equal(t, "listing the users: the run was interrupted", told["error"])
	require.Equal(t, "keytrail baseline", told["try"])
	require.Equal(t, "aborted", told["status"])
	require.Empty(t, errs.String())

	out.Reset()
	s.json = false
	require.Equal(t, exitError(exitUnreachable), s.inEachRealm(a, "acme", "keytrail reconcile", run, func(r reconcile.Result) error {
		writeResult(&out, r)
		return nil
	}))
	require.Contains(t, out.String(), "Realm acme could not be judged: the run is aborted.\n")
	require.Equal(t, "Error: listing the users: the run was interrupted\nTry: keytrail reconcile\n", errs.String())
	require.Equal(t, "keytrail reconcile", interrupted.Try, "the error is whoever's it was")
}

func TestCountsAreWords(t *testing.T) {
	t.Parallel()
	var r reconcile.Result
	r.Realm, r.Verdict, r.Compared, r.Unsettled, r.Baselined = "acme", reconcile.InSync, 1, 1, 1
	var out bytes.Buffer
	writeResult(&out, r)
	require.Contains(t, out.String(), "Realm acme is in sync: 1 user compared.\nAdopted 1 user as the starting point.\n1 difference too young to judge, or with a call under way.\n")
	r.Unsettled = 2
	writeResult(&out, r)
	require.Contains(t, out.String(), "\n2 differences too young to judge, or with a call under way.\n")
}
