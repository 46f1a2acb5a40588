package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/httpapi"
	"github.com/keytrail/keytrail/adapter/trace"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/seal"
)

// failingTraces answers every question with one error.
type failingTraces struct{ err error }

func (f failingTraces) Find(context.Context, string, string) (trace.Trace, error) {
	return trace.Trace{}, f.err
}

// Whatever goes wrong, --json prints what the API answers.
func TestProblemsAreThoseOfTheAPI(t *testing.T) {
	t.Parallel()
	codes := adapter.Codes()
	require.NotEmpty(t, codes)
	for _, code := range codes {
		for _, callID := range []bool{false, true} {
			e := adapter.Errorf(code, "what happened").WithTry("what to do")
			if callID {
				e.CallID, e.CorrelationID = eventstore.NewID(), eventstore.NewID()
			}
			server, err := httpapi.New(httpapi.Config{
				Recorder: struct{ httpapi.Recorder }{}, Store: struct{ eventstore.Reader }{}, Codec: adapter.NewCodec(seal.Plain{}),
				Users: struct{ httpapi.UserReader }{}, Calls: struct{ httpapi.CallReader }{},
				Reconciliations: struct{ httpapi.ReconciliationReader }{}, Audit: struct{ httpapi.AuditReader }{},
				Analytics: struct{ httpapi.AnalyticsReader }{}, Projections: struct{ httpapi.Projections }{},
				Traces: failingTraces{e}, Failures: struct{ httpapi.Failures }{}, Commands: struct{ httpapi.Commands }{},
				Retry: struct{ httpapi.Retrier }{}, Ready: func(context.Context) []httpapi.Check { return nil },
				Metrics: http.NotFoundHandler(), Clock: time.Now, Logger: slog.New(slog.DiscardHandler),
			})
			require.NoError(t, err)
			request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/api/v1/traces/x", nil)
			request.RemoteAddr = "127.0.0.1:40000"
			answer := httptest.NewRecorder()
			server.ServeHTTP(answer, request)
			require.Equal(t, "application/problem+json", answer.Header().Get("Content-Type"))

			var printed bytes.Buffer
			s := &session{process: process{stdout: &printed}, json: true}
			s.report(e)
			require.JSONEq(t, answer.Body.String(), printed.String(), code)
			require.Equal(t, answer.Code, problemOf(e).Status, code)
		}
	}
}

func TestErrorsOutsideTheCatalogue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err         error
		code        adapter.Code
		detail, try string
		exit        int
	}{
		{errors.New("odd"), adapter.CodeInternal, "odd", "", exitFound},
		{&usageError{errors.New("no such thing\nTry: another")}, adapter.CodeInvalidRequest, "no such thing", "another", exitUsage},
		{fmt.Errorf("reading: %w", &eventstore.SchemaError{Supported: 1}), adapter.CodeStoreUnavailable, "reading: the database has schema version 0, this program needs 1", "keytrail migrate", exitUsage},
		{fmt.Errorf("reading: %w", eventstore.ErrUnavailable), adapter.CodeStoreUnavailable, "reading: event store is unavailable", "check that the event store of KEYTRAIL_STORE_URL answers, and give the command again", exitUnreachable},
		{fmt.Errorf("in the middle: %w", adapter.Errorf(adapter.CodeNotFound, "gone").WithTry("look")), adapter.CodeNotFound, "in the middle: gone", "look", exitFound},
	} {
		p := problemOf(c.err)
		require.Equal(t, c.code, p.Code)
		require.Equal(t, c.detail, p.Detail)
		require.Equal(t, c.try, p.Try)
		require.Equal(t, httpapi.StatusOf(c.code), p.Status)
		require.NotEmpty(t, p.Title)
		require.Equal(t, c.exit, exitStatus(c.err))
	}
}
