package projections

import (
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/keytrail/keytrail/adapter"
)

// Cursor makes a page's cursor from the key of its last row. Callers of the API must
// not look inside.
func Cursor(parts ...string) string {
	b, _ := json.Marshal(parts) // texts always encode
	return base64.RawURLEncoding.EncodeToString(b)
}

// ReadCursor reads the parts of a cursor. One that Cursor did not make from as many is
// CodeInvalidRequest.
func ReadCursor(cursor string, parts ...*string) error {
	var read []string
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		err = json.Unmarshal(b, &read)
	}
	if err == nil && len(read) != len(parts) {
		err = fmt.Errorf("it has %d parts, not %d", len(read), len(parts))
	}
	if err != nil {
		return BadCursor(err)
	}
	for i, part := range parts {
		*part = CleanText(read[i])
	}
	return nil
}

// BadCursor is the error of a cursor that is none of ours.
func BadCursor(err error) error {
	return &adapter.Error{
		Code: adapter.CodeInvalidRequest, Err: err, // what is wrong inside is nobody's business who must not look inside
		Detail: "the cursor is not one that this list gave", Try: "leave the cursor out to start from the first page",
	}
}
