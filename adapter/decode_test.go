package adapter_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/seal"
)

// TestDecodeIsEncodingJSON: of whatever is stored, Decode makes what encoding/json
// makes of it, or refuses both: members that are unknown, there twice, null, of another
// type or in another case, numbers of any size, texts with any escape.
func TestDecodeIsEncodingJSON(t *testing.T) {
	t.Parallel()
	codec := adapter.NewCodec(seal.Plain{})
	types := adapter.PayloadTypes()
	rapid.Check(t, func(t *rapid.T) {
		typ := rapid.SampledFrom(types).Draw(t, "type")
		want := adapter.NewPayload(typ)
		var wantMeta adapter.Metadata
		e := eventstore.Event{
			ID: eventstore.NewID(), Type: typ, Stream: adapter.UserStream("acme", "u"),
			Data: objectFor(t, reflect.TypeOf(want).Elem()), Metadata: objectFor(t, reflect.TypeFor[adapter.Metadata]()),
		}
		err := json.Unmarshal(e.Metadata, &wantMeta)
		if err == nil {
			err = json.Unmarshal(e.Data, want)
		}
		got, gotErr := codec.Decode(t.Context(), e)
		if err != nil {
			require.Error(t, gotErr, "%s\n%s", e.Data, e.Metadata)
			require.ErrorContains(t, gotErr, err.Error())
			return
		}
		require.NoError(t, gotErr, "%s\n%s", e.Data, e.Metadata)
		require.Equal(t, want, got.Payload, "%s", e.Data)
		require.Equal(t, wantMeta, got.Meta, "%s", e.Metadata)
	})
}

// objectFor is a JSON object with members of the struct's names, mostly of their types.
func objectFor(t *rapid.T, typ reflect.Type) json.RawMessage {
	var members []string
	for _, f := range reflect.VisibleFields(typ) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" || rapid.IntRange(0, 3).Draw(t, "left out") == 0 {
			continue
		}
		switch rapid.IntRange(0, 19).Draw(t, "name") {
		case 0:
			name = strings.ToUpper(name)
		case 1:
			name += "x"
		}
		members = append(members, fmt.Sprintf("%q:%s%s", name, rapid.SampledFrom([]string{"", "", " ", "\n\t"}).Draw(t, "space"), valueFor(t, f.Type, 3)))
	}
	if len(members) > 0 && rapid.IntRange(0, 4).Draw(t, "twice") == 0 {
		members = append(members, rapid.SampledFrom(members).Draw(t, "again"))
	}
	return json.RawMessage("{" + strings.Join(members, ",") + "}")
}

var (
	timeType = reflect.TypeFor[time.Time]()
	idType   = reflect.TypeFor[uuid.UUID]()
	rawType  = reflect.TypeFor[json.RawMessage]()
)

func valueFor(t *rapid.T, typ reflect.Type, depth int) string {
	if rapid.IntRange(0, 149).Draw(t, "odd") == 0 {
		return rapid.SampledFrom([]string{"null", "true", `"text"`, "[]", "{}", "1e400", "-0", `[{"a":[null]}]`, "123456789012345678901234567890"}).Draw(t, "value")
	}
	switch {
	case typ == timeType:
		return `"` + time.Unix(rapid.Int64Range(0, math.MaxInt32).Draw(t, "time"), 123456000).UTC().Format(time.RFC3339Nano) + `"`
	case typ == idType:
		return `"` + uuid.Must(uuid.FromBytes(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))).String() + `"`
	case typ == rawType:
		return rapid.SampledFrom([]string{`{"a": [1, 2.50, {"b":null}] }`, `"text"`, "null", "1.00000000000000000000001e+400", "[ ]"}).Draw(t, "raw")
	case typ.Kind() == reflect.Struct && strings.HasPrefix(typ.Name(), "Optional["):
		if rapid.IntRange(0, 4).Draw(t, "cleared") == 0 {
			return "null"
		}
		value, _ := typ.FieldByName("value")
		return valueFor(t, value.Type.Elem(), depth)
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return valueFor(t, typ.Elem(), depth)
	case reflect.String:
		return textFor(t)
	case reflect.Bool:
		return fmt.Sprint(rapid.Bool().Draw(t, "bool"))
	case reflect.Struct:
		return string(objectFor(t, typ))
	case reflect.Slice:
		return listFor(t, depth, "[", "]", func() string { return valueFor(t, typ.Elem(), depth-1) })
	case reflect.Map:
		return listFor(t, depth, "{", "}", func() string { return textFor(t) + ":" + valueFor(t, typ.Elem(), depth-1) })
	default:
		return fmt.Sprint(rapid.OneOf(rapid.Int64(), rapid.Int64Range(-5, 50)).Draw(t, "number"))
	}
}

func listFor(t *rapid.T, depth int, open, end string, element func() string) string {
	var b bytes.Buffer
	b.WriteString(open)
	for i := range rapid.IntRange(0, min(depth, 3)).Draw(t, "length") {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(element())
	}
	return b.String() + end
}

func textFor(t *rapid.T) string {
	if rapid.IntRange(0, 3).Draw(t, "plain") > 0 {
		return `"` + rapid.StringMatching(`[a-z0-9 é😀.-]{0,20}`).Draw(t, "text") + `"`
	}
	return rapid.SampledFrom([]string{
		`""`, `"\ud800x"`, `"\udc00"`, `"\u00e9\ud83d\ude00"`, `"\n\t\"\\\/\b\f\r"`, `"\u0000"`, `"<>&\u2028"`, `"` + strings.Repeat("long ", 100) + `"`,
	}).Draw(t, "escape")
}
