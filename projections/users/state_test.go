package users

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

// fill sets every field of v to something, different each time.
func fill(v reflect.Value, n *int) {
	*n++
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.Date(2025, 1, 1, 0, 0, *n, 0, time.UTC)
		return
	case *uuid.UUID:
		*x = uuid.NewSHA1(uuid.Nil, []byte(fmt.Sprint(*n)))
		return
	case *json.RawMessage:
		*x = json.RawMessage(fmt.Sprint(*n))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 3 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, n)
			fill(value, n)
			v.SetMapIndex(key, value)
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString(fmt.Sprint("s", *n))
	default:
		v.SetInt(int64(*n))
	}
}

// TestAStateHasTheWholeUser, whatever is added to it.
func TestAStateHasTheWholeUser(t *testing.T) {
	t.Parallel()
	var u adapter.User
	n := 0
	fill(reflect.ValueOf(&u).Elem(), &n)
	shared := adapter.Origin{At: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Type: "t", Version: 3}
	shared.Actor, shared.EventID = &adapter.Actor{ID: "a"}, uuid.New()
	u.Origins["one"], u.Origins["two"] = shared, shared
	elsewhere := shared
	elsewhere.At = shared.At.In(time.FixedZone("", 3600))
	u.Origins["three"] = elsewhere

	text, err := encode(u)
	require.NoError(t, err)
	got, err := decode(text)
	require.NoError(t, err)
	require.True(t, got.Origins["three"].At.Equal(elsewhere.At))
	u.Origins["three"] = got.Origins["three"]
	require.Equal(t, u, got)
	var s state
	require.NoError(t, json.Unmarshal(text, &s))
	require.Len(t, s.Sources, 4, "three of their own and one that three fields share")

	before, err := json.Marshal(u)
	require.NoError(t, err)
	got, err = decode(before)
	require.NoError(t, err)
	require.Equal(t, u, got, "what the program wrote before")

	for _, damaged := range []string{`{"fields":[{"name":"email"}]}`, `{"fields":[{"name":"email"}],"sources":[{"actor":1}]}`, `[]`} {
		_, err := decode([]byte(damaged))
		require.Error(t, err, damaged)
	}
}
