package httpapi

import "net/http"

// Check is one thing that must be fine before keytrail is ready.
type Check struct {
	// Name is "store", "schema", "projections" or the like.
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Detail says what is wrong, and what to do. It must not hold a secret: anybody
	// may read it.
	Detail string `json:"detail"`
}

type readiness struct {
	Status string  `json:"status"`
	Checks []Check `json:"checks"`
}

// health is the answer of a process that runs.
type health struct {
	Status string `json:"status"`
}

// healthy is GET /healthz: the process runs and answers.
func (s *Server) healthy(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, health{Status: "ok"})
}

// ready is GET /readyz: 200 or 503, with the reasons.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) error {
	out := readiness{Status: "ready", Checks: s.Ready(r.Context())}
	if out.Checks == nil {
		out.Checks = []Check{}
	}
	status := http.StatusOK
	for _, check := range out.Checks {
		if !check.OK {
			out.Status, status = "not_ready", http.StatusServiceUnavailable
		}
	}
	return answer(w, status, out)
}

// metrics is GET /metrics, for whoever is trusted or has the token: names of realms
// and commands are in it.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	if loopbackTrust(r) != "" && !s.token.matches(r) {
		_, err := s.caller(r)
		return err
	}
	s.Metrics.ServeHTTP(w, r)
	return nil
}
