package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"
)

//go:embed assets
var assetFiles embed.FS

// assets are the embedded files under names that hold a digest of the content, so that
// browsers may keep them for ever.
type assets struct {
	files map[string]asset  // by hashed name
	names map[string]string // name → path with the hashed name
}

type asset struct {
	contentType string
	content     []byte
}

func loadAssets() (*assets, error) {
	a := &assets{files: map[string]asset{}, names: map[string]string{}}
	entries, err := fs.ReadDir(assetFiles, "assets")
	if err != nil {
		return nil, fmt.Errorf("the pages' assets: %w", err)
	}
	for _, e := range entries {
		content, err := fs.ReadFile(assetFiles, path.Join("assets", e.Name()))
		if err != nil {
			return nil, fmt.Errorf("the pages' assets: %w", err)
		}
		digest := sha256.Sum256(content)
		ext := path.Ext(e.Name())
		hashed := strings.TrimSuffix(e.Name(), ext) + "." + hex.EncodeToString(digest[:6]) + ext
		a.files[hashed] = asset{contentType: typeOf(ext), content: content}
		a.names[e.Name()] = "/assets/" + hashed
	}
	return a, nil
}

func typeOf(ext string) string {
	switch ext { // not left to the machine's tables
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return mime.TypeByExtension(ext)
}

// path is where the asset with this name is served.
func (a *assets) path(name string) (string, error) {
	p, ok := a.names[name]
	if !ok {
		return "", fmt.Errorf("there is no asset %s", name)
	}
	return p, nil
}

func (a *assets) serve(w http.ResponseWriter, r *http.Request) {
	file, ok := a.files[chi.URLParam(r, "file")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", file.contentType)
	h.Set("Content-Length", strconv.Itoa(len(file.content)))
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	// A client that has gone away needs no answer.
	_, _ = w.Write(file.content)
}
