package seal_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/internal/seal"
)

// boxes is a sealer for tests: a sealed value looks like {"sealed":"…"} and
// carries its person and group, so that opening with another key shows.
type boxes struct {
	forgotten map[seal.Person]bool
	lost      map[seal.Group]bool
}

type box struct {
	Key    string `json:"key"`
	Sealed string `json:"sealed"`
}

func (b boxes) key(p seal.Person, g seal.Group) string {
	return fmt.Sprintf("%s|%s|%s", p.Realm, p.ID, g)
}

func (b boxes) Seal(_ context.Context, p seal.Person, g seal.Group, plain []byte) ([]byte, error) {
	return json.Marshal(box{Key: b.key(p, g), Sealed: base64.StdEncoding.EncodeToString(plain)})
}

func (b boxes) Open(_ context.Context, p seal.Person, g seal.Group, sealed []byte) ([]byte, error) {
	if b.forgotten[p] || b.lost[g] {
		return nil, fmt.Errorf("opening for %s: %w", p.Realm, seal.ErrForgotten)
	}
	var in box
	if err := json.Unmarshal(sealed, &in); err != nil {
		return nil, errors.New("not a box")
	}
	if in.Key != b.key(p, g) {
		return nil, errors.New("sealed with another key")
	}
	return base64.StdEncoding.DecodeString(in.Sealed)
}

func (b boxes) SealBody(ctx context.Context, p seal.Person, plain []byte) ([]byte, error) {
	return b.Seal(ctx, p, seal.Raw, plain)
}

func (b boxes) OpenBody(ctx context.Context, p seal.Person, sealed []byte) ([]byte, error) {
	return b.Open(ctx, p, seal.Raw, sealed)
}

// same stores values as they are, like Plain, but takes the long way.
type same struct{ seal.Plain }

// broken answers with something that is not one JSON value.
type broken struct{ seal.Plain }

func (broken) Seal(context.Context, seal.Person, seal.Group, []byte) ([]byte, error) {
	return []byte(`1,"x":2`), nil
}

type subject struct {
	UserID string `json:"user_id"`
	Name   string `json:"name,omitempty" seal:"profile"`
}

type Network struct {
	IP      string `json:"ip,omitempty"`
	Session string `json:"session,omitempty" seal:"actor"`
	Method  string `json:"method,omitempty" seal:"-"`
}

type payload struct {
	Realm string `json:"realm"`
	subject
	*Network   `seal:"network"`
	Email      *string             `json:"email,omitempty" seal:"profile"`
	Last       *string             `json:"last_name" seal:"profile"`
	Attributes map[string][]string `json:"attributes,omitempty" seal:"attributes"`
	Raw        json.RawMessage     `json:"representation,omitempty" seal:"raw"`
	Enabled    bool                `json:"enabled"`
	Age        int                 `json:"age,omitzero,string" seal:"profile"`
	Nested     subject             `json:"nested,omitzero"`
	NoName     string              `seal:"profile"`
	Skipped    string              `json:"-" seal:"profile"`
	hidden     string              //nolint:unused // encoding/json must not see it either
}

var alice = seal.Person{Realm: "acme", ID: "f:ldap:alice"}

func full() payload {
	email := "alice@example.com <x>"
	return payload{
		Realm:      "acme",
		subject:    subject{UserID: "u1", Name: "alice"},
		Network:    &Network{IP: "192.0.2.1", Session: "s", Method: "otp"},
		Email:      &email,
		Attributes: map[string][]string{"team": {"a", "b"}},
		Raw:        json.RawMessage(`{"b":1.50,"a":[null]}`),
		Age:        41,
		Nested:     subject{UserID: "n", Name: "not sealed: not top level"},
	}
}

func TestPlainIsEncodingJSON(t *testing.T) {
	t.Parallel()
	for _, v := range []any{full(), payload{}, &payload{Realm: "r"}, struct{ A int }{1}} {
		want, err := json.Marshal(v)
		require.NoError(t, err)
		for _, s := range []seal.Sealer{seal.Plain{}, same{}} {
			got, err := seal.Marshal(t.Context(), s, alice, v)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got))
		}
	}
	body := []byte{0, 0xff, '{'}
	sealed, err := seal.Plain{}.SealBody(t.Context(), alice, body)
	require.NoError(t, err)
	opened, err := seal.Plain{}.OpenBody(t.Context(), alice, sealed)
	require.NoError(t, err)
	require.Equal(t, body, opened)
}

func TestSealsTaggedMembersInOrder(t *testing.T) {
	t.Parallel()
	raw, err := seal.Marshal(t.Context(), boxes{}, alice, full())
	require.NoError(t, err)

	plain, err := json.Marshal(full())
	require.NoError(t, err)
	require.Equal(t, names(t, plain), names(t, raw), "same members, same order")

	var members map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(raw, &members))
	sealedWith := map[string]string{}
	for name, value := range members {
		var b box
		if json.Unmarshal(value, &b) == nil && b.Key != "" {
			sealedWith[name] = b.Key
		}
	}
	require.Equal(t, map[string]string{
		"name": "acme|f:ldap:alice|profile", "email": "acme|f:ldap:alice|profile", "last_name": "acme|f:ldap:alice|profile",
		"age": "acme|f:ldap:alice|profile", "NoName": "acme|f:ldap:alice|profile", "attributes": "acme|f:ldap:alice|attributes",
		"representation": "acme|f:ldap:alice|raw", "ip": "acme|f:ldap:alice|network", "session": "acme|f:ldap:alice|actor",
	}, sealedWith)

	var got payload
	forgotten, err := seal.Unmarshal(t.Context(), boxes{}, alice, raw, &got)
	require.NoError(t, err)
	require.Empty(t, forgotten)
	require.Equal(t, full(), got)
}

func TestForgottenMembersStayZero(t *testing.T) {
	t.Parallel()
	raw, err := seal.Marshal(t.Context(), boxes{}, alice, full())
	require.NoError(t, err)

	var some payload
	forgotten, err := seal.Unmarshal(t.Context(), boxes{lost: map[seal.Group]bool{seal.Profile: true}}, alice, raw, &some)
	require.NoError(t, err)
	require.Equal(t, []string{"name", "email", "last_name", "age", "NoName"}, forgotten)
	want := full()
	want.Name, want.Email, want.Age = "", nil, 0
	require.Equal(t, want, some)

	var all payload
	forgotten, err = seal.Unmarshal(t.Context(), boxes{forgotten: map[seal.Person]bool{alice: true}}, alice, raw, &all)
	require.NoError(t, err)
	require.Len(t, forgotten, 9)
	require.Equal(t, payload{Realm: "acme", subject: subject{UserID: "u1"}, Network: &Network{Method: "otp"}, Nested: want.Nested}, all)
}

type custom struct {
	A string `json:"a" seal:"profile"`
}

func (custom) MarshalJSON() ([]byte, error) { return []byte(`{"b":"leak"}`), nil }

func TestRefuses(t *testing.T) {
	t.Parallel()
	var none *payload
	for name, test := range map[string]struct {
		v    any
		want string
	}{
		"no struct":    {map[string]int{"a": 1}, "only a struct"},
		"nil":          {nil, "only a struct"},
		"nil pointer":  {none, "only a struct"},
		"own encoding": {custom{}, "its own JSON encoding"},
		"empty group": {struct {
			A string `seal:""`
		}{}, `the tag seal:"" names no group`},
		"odd group": {struct {
			A string `seal:"Pro file"`
		}{}, "names no group"},
		"odd member name": {struct {
			A string `json:"a/b" seal:"profile"`
		}{}, "may hold letters"},
		"two groups": {struct {
			subject
			Name string `json:"name" seal:"raw"`
		}{}, "belongs to the groups"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := seal.Marshal(t.Context(), boxes{}, alice, test.v)
			require.ErrorContains(t, err, test.want)
		})
	}

	_, err := seal.Marshal(t.Context(), broken{}, alice, full())
	require.ErrorContains(t, err, `member "name": the sealer's answer is not one JSON value`)

	for raw, want := range map[string]string{
		``: "reading the object", `[]`: "not a JSON object", `null`: "not a JSON object", `{"name":`: `"name"`, `{} {}`: "more follows", `{"realm":"a"`: "end",
		`{"name":"plain"}`: "not a box", `{"realm":1}`: "decoding",
	} {
		_, err := seal.Unmarshal(t.Context(), boxes{}, alice, json.RawMessage(raw), &payload{})
		require.ErrorContains(t, err, want, raw)
	}
	_, err = seal.Unmarshal(t.Context(), seal.Plain{}, alice, json.RawMessage(`{}`), payload{})
	require.Error(t, err, "v must be a pointer")
}

func TestErrorsHoldNoValue(t *testing.T) {
	t.Parallel()
	_, err := seal.Unmarshal(t.Context(), boxes{}, alice, json.RawMessage(`{"email":"alice@example.com"}`), &payload{})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "alice@")
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.RuneFrom([]rune(`a"\<>&{}[],: é☃0`)))
		v := payload{
			Realm:   text.Draw(t, "realm"),
			subject: subject{UserID: text.Draw(t, "user"), Name: text.Draw(t, "name")},
			Enabled: rapid.Bool().Draw(t, "enabled"),
			Age:     rapid.Int().Draw(t, "age"),
			NoName:  text.Draw(t, "no name"),
			Email:   rapid.Ptr(text, true).Draw(t, "email"),
			Last:    rapid.Ptr(text, true).Draw(t, "last"),
		}
		if rapid.Bool().Draw(t, "attributes?") {
			v.Attributes = rapid.MapOfN(text, rapid.SliceOf(text), 1, 4).Draw(t, "attributes")
		}
		if rapid.Bool().Draw(t, "network?") {
			// Non-zero, because encoding/json makes no embedded pointer for no members.
			v.Network = &Network{IP: "x" + text.Draw(t, "ip"), Session: text.Draw(t, "session")}
		}
		p := seal.Person{Realm: text.Draw(t, "p.realm"), ID: text.Draw(t, "p.id")}
		for _, s := range []seal.Sealer{seal.Plain{}, same{}, boxes{}} {
			raw, err := seal.Marshal(context.Background(), s, p, &v)
			require.NoError(t, err)
			require.True(t, json.Valid(raw))
			var got payload
			forgotten, err := seal.Unmarshal(context.Background(), s, p, raw, &got)
			require.NoError(t, err)
			require.Empty(t, forgotten)
			require.Equal(t, v, got)
		}
	})
}

func FuzzUnmarshal(f *testing.F) {
	raw, err := seal.Marshal(context.Background(), boxes{}, alice, full())
	require.NoError(f, err)
	f.Add([]byte(raw))
	f.Add([]byte(`{"name":{"key":"acme|f:ldap:alice|profile","sealed":"bnVsbA=="},"name":1}`))
	f.Add([]byte(`{"realm":"a","EMAIL":"x"} `))
	f.Fuzz(func(t *testing.T, raw []byte) {
		ctx := context.Background()
		var byPlain, bySame payload
		_, errPlain := seal.Unmarshal(ctx, seal.Plain{}, alice, raw, &byPlain)
		_, errSame := seal.Unmarshal(ctx, same{}, alice, raw, &bySame)
		require.Equal(t, errPlain == nil, errSame == nil, "short and long way agree: %v, %v", errPlain, errSame)
		if errPlain == nil {
			require.Equal(t, byPlain, bySame)
		}
		var v, again payload
		if _, err := seal.Unmarshal(ctx, boxes{}, alice, raw, &v); err != nil {
			return
		}
		out, err := seal.Marshal(ctx, boxes{}, alice, v)
		require.NoError(t, err)
		_, err = seal.Unmarshal(ctx, boxes{}, alice, out, &again)
		require.NoError(t, err)
	})
}

func names(t *testing.T, raw []byte) []string {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(raw))
	_, err := dec.Token()
	require.NoError(t, err)
	var out []string
	for dec.More() {
		name, err := dec.Token()
		require.NoError(t, err)
		out = append(out, name.(string))
		var skip json.RawMessage
		require.NoError(t, dec.Decode(&skip))
	}
	return out
}
