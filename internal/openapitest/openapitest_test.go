package openapitest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

const document = `{"openapi":"3.1.1","info":{"title":"t","version":"1"},"paths":{
"/things/{id}":{"parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"string"}}],"get":{"responses":{
 "200":{"description":"Found.","content":{"application/json":{"schema":{"$ref":"#/components/schemas/Thing"}}},"headers":{"X-Id":{"required":true,"schema":{"type":"string"}}}},
 "404":{"description":"` + "`not_found`" + `","content":{"application/problem+json":{"schema":{"$ref":"#/components/schemas/Problem"}}}}}}},
"/things/all":{"get":{"responses":{"204":{"description":"Nothing."}}}}},
"components":{"schemas":{
 "Thing":{"type":"object","required":["name","note"],"properties":{"name":{"type":"string"},"note":{"type":["string","null"]}}},
 "Problem":{"type":"object","required":["code"],"properties":{"code":{"type":"string"}}}}}}`

func TestCheck(t *testing.T) {
	t.Parallel()
	d, err := Load([]byte(document))
	require.NoError(t, err)
	require.Equal(t, []string{"GET /things/all", "GET /things/{id}"}, d.Operations())
	const media, problem = "application/json", "application/problem+json"
	for name, c := range map[string]struct {
		method, path, media, body string
		status                    int
		wrong                     string
	}{
		"as it is told":               {path: "/things/1", media: media, body: `{"name":"a","note":null}`, status: 200},
		"an escaped slash":            {path: "/things/a%2Fb", media: media, body: `{"name":"a","note":"b"}`, status: 200},
		"a member too few":            {path: "/things/1", media: media, body: `{"name":"a"}`, status: 200, wrong: "note"},
		"a member too many":           {path: "/things/1", media: media, body: `{"name":"a","note":"b","more":1}`, status: 200, wrong: "more"},
		"a member of another type":    {path: "/things/1", media: media, body: `{"name":1,"note":"b"}`, status: 200, wrong: "name"},
		"a status that is not told":   {path: "/things/1", media: media, body: `{}`, status: 500, wrong: "status is not supported"},
		"another media type":          {path: "/things/1", media: "text/plain", body: `{}`, status: 200, wrong: "Content-Type"},
		"a problem":                   {path: "/things/1", media: problem, body: `{"code":"not_found"}`, status: 404},
		"a code that is not told":     {path: "/things/1", media: problem, body: `{"code":"gone"}`, status: 404, wrong: "with the code gone"},
		"the more exact path":         {path: "/things/all", status: 204},
		"no operation":                {method: "PUT", path: "/things/1", status: 200, wrong: "is not in the OpenAPI document"},
		"a method that is refused":    {method: "PUT", path: "/things/1", media: problem, body: `{"code":"no"}`, status: 405},
		"no path, and no good answer": {path: "/nothing", media: problem, body: `{}`, status: 404, wrong: "code"},
		"a page":                      {path: "/nothing", media: "text/html", body: `<p>`, status: 200},
		"HEAD":                        {method: "HEAD", path: "/things/1", status: 999},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			method := c.method
			if method == "" {
				method = http.MethodGet
			}
			header := http.Header{"X-Id": {"1"}}
			if c.media != "" {
				header.Set("Content-Type", c.media)
			}
			err := d.Check(httptest.NewRequestWithContext(t.Context(), method, c.path, nil), c.status, header, []byte(c.body))
			if c.wrong == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.wrong)
			}
		})
	}
	_, err = Load([]byte("{"))
	require.Error(t, err)
}

func TestTransport(t *testing.T) {
	t.Parallel()
	d, err := Load([]byte(document))
	require.NoError(t, err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"name":"a","note":null}`)
	}))
	t.Cleanup(server.Close)
	var wrong []error
	client := &http.Client{Transport: d.Transport(&http.Transport{}, func(err error) { wrong = append(wrong, err) })}
	t.Cleanup(client.CloseIdleConnections)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/things/1", nil)
	require.NoError(t, err)
	resp, err := client.Do(r)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, `{"name":"a","note":null}`, string(body), "the answer comes back whole")
	require.Len(t, wrong, 1)
	require.ErrorContains(t, wrong[0], "X-Id", "a header is missing")
}
