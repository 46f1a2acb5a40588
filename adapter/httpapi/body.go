package httpapi

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
)

const (
	// maxBody is the most that a webhook or a command may carry, in bytes.
	maxBody = 1 << 20
	// drainLimit bounds what is read of a refused body. A sender that is still writing
	// when the connection closes sees a reset and not the answer.
	drainLimit = 8 << 20
	// bodyTimeout is how long a body may take to arrive.
	bodyTimeout = 20 * time.Second
)

// checkJSON refuses a body that does not say that it is JSON. Parameters, such as a
// charset, are not looked at.
func checkJSON(r *http.Request) error {
	const hint = "send the header Content-Type: application/json"
	header := r.Header.Get("Content-Type")
	if header == "" {
		return adapter.Errorf(codeMediaType, "the body's Content-Type is missing").WithTry(hint)
	}
	mediaType, _, err := mime.ParseMediaType(header)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return adapter.Errorf(codeMediaType, "the body's Content-Type cannot be read").WithTry(hint)
	}
	if mediaType != "application/json" && !strings.HasSuffix(mediaType, "+json") {
		return adapter.Errorf(codeMediaType, "the body's Content-Type is not JSON").WithTry(hint)
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return adapter.Errorf(codeMediaType, "the body is compressed").WithTry("send it without Content-Encoding")
	}
	return nil
}

// readBody reads a whole body of at most maxBody bytes.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	deadline := http.NewResponseController(w)
	// Not every ResponseWriter has deadlines; a server's has.
	_ = deadline.SetReadDeadline(time.Now().Add(bodyTimeout)) //nolint:forbidigo // a connection's deadline, not a fact
	// One that stayed would end the request's context while it is served.
	defer func() { _ = deadline.SetReadDeadline(time.Time{}) }()

	if r.ContentLength > maxBody {
		drain(r)
		return nil, tooLarge()
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, adapter.Errorf(codeTimeout, "the body did not arrive within %s", bodyTimeout)
	case err != nil:
		return nil, adapter.Errorf(adapter.CodeInvalidRequest, "the body broke off while it was read: %w", err)
	case len(body) > maxBody:
		drain(r)
		return nil, tooLarge()
	}
	return body, nil
}

func tooLarge() error {
	return adapter.Errorf(codeTooLarge, "the body is larger than 1 MiB (%d bytes)", maxBody)
}

func drain(r *http.Request) {
	if r.Header.Get("Expect") != "" {
		return // the sender waits for our word before it sends
	}
	_, _ = io.CopyN(io.Discard, r.Body, drainLimit)
}
