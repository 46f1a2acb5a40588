package suitetest

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestRequired(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list, need string
		want       bool
	}{
		{"", "postgres", false},
		{"postgres", "postgres", true},
		{"keycloak, postgres", "postgres", true},
		{"keycloak", "postgres", false},
		{"all", "browser", true},
	} {
		require.Equal(t, c.want, required(c.list, c.need), "%q needs %q", c.list, c.need)
	}
}

func TestSharedStartsOnceAndIsStoppedByMain(t *testing.T) {
	t.Parallel()
	var started, stopped int
	s := &Shared[int]{
		Start: func(context.Context) (int, error) { started++; return started, nil },
		Stop:  func(int) { stopped++ },
	}
	for range 3 {
		t.Run("user", func(t *testing.T) {
			got, err := s.Use(t)
			require.NoError(t, err)
			require.Equal(t, 1, got)
		})
	}
	require.Equal(t, 1, started)
	require.Zero(t, stopped, "Main holds it")
	s.release() // what Main does
	require.Equal(t, 1, stopped)
	s.users++ // give Main's share back: it will release once more
}

func TestSharedKeepsTheFirstFailure(t *testing.T) {
	t.Parallel()
	failure := errors.New("no such server")
	var started int
	s := &Shared[int]{Start: func(context.Context) (int, error) { started++; return 0, failure }}
	for range 2 {
		_, err := s.Use(t)
		require.ErrorIs(t, err, failure)
	}
	require.Equal(t, 1, started)
}
