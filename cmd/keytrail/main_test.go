package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keytrail/keytrail/internal/dbtest"
)

// TestMain is the tests, or the program: scripts run this binary under the name keytrail.
func TestMain(m *testing.M) {
	testscript.Main(suite{m}, map[string]func(){"keytrail": func() { os.Exit(run()) }})
}

type suite struct{ m *testing.M }

func (s suite) Run() int { return dbtest.Main(s.m) }
