package httpapi

import (
	_ "embed"
	"net/http"
	"strconv"
)

// openapiDocument is the OpenAPI description of this package's routes. The tests make
// it from the response types and the list of operations, and hold every answer to it.
//
//go:embed openapi.json
var openapiDocument []byte

// showOpenAPI is GET /openapi.json.
func (s *Server) showOpenAPI(w http.ResponseWriter, r *http.Request) error {
	if err := queryOf(r).err(); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(openapiDocument)))
	w.WriteHeader(http.StatusOK)
	// A client that has gone away needs no answer.
	_, _ = w.Write(openapiDocument)
	return nil
}
