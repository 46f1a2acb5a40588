package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/config"
)

var update = flag.Bool("update", false, "write what is found into the .txt files of testdata")

// TestCorpus loads every file of testdata: beside a good one stands what Print
// shows for it, beside a bad one the whole error. Lines "# env: NAME=VALUE" are
// the environment.
func TestCorpus(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			content, err := os.ReadFile(file)
			require.NoError(t, err)
			var env []string
			for line := range strings.Lines(string(content)) {
				if entry, ok := strings.CutPrefix(line, "# env: "); ok {
					env = append(env, strings.TrimSuffix(entry, "\n"))
				}
			}

			cfg, err := config.Load(config.Input{ConfigFile: file, Env: env})
			var got string
			if strings.HasSuffix(file, ".good.yaml") {
				require.NoError(t, err)
				var out bytes.Buffer
				require.NoError(t, cfg.Print(&out))
				got = out.String()
				holdJSONToYAML(t, cfg, out.Bytes())
			} else {
				require.Error(t, err)
				require.Nil(t, cfg)
				got = err.Error() + "\n"
				var faults *config.Error
				require.ErrorAs(t, err, &faults)
				for _, f := range faults.Faults {
					require.NotEmpty(t, f.Path)
					require.NotEmpty(t, f.Problem)
					require.NotEmpty(t, f.Try, f.Path)
				}
			}
			require.NotContains(t, got, "s3cret", "no secret is shown")

			want := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				require.NoError(t, os.WriteFile(want, []byte(got), 0o600))
			}
			expected, err := os.ReadFile(want)
			require.NoError(t, err)
			require.Equal(t, string(expected), got)
		})
	}
}

// holdJSONToYAML demands of PrintJSON what Print shows, and the place of each value.
func holdJSONToYAML(t *testing.T, cfg *config.Config, printed []byte) {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, cfg.PrintJSON(&out))
	require.NotContains(t, out.String(), "s3cret")
	var fromYAML, fromJSON map[string]any
	require.NoError(t, yaml.Unmarshal(printed, &fromYAML))
	require.NoError(t, json.Unmarshal(out.Bytes(), &fromJSON))
	origins := fromJSON["origins"].(map[string]any)
	delete(fromJSON, "origins")
	require.Equal(t, fromYAML, fromJSON)
	require.Equal(t, cfg.Origin("listen"), origins["listen"])
	require.Equal(t, cfg.Origin("store.admin_url"), origins["store.admin_url"])
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	loaded, err := config.Load(config.Input{})
	require.NoError(t, err)
	for _, c := range []*config.Config{loaded, config.Default()} {
		require.Equal(t, "sqlite:keytrail.db", c.Store.URL.String())
		require.Equal(t, config.SQLite, c.Store.URL.Kind)
		require.Equal(t, "keytrail.db", c.Store.URL.Path)
		require.Equal(t, c.Store.URL, c.Store.AdminURL)
		require.Equal(t, "127.0.0.1:8085", c.Listen)
		require.Equal(t, "http://127.0.0.1:8085", c.PublicURL)
		require.Equal(t, "http://127.0.0.1:40001", c.PublicURLAt("127.0.0.1:40001"))
		for _, everywhere := range []string{"[::]:40001", "0.0.0.0:40001", ":40001"} {
			require.Equal(t, "http://localhost:40001", c.PublicURLAt(everywhere))
		}
		require.Equal(t, "master", c.Keycloak.AuthRealm)
		require.Equal(t, time.Minute, c.Poll.Interval)
		require.Equal(t, 6*time.Hour, c.Reconcile.Interval)
		require.Equal(t, time.Minute, c.Reconcile.Settle)
		require.Equal(t, 200, c.Store.SnapshotAfter)
		require.Equal(t, "text", c.Log.Format)
		require.Equal(t, slog.LevelInfo, c.Log.Level)
		require.False(t, c.Webhook.Secret.IsSet())
		require.Len(t, c.Sources, 1)
		require.Equal(t, "keycloak", c.Sources[0].Name)
		require.Equal(t, config.AuthNone, c.Sources[0].Auth)
		require.Equal(t, "default", c.Origin("listen"))
	}
}

// good holds for every setting three different values that can stand together
// with the defaults of the others and the extras.
var good = map[string][3]string{
	"store.url":              {"sqlite:a.db", "sqlite:b.db", "postgres://u:p@h/d"},
	"store.admin_url":        {"postgres://a@h/d", "postgres://b@h/d", "postgresql://c@h/d"},
	"store.snapshot_after":   {"1", "0", "1000"},
	"listen":                 {"127.0.0.1:1", "[::1]:2", "localhost:0"},
	"webhook.secret":         {"a", "b", "c,d"},
	"public_url":             {"https://127.0.0.1", "http://localhost:80/x", "http://[::1]"},
	"keycloak.url":           {"https://127.0.0.1", "http://localhost:80/x", "http://[::1]"},
	"keycloak.realms":        {"a", "b,c", "d"},
	"keycloak.client_id":     {"a", "b", "c"},
	"keycloak.client_secret": {"a", "b", "c,d,e"},
	"keycloak.auth_realm":    {"a", "b", "c"},
	"poll.interval":          {"1s", "0", "1h30m"},
	"reconcile.interval":     {"1s", "0", "2h"},
	"api.token":              {"a", "b", "c"},
	"reconcile.settle":       {"1s", "0", "250ms"},
	"log.format":             {"json", "text", "json"},
	"log.level":              {"debug", "warn", "error"},
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	for _, s := range config.Settings() {
		if s.FileOf != "" {
			continue
		}
		t.Run(s.Path, func(t *testing.T) {
			t.Parallel()
			values, ok := good[s.Path]
			require.True(t, ok, "a value for every setting")
			extras := extrasFor(s.Path)
			section, key, nested := strings.Cut(s.Path, ".")
			file := fmt.Sprintf("%s: %q\n", s.Path, values[0])
			if nested {
				file = fmt.Sprintf("%s:\n  %s: %q\n", section, key, values[0])
			}

			load := func(file string, env []string, flags map[string]string) (origin, printed string) {
				cfg, err := config.Load(config.Input{
					ConfigFile: "keytrail.yaml", Env: append(env, extras...), Flags: flags,
					ReadFile: func(string) ([]byte, error) { return []byte(file), nil },
				})
				require.NoError(t, err)
				return cfg.Origin(s.Path), value(t, cfg, s)
			}
			env := []string{s.Env + "=" + values[1]}
			flags := map[string]string{s.Flag: values[2]}

			origin, fromFile := load(file, nil, nil)
			require.Contains(t, origin, "keytrail.yaml:")
			require.Equal(t, normal(s, values[0]), fromFile)
			origin, fromEnv := load(file, env, nil)
			require.Equal(t, s.Env, origin)
			require.Equal(t, normal(s, values[1]), fromEnv)
			origin, fromFlag := load(file, env, flags)
			require.Equal(t, "--"+s.Flag, origin)
			require.Equal(t, normal(s, values[2]), fromFlag)
		})
	}
}

// extrasFor is the environment that the rules ask for beside one setting.
func extrasFor(path string) []string {
	var env []string
	add := func(other, entry string) {
		if other != path {
			env = append(env, entry)
		}
	}
	if strings.HasPrefix(path, "keycloak.") && path != "keycloak.auth_realm" {
		add("keycloak.url", "KEYTRAIL_KEYCLOAK_URL=http://127.0.0.1:8090")
		add("keycloak.client_id", "KEYTRAIL_KEYCLOAK_CLIENT_ID=keytrail")
		add("keycloak.client_secret", "KEYTRAIL_KEYCLOAK_CLIENT_SECRET=x")
	}
	if path == "store.admin_url" {
		add("store.url", "KEYTRAIL_STORE_URL=postgres://u@h/d")
	}
	return env
}

func value(t *testing.T, c *config.Config, s config.Setting) string {
	t.Helper()
	switch s.Path {
	case "store.url":
		return c.Store.URL.Reveal()
	case "webhook.secret":
		return c.Webhook.Secret.Reveal()
	case "keycloak.client_secret":
		return c.Keycloak.ClientSecret.Reveal()
	case "api.token":
		return c.API.Token.Reveal()
	}
	var out bytes.Buffer
	require.NoError(t, c.Print(&out))
	var tree map[string]any
	require.NoError(t, yaml.Unmarshal(out.Bytes(), &tree))
	var at any = tree
	for key := range strings.SplitSeq(s.Path, ".") {
		at = at.(map[string]any)[key]
	}
	if items, ok := at.([]any); ok {
		return strings.Trim(strings.ReplaceAll(fmt.Sprint(items), " ", ","), "[]")
	}
	return fmt.Sprint(at)
}

func normal(s config.Setting, value string) string {
	if s.Kind == config.KindDuration {
		d, err := time.ParseDuration(value)
		if err == nil && d == 0 {
			return "0"
		}
	}
	return value
}

func TestSecretFromFile(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"a.yaml": "webhook: {secret_file: from-yaml}\napi: {token: from-yaml}\n", "from-yaml": "yaml\n", "from-env": "env\r\n", "from-flag": "flag",
		"store": "postgres://u:p%40@h/d\n",
	}
	load := func(env []string, flags map[string]string) *config.Config {
		cfg, err := config.Load(config.Input{
			ConfigFile: "a.yaml", Env: env, Flags: flags,
			ReadFile: func(name string) ([]byte, error) {
				content, ok := files[name]
				if !ok {
					return nil, os.ErrNotExist
				}
				return []byte(content), nil
			},
		})
		require.NoError(t, err)
		return cfg
	}
	c := load(nil, nil)
	require.Equal(t, "yaml", c.Webhook.Secret.Reveal())
	require.Equal(t, "a.yaml:1 (from-yaml)", c.Origin("webhook.secret"))

	c = load([]string{"KEYTRAIL_WEBHOOK_SECRET=direct", "KEYTRAIL_API_TOKEN_FILE=from-env", "KEYTRAIL_STORE_URL_FILE=store"}, nil)
	require.Equal(t, "direct", c.Webhook.Secret.Reveal(), "environment wins over the file, whichever way")
	require.Equal(t, "env", c.API.Token.Reveal())
	require.Equal(t, "postgres://u:p%40@h/d", c.Store.URL.Reveal())

	c = load([]string{"KEYTRAIL_WEBHOOK_SECRET=direct"}, map[string]string{"webhook-secret-file": "from-flag", "api-token": "flag"})
	require.Equal(t, "flag", c.Webhook.Secret.Reveal())
	require.Equal(t, "flag", c.API.Token.Reveal())
}

func TestConfigFileByEnvironment(t *testing.T) {
	t.Parallel()
	read := func(name string) ([]byte, error) {
		switch name {
		case "env.yaml":
			return []byte("listen: 127.0.0.1:1"), nil
		case "flag.yaml":
			return []byte("listen: 127.0.0.1:2"), nil
		}
		return nil, &os.PathError{Op: "open", Path: name, Err: errors.New("disk on fire")}
	}
	env := []string{"KEYTRAIL_CONFIG=env.yaml"}
	c, err := config.Load(config.Input{Env: env, ReadFile: read})
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:1", c.Listen)
	c, err = config.Load(config.Input{Env: env, ConfigFile: "flag.yaml", ReadFile: read})
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:2", c.Listen)

	_, err = config.Load(config.Input{
		Env:      []string{"KEYTRAIL_CONFIG=gone.yaml", "KEYTRAIL_LISTEN=0.0.0.0:80", "KEYTRAIL_LOG_LEVEL=x"},
		ReadFile: read,
	})
	require.EqualError(t, err, `configuration: 2 faults

config: names a file that cannot be read: disk on fire
  from: KEYTRAIL_CONFIG
  value: "gone.yaml"
  Try: check the path

log.level: is not one of debug, info, warn, error
  from: KEYTRAIL_LOG_LEVEL
  value: "x"
  Try: debug`, "rules over a file that was not read would mislead")
}

func TestFlags(t *testing.T) {
	t.Parallel()
	_, err := config.Load(config.Input{Flags: map[string]string{"listne": "s3cret", "poll-interval": "", "api-token": ""}})
	require.EqualError(t, err, `configuration: 3 faults

--listne: is not a setting
  from: flags
  Try: did you mean listen?

poll.interval: is not a duration
  from: --poll-interval
  Try: a number with a unit (ms, s, m, h), such as 60s, or 0 to switch off

api.token: is empty
  from: --api-token
  Try: give it a value, or leave the setting out`)

	// An empty flag clears what can be empty.
	c, err := config.Load(config.Input{
		Env:   []string{"KEYTRAIL_PUBLIC_URL=https://a", "KEYTRAIL_STORE_ADMIN_URL=sqlite:other.db"},
		Flags: map[string]string{"public-url": "", "store-admin-url": "", "listen": ":0", "api-token": "x", "webhook-secret": "y"},
	})
	require.NoError(t, err)
	require.Equal(t, "http://localhost:0", c.PublicURL)
	require.Equal(t, "http://127.0.0.1:7", c.PublicURLAt("127.0.0.1:7"))
	require.Equal(t, c.Store.URL, c.Store.AdminURL)
}

func TestWithoutClient(t *testing.T) {
	t.Parallel()
	env := []string{"KEYTRAIL_KEYCLOAK_URL=http://127.0.0.1:8090"}
	_, err := config.Load(config.Input{Env: env})
	require.ErrorContains(t, err, "keycloak.client_id: is missing")
	_, err = config.Load(config.Input{Env: env, WithoutClient: true})
	require.NoError(t, err)
}

func TestSettings(t *testing.T) {
	t.Parallel()
	contract := []string{
		"KEYTRAIL_STORE_URL", "KEYTRAIL_STORE_ADMIN_URL", "KEYTRAIL_STORE_SNAPSHOT_AFTER", "KEYTRAIL_LISTEN", "KEYTRAIL_WEBHOOK_SECRET", "KEYTRAIL_PUBLIC_URL",
		"KEYTRAIL_KEYCLOAK_URL", "KEYTRAIL_KEYCLOAK_REALMS", "KEYTRAIL_KEYCLOAK_CLIENT_ID", "KEYTRAIL_KEYCLOAK_CLIENT_SECRET",
		"KEYTRAIL_KEYCLOAK_AUTH_REALM", "KEYTRAIL_POLL_INTERVAL", "KEYTRAIL_RECONCILE_INTERVAL", "KEYTRAIL_API_TOKEN",
		"KEYTRAIL_RECONCILE_SETTLE", "KEYTRAIL_LOG_FORMAT", "KEYTRAIL_LOG_LEVEL",
	}
	var found, secretFiles []string
	seen := map[string]bool{}
	for _, s := range config.Settings() {
		for _, name := range []string{"path " + s.Path, "env " + s.Env, "flag " + s.Flag} {
			require.False(t, seen[name], name)
			seen[name] = true
		}
		require.NotEmpty(t, s.Kind)
		require.NotEmpty(t, s.Description)
		if s.FileOf != "" {
			secretFiles = append(secretFiles, s.Env)
			continue
		}
		found = append(found, s.Env)
	}
	require.Equal(t, contract, found)
	require.Equal(t, []string{
		"KEYTRAIL_STORE_URL_FILE", "KEYTRAIL_STORE_ADMIN_URL_FILE", "KEYTRAIL_WEBHOOK_SECRET_FILE",
		"KEYTRAIL_KEYCLOAK_CLIENT_SECRET_FILE", "KEYTRAIL_API_TOKEN_FILE",
	}, secretFiles)
}

func TestPrintedConfigurationLoads(t *testing.T) {
	t.Parallel()
	c, err := config.Load(config.Input{Env: []string{
		"KEYTRAIL_LISTEN=localhost:1", "KEYTRAIL_LOG_FORMAT=json", "KEYTRAIL_POLL_INTERVAL=0", "KEYTRAIL_KEYCLOAK_AUTH_REALM=0x10",
	}})
	require.NoError(t, err)
	var printed, again bytes.Buffer
	require.NoError(t, c.Print(&printed))
	c2, err := config.Load(config.Input{ConfigFile: "p.yaml", ReadFile: func(string) ([]byte, error) { return printed.Bytes(), nil }})
	require.NoError(t, err, printed.String())
	require.NoError(t, c2.Print(&again))
	require.Equal(t, "0x10", c2.Keycloak.AuthRealm)
	var a, b any
	require.NoError(t, yaml.Unmarshal(printed.Bytes(), &a))
	require.NoError(t, yaml.Unmarshal(again.Bytes(), &b))
	require.Equal(t, a, b)

	require.ErrorContains(t, c.Print(failingWriter{}), "printing the configuration")
	require.ErrorContains(t, c.PrintJSON(failingWriter{}), "printing the configuration")
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestRotation(t *testing.T) {
	t.Parallel()
	c, err := config.Load(config.Input{Env: []string{"KEYTRAIL_WEBHOOK_SECRET=new, old"}})
	require.NoError(t, err)
	require.Equal(t, config.AuthHMACSHA256, c.Sources[0].Auth)
	var got []string
	for _, s := range c.Sources[0].Secrets() {
		got = append(got, s.Reveal())
	}
	require.Equal(t, []string{"new", "old"}, got)
	require.Empty(t, config.Source{}.Secrets())
}

// TestNoSecretLeaks prints a configuration in all the ways that come to mind.
func TestNoSecretLeaks(t *testing.T) {
	t.Parallel()
	c, err := config.Load(config.Input{ConfigFile: "testdata/full.good.yaml"})
	require.NoError(t, err)
	type hiding struct{ secret config.Secret } // unexported: fmt asks no method
	holders := []any{
		c, *c, c.Webhook, &c.Webhook, c.Webhook.Secret, &c.Webhook.Secret, c.Store, c.Store.URL, &c.Store.URL, c.Sources,
		hiding{c.API.Token},
		&hiding{c.API.Token},
		[]config.Secret{c.API.Token},
		map[string]config.Secret{"a": c.API.Token},
		map[config.Secret]int{c.API.Token: 1},
	}
	for _, holder := range holders {
		var outs []string
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%10.3v"} {
			outs = append(outs, fmt.Sprintf(verb, holder))
		}
		if j, err := json.Marshal(holder); err == nil {
			outs = append(outs, string(j))
		}
		if y, err := yaml.Marshal(holder); err == nil {
			outs = append(outs, string(y))
		}
		var log bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
			slog.New(h).Info("loaded", "config", holder, slog.Group("group", "config", holder))
		}
		outs = append(outs, log.String(), fmt.Errorf("wrapping %v", holder).Error())
		for _, out := range outs {
			require.NotContains(t, out, "s3cret")
			require.NotContains(t, out, fmt.Sprintf("%x", "s3cret"))
		}
	}
	for _, s := range []string{fmt.Sprint(c.API.Token), fmt.Sprintf("%#v", c.API.Token), fmt.Sprintf("%d", c.API.Token), c.API.Token.LogValue().String()} {
		require.Equal(t, "<redacted>", s)
	}
	require.Contains(t, c.Store.URL.Reveal(), "s3cret")
	require.Equal(t, "postgres://keytrail:xxxxx@db.example.com:5432/keytrail?sslmode=require", c.Store.URL.String())
}

func TestParseStoreURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"sqlite:keytrail.db":                      "sqlite:keytrail.db",
		"sqlite:/var/lib/keytrail.db":             "sqlite:/var/lib/keytrail.db",
		"sqlite:///var/lib/keytrail.db":           "sqlite:/var/lib/keytrail.db",
		"postgres:///keytrail?host=/run":          "postgres:///keytrail?host=/run",
		"postgres://h/d?password=s3cret&x=1":      "postgres://h/d?password=xxxxx&x=1",
		"postgresql://u:s3cret@h:5432,i:5433/d":   "postgresql://u:xxxxx@h:5432,i:5433/d",
		"postgresql://u:s3cret@[::1]:5432/d":      "postgresql://u:xxxxx@[::1]:5432/d",
		"":                                        "",
		"sqlite:":                                 "",
		"sqlite://keytrail.db":                    "",
		"sqlite::memory:":                         "",
		"sqlite:a.db?mode=memory":                 "",
		"postgres:h/d":                            "",
		"host=db user=u password=s3cret dbname=d": "",
		"postgres://u:s3cret%zz@h/d":              "",
		"mysql://u:s3cret@h/d":                    "",
		"postgres://u:12/s3cret@h/d":              "",
		"postgres://u:?s3cret@h/d":                "",
		"postgres://u:#s3cret@h/d":                "",
		"postgres://u:s3cret":                     "",
	} {
		u, err := config.ParseStoreURL(text)
		if want == "" {
			require.Error(t, err, text)
			require.NotContains(t, err.Error(), "s3cret")
			require.Contains(t, err.Error(), "Try: ")
			_, err = config.Load(config.Input{Env: []string{"KEYTRAIL_STORE_ADMIN_URL=" + text}})
			if text != "" {
				require.Error(t, err)
				require.NotContains(t, err.Error(), "s3cret")
			}
			continue
		}
		require.NoError(t, err, text)
		require.Equal(t, want, u.String())
	}
}

func TestMultiHost(t *testing.T) {
	t.Parallel()
	u, err := config.ParseStoreURL("postgres://u:s3cret@one,two:5432/d?target_session_attrs=read-write")
	require.NoError(t, err, "pgx takes several hosts")
	require.NotContains(t, u.String(), "s3cret")
}

// A bad value is shown without what may be a password, whatever it looks like.
func TestBadStoreURLHidesPassword(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		noise := rapid.StringOf(rapid.RuneFrom([]rune(`ab/@:%?&= #`)))
		text := rapid.SampledFrom([]string{"mysql", "postgress", "postgres", "sqlite"}).Draw(t, "scheme") + "://u:" +
			noise.Draw(t, "before") + "s3cret" + noise.Draw(t, "after") + "@h%zz/d"
		c, err := config.Load(config.Input{Env: []string{"KEYTRAIL_STORE_URL=" + text}})
		if err == nil {
			require.NotContains(t, c.Store.URL.String(), "s3cret")
			return
		}
		require.NotContains(t, err.Error(), "s3cret")
	})
}

func FuzzLoadFile(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	require.NoError(f, err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		c, err := config.Load(config.Input{ConfigFile: "f.yaml", ReadFile: func(name string) ([]byte, error) {
			if name == "f.yaml" {
				return content, nil
			}
			return nil, os.ErrNotExist
		}})
		if err == nil {
			require.NoError(t, c.Print(io.Discard))
		}
	})
}
