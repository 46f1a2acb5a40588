package httpapi

import (
	"net/http"

	"github.com/keytrail/keytrail/adapter/trace"
)

// explainTrace is GET /traces/{id}/explanation: the story in sentences, each with the
// event that it rests on.
func (s *Server) explainTrace(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	realm := q.text("realm")
	if err := q.err(); err != nil {
		return err
	}
	t, err := s.Traces.Find(r.Context(), param(r, "id"), realm)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, trace.Explain(t))
}
