package admin

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"
)

// checkRetry is the policy of doc.go. go-retryablehttp passes a nil response with
// every transport error, so the method comes from the context.
func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, nil //nolint:nilerr // the answer is "no more"; whoever called knows that its context ended
	}
	c := callOf(ctx)
	// Reading, and fetching a token, changes nothing.
	safe := c.method == http.MethodGet || c.token
	if err != nil {
		var failure *TransportError
		if !errors.As(err, &failure) || failure.Kind == KindTLS || failure.Kind == KindCanceled {
			return false, nil
		}
		return safe || !failure.Sent, nil
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return safe || c.method == http.MethodPut || c.method == http.MethodDelete, nil
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		return safe, nil
	}
	return false, nil
}

// backoff waits as long as Retry-After asks, within the bounds (go-retryablehttp's
// own lets it pass RetryWaitMax), else between waitMin and a bound that doubles.
func (c *Client) backoff(waitMin, waitMax time.Duration, attempt int, resp *http.Response) time.Duration {
	if resp != nil {
		if wait := retryAfter(resp.Header, c.clock()); wait > 0 {
			return min(max(wait, waitMin), waitMax)
		}
	}
	bound := min(float64(waitMin)*math.Pow(2, float64(attempt)), float64(waitMax))
	return min(waitMin+time.Duration(c.jitter()*(bound-float64(waitMin))), waitMax)
}

// retryAfter reads the header's two forms; 0 when there is none that can be read.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseInt(value, 10, 64); err == nil {
		const day = 24 * 60 * 60
		return time.Duration(min(max(seconds, 0), day)) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), 24*time.Hour)
}
