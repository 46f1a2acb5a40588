package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Nerzal/gocloak/v13"
	"github.com/go-resty/resty/v2"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/keytrail/keytrail/keycloak"
)

// Config of a Client. BaseURL, AuthRealm, ClientID and ClientSecret are required.
type Config struct {
	// BaseURL of Keycloak, context path included, such as https://id.example.com/auth.
	BaseURL string
	// AuthRealm is the realm of the service account ClientID.
	AuthRealm, ClientID, ClientSecret string
	// Transport carries every single wire attempt: it sits inside the
	// repetitions and gets the caller's context. A recorder wraps NewTransport, so
	// that failures of the network arrive as *TransportError; any other error is
	// taken for the recorder's own, is not repeated and comes back as it is. It
	// should pass CloseIdleConnections on. Nil means NewTransport.
	Transport http.RoundTripper
	// Clock defaults to time.Now, Logger to a silent one.
	Clock  func() time.Time
	Logger *slog.Logger
	// RetryMax is the number of repetitions after the first attempt; 0 for none.
	RetryMax int
	// RetryWaitMin and RetryWaitMax bound the wait before a repetition, whatever
	// Retry-After says. They default to 200 ms and 5 s.
	RetryWaitMin, RetryWaitMax time.Duration
	// Timeout of one wire attempt, body included. Defaults to 30 s. The whole
	// call is bounded by its context.
	Timeout time.Duration
	// Observe is called once for each wire attempt, those for tokens included, when
	// its headers or its failure are there; status is 0 when no answer came.
	Observe func(method, template string, status int, d time.Duration)
	// Jitter returns numbers in [0,1) that spread the waits. Defaults to
	// math/rand/v2.
	Jitter func() float64
}

// maxResponse bounds a response body, in bytes. A page of 500 users has about 0.5 MB.
const maxResponse = 64 << 20

// Client calls the Admin API as one service account. It is safe for concurrent use.
type Client struct {
	baseURL, authRealm     string
	clientID, clientSecret string
	cloak                  *gocloak.GoCloak
	http                   *http.Client
	tokens                 *tokenSource
	clock                  func() time.Time
	jitter                 func() float64
}

// New checks the configuration, and names every fault of it. It sends nothing.
func New(cfg Config) (*Client, error) {
	base, err := checkConfig(cfg)
	if err != nil {
		return nil, err
	}
	cfg = withDefaults(cfg)
	c := &Client{
		baseURL:      base,
		authRealm:    cfg.AuthRealm,
		clientID:     cfg.ClientID,
		clientSecret: cfg.ClientSecret,
		clock:        cfg.Clock,
		jitter:       cfg.Jitter,
	}
	// A redirect is an answer, in both clients: followed, a 302 turns a PUT into a
	// GET of the login page, and that into a success.
	keepRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	retrying := &retryablehttp.Client{
		HTTPClient: &http.Client{
			Transport: &attemptTransport{
				next:    cfg.Transport,
				timeout: cfg.Timeout,
				clock:   cfg.Clock,
				logger:  cfg.Logger,
				observe: cfg.Observe,
			},
			CheckRedirect: keepRedirect,
		},
		RetryMax:     cfg.RetryMax,
		RetryWaitMin: cfg.RetryWaitMin,
		RetryWaitMax: cfg.RetryWaitMax,
		CheckRetry:   checkRetry,
		Backoff:      c.backoff,
		// Otherwise the last answer is replaced by "giving up after n attempts".
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
	c.http = retrying.HTTPClient
	rest := resty.NewWithClient(&http.Client{
		Transport:     &retryablehttp.RoundTripper{Client: retrying},
		CheckRedirect: keepRedirect,
	})
	// resty's own log lines hold URLs and bodies.
	rest.SetLogger(silent{}).SetResponseBodyLimit(maxResponse).SetHeader("User-Agent", "keytrail")
	c.cloak = gocloak.NewClient(base)
	c.cloak.SetRestyClient(rest)
	c.tokens = &tokenSource{fetch: c.fetchToken, clock: cfg.Clock}
	return c, nil
}

func checkConfig(cfg Config) (baseURL string, err error) {
	var faults []error
	base, err := url.Parse(cfg.BaseURL)
	switch {
	case err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "":
		// The parser's error would repeat the URL, and with it a password in it.
		faults = append(faults, errors.New("base URL: want http://host or https://host, with the context path if there is one"))
	case base.User != nil || base.RawQuery != "" || base.Fragment != "":
		faults = append(faults, errors.New("base URL: must not hold a user, a query or a fragment"))
	}
	for _, field := range []struct{ name, value string }{
		{"auth realm", cfg.AuthRealm}, {"client id", cfg.ClientID}, {"client secret", cfg.ClientSecret},
	} {
		if field.value == "" {
			faults = append(faults, fmt.Errorf("%s: missing", field.name))
		}
	}
	if cfg.RetryMax < 0 {
		faults = append(faults, fmt.Errorf("retry max: %d is negative", cfg.RetryMax))
	}
	if cfg.RetryWaitMin < 0 || cfg.RetryWaitMax < 0 || cfg.Timeout < 0 {
		faults = append(faults, errors.New("retry waits and timeout: must not be negative"))
	}
	if cfg.RetryWaitMax > 0 && cfg.RetryWaitMin > cfg.RetryWaitMax {
		faults = append(faults, fmt.Errorf("retry wait: min %s is more than max %s", cfg.RetryWaitMin, cfg.RetryWaitMax))
	}
	if len(faults) > 0 {
		return "", fmt.Errorf("keycloak admin client: %w", errors.Join(faults...))
	}
	return strings.TrimRight(cfg.BaseURL, "/"), nil
}

func withDefaults(cfg Config) Config {
	if cfg.Transport == nil {
		cfg.Transport = NewTransport()
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.RetryWaitMax == 0 {
		cfg.RetryWaitMax = max(5*time.Second, cfg.RetryWaitMin)
	}
	if cfg.RetryWaitMin == 0 {
		cfg.RetryWaitMin = min(200*time.Millisecond, cfg.RetryWaitMax)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, string, int, time.Duration) {}
	}
	if cfg.Jitter == nil {
		cfg.Jitter = rand.Float64
	}
	return cfg
}

// Close drops idle connections. Calls under way are not disturbed.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request is one call of the Admin API.
type request struct {
	method   string
	template string // with {realm} and {id}; params fill it in
	params   []string
	query    url.Values
	body     any // marshalled to JSON; nil for none
	want     int // the one status that is a success
}

func (r request) op() string { return r.method + " " + r.template }

// answer is a complete HTTP answer, whatever it says.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do makes a call and returns its answer, which has the wanted status.
func (c *Client) do(ctx context.Context, r request) (*answer, error) {
	path, err := expand(r.template, r.params)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.op(), err)
	}
	target := c.baseURL + path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	var body []byte
	if r.body != nil {
		if body, err = json.Marshal(r.body); err != nil {
			return nil, fmt.Errorf("%s: encode body: %w", r.op(), err)
		}
	}
	ctx = withCall(ctx, &call{method: r.method, template: r.template})
	for refreshed := false; ; refreshed = true {
		token, err := c.tokens.token(ctx)
		if err != nil {
			return nil, tokenError(err)
		}
		req := c.cloak.GetRequestWithBearerAuth(ctx, token).SetHeader("Accept", "application/json")
		if body != nil {
			req.SetBody(body)
		}
		answer, err := c.execute(ctx, req, target)
		if err != nil {
			return nil, err
		}
		switch {
		case answer.status == r.want:
			return answer, nil
		case answer.status == http.StatusUnauthorized && !refreshed:
			// The token was revoked, the keys were rotated or the server was
			// restarted. Nothing was done, so even a POST may go again.
			c.tokens.invalidate(token)
		default:
			return nil, c.apiError(r.op(), answer)
		}
	}
}

// execute sends a request through gocloak's client and reads its answer to the end.
func (c *Client) execute(ctx context.Context, req *resty.Request, target string) (*answer, error) {
	about := callOf(ctx)
	op := about.method + " " + about.template
	// gocloak asks resty to decode errors into a type that loses most of them.
	req.Error = nil
	resp, err := req.Execute(about.method, target)
	if err == nil {
		return &answer{status: resp.StatusCode(), header: resp.Header(), body: resp.Body()}, nil
	}
	var (
		abort   *abortError
		failure *TransportError
	)
	switch {
	case errors.As(err, &abort):
		return nil, abort.err
	case errors.As(err, &failure):
		return nil, &TransportError{Op: op, Kind: failure.Kind, Sent: about.sent.Load(), Err: failure.Err}
	case ctx.Err() != nil:
		// The caller gave up between two attempts.
		return nil, &TransportError{Op: op, Kind: classify(ctx.Err()), Sent: about.sent.Load(), Err: ctx.Err()}
	case resp != nil && resp.RawResponse != nil:
		return nil, &DecodeError{Op: op, Status: resp.StatusCode(), Err: err}
	}
	// url.Error would repeat the URL and the query's personal data.
	var location *url.Error
	if errors.As(err, &location) {
		err = location.Err
	}
	return nil, fmt.Errorf("%s: %w", op, err)
}

// tokenError wraps a failure of the token endpoint. What was sent there is not the call.
func tokenError(err error) error {
	var failure *TransportError
	if errors.As(err, &failure) {
		unsent := *failure
		unsent.Sent = false
		err = &unsent
	}
	return &TokenError{Err: err}
}

func (c *Client) apiError(op string, a *answer) error {
	e := keycloak.DecodeAPIError(a.status, a.body)
	e.Op = op
	e.RetryAfter = retryAfter(a.header, c.clock())
	// A proxy may echo the request.
	if strings.Contains(e.Message, c.clientSecret) {
		e.Message = strings.ReplaceAll(e.Message, c.clientSecret, "[redacted]")
	}
	return e
}

// get reads one JSON value.
func (c *Client) get(ctx context.Context, template string, params []string, query url.Values, into any) error {
	r := request{method: http.MethodGet, template: template, params: params, query: query, want: http.StatusOK}
	answer, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	return decode(r.op(), answer, into)
}

// decode reads an answer that is one JSON value, and neither null nor followed by
// anything else: null decodes into everything, and so would an emptied list.
func decode(op string, a *answer, into any) error {
	fail := func(err error) error { return &DecodeError{Op: op, Status: a.status, Err: err} }
	if trimmed := bytes.TrimSpace(a.body); len(trimmed) == 0 {
		return fail(io.ErrUnexpectedEOF)
	} else if bytes.Equal(trimmed, []byte("null")) {
		return fail(errors.New("null"))
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		return fail(err)
	}
	return nil
}

// expand fills a template's placeholders in order. A parameter that would make
// another URL of it is refused: with an empty id, DELETE users/{id} means something
// else.
func expand(template string, params []string) (string, error) {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(template, "{")
		b.WriteString(before)
		if !ok {
			return b.String(), nil
		}
		name, after, _ := strings.Cut(rest, "}")
		if len(params) == 0 {
			return "", fmt.Errorf("no value for %s", name)
		}
		value := params[0]
		if value == "" || value == "." || value == ".." {
			return "", fmt.Errorf("%s: %q cannot stand in a URL", name, value)
		}
		b.WriteString(url.PathEscape(value))
		template, params = after, params[1:]
	}
}

// silent is resty's logger.
type silent struct{}

func (silent) Errorf(string, ...any) {}
func (silent) Warnf(string, ...any)  {}
func (silent) Debugf(string, ...any) {}
