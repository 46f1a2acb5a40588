package hotjson_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/internal/hotjson"
)

type document struct {
	Text    string              `json:"text"`
	Number  int                 `json:"number"`
	Time    time.Time           `json:"time"`
	Raw     json.RawMessage     `json:"raw,omitempty"`
	Map     map[string]string   `json:"map,omitempty"`
	Lists   map[string][]string `json:"lists,omitempty"`
	Inner   *document           `json:"inner,omitempty"`
	Several []document          `json:"several,omitempty"`
	embedded
}

type embedded struct {
	Deep string `json:"deep"`
}

// TestAsEncodingJSON: the same value, or the same error.
func TestAsEncodingJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`, `null`, ` { "text" : "x" } `, `{"text":"x"} more`, `{"text":"x"`, `{"text":"x",}`, ``, `[]`, `5`,
		`{"Text":"x","NUMBER":3,"Deep":"y"}`, `{"text":"x","Text":"y"}`, `{"Text":"y","text":"x"}`,
		"{\"text\":\"a\xffb\"}", "{\"text\":\"a\nb\"}", "{\"text\":\"a\x01b\"}", "{\"te\xffxt\":5}", `{"text":"\x"}`, `{"text":"\u12"}`,
		`{"text":"x","text":"y"}`, `{"text":null,"number":null,"time":null,"raw":null,"map":null,"lists":null,"inner":null,"several":null}`,
		`{"unknown":{"deep":[1,{"x":null}]},"text":"x","deep":"y"}`, `{"text":5}`, `{"text":{}}`, `{"text":["x"]}`,
		`{"text":"\ud800x","deep":"\u00e9\ud83d\ude00\n\"\\\/"}`, `{"text":"a\u0000b"}`, "{\"text\":\"a\u2028b\"}",
		`{"number":1.5}`, `{"number":99999999999999999999}`, `{"number":9223372036854775807}`, `{"number":-9223372036854775808}`, `{"number":-9223372036854775809}`,
		`{"number":1e2}`, `{"number":"1"}`, `{"number":-0}`, `{"number":01}`, `{"number":true}`,
		`{"time":"2026-01-05T09:00:00.123456Z"}`, `{"time":"2026-01-05T09:00:00+05:30"}`, `{"time":"yesterday"}`, `{"time":5}`,
		`{"raw": {"a" : 1.00000000000000000000000001e400, "b":[1,2]} , "text":"x"}`, `{"raw":"text"}`, `{"raw":[ ]}`,
		`{"map":{"a":"b","a":"c"}}`, `{"map":{"a":5}}`, `{"map":{"a":null}}`, `{"map":{}}`, `{"map":[]}`,
		`{"lists":{"a":null,"b":[null,"x"],"c":[]}}`, `{"lists":{"a":"x"}}`,
		`{"inner":{"inner":{"text":"x"},"number":3},"inner":{"text":"y"}}`, `{"several":[{"text":"x"},null,{}]}`, `{"several":{}}`,
	} {
		var want, got document
		wantErr, err := json.Unmarshal([]byte(text), &want), hotjson.Unmarshal([]byte(text), &got)
		require.Equal(t, wantErr, err, text)
		require.Equal(t, want, got, text)
	}
}

// TestInputIsNotKept: the store may reuse its buffer.
func TestInputIsNotKept(t *testing.T) {
	t.Parallel()
	b := []byte(`{"text":"some text","raw":{"a":1},"map":{"key":"value"},"lists":{"x":["y"]}}`)
	var got document
	require.NoError(t, hotjson.Unmarshal(b, &got))
	for i := range b {
		b[i] = '#'
	}
	require.Equal(t, document{
		Text: "some text", Raw: json.RawMessage(`{"a":1}`), Map: map[string]string{"key": "value"}, Lists: map[string][]string{"x": {"y"}},
	}, got)
}

func TestTargetMustBeAPointer(t *testing.T) {
	t.Parallel()
	require.Error(t, hotjson.Unmarshal([]byte(`{}`), document{}))
	require.Error(t, hotjson.Unmarshal([]byte(`{}`), (*document)(nil)))
	require.Error(t, hotjson.Unmarshal([]byte(`{}`), nil))
}
