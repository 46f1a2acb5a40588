// Command cmd runs a real Keycloak in the foreground.
//
// For people (`make keycloak`) it makes a realm whose webhook points at
// keytrail, and writes what `keytrail serve` needs to keycloak.env. For a test
// run (-test-env) it writes the variables that kcserver.Shared reads.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"github.com/keytrail/keytrail/internal/kcserver"
)

type options struct {
	port     int
	realm    string
	webhook  string
	envFile  string
	testEnv  string
	verbose  bool
	out, log io.Writer
}

func main() {
	opts := options{out: os.Stdout, log: os.Stderr}
	flag.IntVar(&opts.port, "port", 8090, "Keycloak's port on 127.0.0.1; 0: a free one")
	flag.StringVar(&opts.realm, "realm", "acme", "realm to create")
	flag.StringVar(&opts.webhook, "webhook", "http://127.0.0.1:8085/webhooks/keycloak", "where Keycloak sends its events")
	flag.StringVar(&opts.envFile, "env-file", "keycloak.env", "file that gets keytrail's settings")
	flag.StringVar(&opts.testEnv, "test-env", "", "create no realm, and write the variables of a test run to this file")
	flag.BoolVar(&opts.verbose, "verbose", false, "show Keycloak's own log")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, opts)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, opts options) (err error) {
	fmt.Fprintln(opts.out, "starting Keycloak … (the first time fetches and builds it, which takes minutes)")
	for _, stale := range []string{opts.envFile, opts.testEnv} {
		// Whoever waits for the file must not find the one of an earlier server.
		if err := os.Remove(stale); stale != "" && err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	serverOptions := kcserver.Options{Port: opts.port}
	if opts.verbose {
		serverOptions.Log = opts.log
	}
	server, err := kcserver.Start(ctx, serverOptions)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	if opts.testEnv != "" {
		err = writeEnv(opts.testEnv, [][2]string{
			{kcserver.URLEnv, server.URL},
			{kcserver.AdminEnv, server.AdminUser},
			{kcserver.AdminPasswordEnv, server.AdminPassword},
		})
		fmt.Fprintf(opts.out, "Keycloak %s with keycloak-events %s is ready at %s\n", server.Version, server.ExtensionVersion, server.URL)
	} else {
		err = forPeople(ctx, server, opts)
	}
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-server.Done():
		return errors.New("Keycloak ended by itself; -verbose shows its log")
	}
}

func forPeople(ctx context.Context, server *kcserver.Server, opts options) error {
	secret := rand.Text()
	realm, err := server.NewRealm(ctx, kcserver.RealmOptions{Name: opts.realm, WebhookURL: opts.webhook, WebhookSecret: secret})
	if err != nil {
		return err
	}
	if err := writeEnv(opts.envFile, [][2]string{
		{"KEYTRAIL_KEYCLOAK_URL", server.URL},
		{"KEYTRAIL_KEYCLOAK_REALMS", realm.Name},
		{"KEYTRAIL_KEYCLOAK_AUTH_REALM", realm.Name},
		{"KEYTRAIL_KEYCLOAK_CLIENT_ID", realm.ClientID},
		{"KEYTRAIL_KEYCLOAK_CLIENT_SECRET", realm.ClientSecret},
		{"KEYTRAIL_WEBHOOK_SECRET", secret},
	}); err != nil {
		return err
	}
	source := opts.envFile
	if !strings.Contains(source, "/") {
		source = "./" + source // a bare name is looked up in PATH by the shell's "."
	}
	fmt.Fprintf(opts.out, `
Keycloak %s with keycloak-events %s is ready at %s
  realm %s sends its events, signed, to %s
  administrator: %s, password: %s

In another terminal:
  set -a; . %s; set +a
  bin/keytrail serve            (make build makes it)

Then change users at %s/admin/master/console/#/%s/users
Ctrl-C stops Keycloak and forgets everything in it.
`, server.Version, server.ExtensionVersion, server.URL, realm.Name, opts.webhook,
		server.AdminUser, server.AdminPassword, source, server.URL, realm.Name)
	return nil
}

// writeEnv writes NAME=VALUE lines that a shell can source. The file holds
// secrets, so only its owner may read it; it appears whole or not at all,
// because a test run waits for it.
func writeEnv(file string, settings [][2]string) error {
	var text strings.Builder
	for _, s := range settings {
		fmt.Fprintf(&text, "%s=%s\n", s[0], quoted(s[1]))
	}
	unfinished := file + ".new"
	if err := os.WriteFile(unfinished, []byte(text.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(unfinished, file)
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_.:/@,+-]*$`)

// quoted leaves plain values alone: not every reader of such a file is a shell.
func quoted(value string) string {
	if plain.MatchString(value) {
		return value
	}
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}
