package httpapi

import "net/http"

// Check is one thing that must be fine before keytrail is ready.
type Check struct {
	// Name is "store", "schema", "projections" or the like.
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Detail says how it stands and what is wrong. Errors of the store name its host and
	// role, and those of projections events and users, so that only those who are trusted
	// read it; others read a constant text.
	Detail string `json:"detail"`
}

// What strangers read in the place of a check's detail.
const (
	detailFine    = "fine"
	detailNotFine = "not fine: the log says why, and so does this address with the bearer token or on the machine itself"
)

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

// ready is GET /readyz: 200 or 503, with the reasons for those who may know them.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) error {
	checks := s.Ready(r.Context())
	out := readiness{Status: "ready", Checks: make([]Check, len(checks))}
	status, trusted := http.StatusOK, s.seesInside(r)
	for i, check := range checks {
		if !check.OK {
			out.Status, status = "not_ready", http.StatusServiceUnavailable
			s.Logger.WarnContext(r.Context(), "not ready", "check", check.Name, "detail", check.Detail)
		}
		switch {
		case trusted:
		case check.OK:
			check.Detail = detailFine
		default:
			check.Detail = detailNotFine
		}
		out.Checks[i] = check
	}
	return answer(w, status, out)
}

// metrics is GET /metrics, for whoever is trusted or has the token: names of realms
// and commands are in it.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	if !s.seesInside(r) {
		_, err := s.caller(r)
		return err
	}
	s.Metrics.ServeHTTP(w, r)
	return nil
}

// seesInside reports whether a request may be told how keytrail is doing: it has the
// token or comes, whether there is one or not, from this machine, where monitoring runs.
func (s *Server) seesInside(r *http.Request) bool {
	return loopbackTrust(r) == "" || s.token.matches(r)
}
