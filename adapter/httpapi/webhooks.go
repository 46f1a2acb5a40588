package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/inbound"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

// Recorder records deliveries. *inbound.Recorder is one.
type Recorder interface {
	Record(ctx context.Context, from inbound.Origin, batch []webhook.Delivery) ([]inbound.Receipt, error)
}

// recordTimeout bounds how long a delivery waits for its commit.
const recordTimeout = 30 * time.Second

// receipts is the answer to a webhook: accepted counts the deliveries that this
// request has recorded and duplicates those that were recorded before; together they
// are the deliveries.
type receipts struct {
	Accepted   int `json:"accepted"`
	Duplicates int `json:"duplicates"`
	// Excluded counts events of types that the source is not to record.
	Excluded   int               `json:"excluded,omitempty"`
	Deliveries []inbound.Receipt `json:"deliveries"`
}

// receive is POST /webhooks/{source}. The order of its checks is part of the
// contract. Beyond the commit nothing happens in the request.
func (s *Server) receive(w http.ResponseWriter, r *http.Request) error {
	name := param(r, "source")
	source, ok := s.sources[name]
	if !ok {
		return adapter.Errorf(adapter.CodeNotFound, "no webhook source of this name is configured").
			WithTry("send to /webhooks/keycloak, or add the source under sources in the configuration file")
	}
	if err := checkJSON(r); err != nil {
		return err
	}
	select {
	case s.inFlight <- struct{}{}:
		defer func() { <-s.inFlight }()
	default:
		return adapter.Errorf(adapter.CodeOverloaded, "%d webhook requests are being served already", cap(s.inFlight)).
			WithTry("send the same event again later; a duplicate does no harm")
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	if err := trusted(source, r, body); err != nil {
		return err
	}
	batch, err := webhook.Decode(body, source.Dialect)
	switch {
	case errors.Is(err, webhook.ErrUnknownDialect):
		return err // the configuration's fault: 500
	case errors.Is(err, webhook.ErrTooManyEvents):
		return adapter.Errorf(codeTooLarge, "%w", err).WithTry("send at most %d events in one batch", webhook.MaxBatch)
	case err != nil:
		return adapter.Errorf(adapter.CodeInvalidRequest, "%w", err).
			WithTry("send one Keycloak event as a JSON object, or a batch {\"events\":[…]}")
	}
	kept := source.Filter(batch)

	known := requestOf(r)
	// A sender that hangs up is no reason to lose an event that has arrived.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), recordTimeout)
	defer cancel()
	recorded, err := s.Recorder.Record(ctx, inbound.Origin{
		Source: source.Name, Realm: source.Realm, CorrelationID: known.given, Traceparent: known.traceparent,
	}, kept)
	if err != nil {
		return err
	}
	out := receipts{Excluded: len(batch) - len(kept), Deliveries: recorded}
	if out.Deliveries == nil {
		out.Deliveries = []inbound.Receipt{}
	}
	for _, receipt := range recorded {
		if receipt.Duplicate {
			out.Duplicates++
		} else {
			out.Accepted++
		}
	}
	return answer(w, http.StatusAccepted, out)
}

// trusted checks the signature or, where the source has no secret, that the request
// comes from this machine.
func trusted(source *inbound.Source, r *http.Request, body []byte) error {
	if !source.Signed() {
		if why := loopbackTrust(r); why != "" {
			return adapter.Errorf(codeSignature, "%s, and the source has no secret to check a signature with", why).
				WithTry("set KEYTRAIL_WEBHOOK_SECRET (or the source's secret) and give the sender the same one")
		}
		return nil
	}
	if source.Verify(r.Header, body) {
		return nil
	}
	detail := "the signature does not fit the body"
	switch values := r.Header.Values(inbound.SignatureHeader); {
	case len(values) == 0:
		detail = "the header " + inbound.SignatureHeader + " is missing"
	case len(values) > 1:
		detail = "the header " + inbound.SignatureHeader + " is there more than once"
	case values[0] == "":
		detail = "the header " + inbound.SignatureHeader + " is empty: the sender could not sign"
	}
	return adapter.Errorf(codeSignature, "%s", detail).
		WithTry("give the sender the secret of this source, and let it sign with %s", source.Algorithm)
}
