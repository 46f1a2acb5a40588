package adapter_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

// Every code that is declared is explained, and nothing else is.
func TestEveryCodeIsExplained(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	var declared []adapter.Code
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) == 0 {
				return true
			}
			if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Code" {
				literal, ok := spec.Values[0].(*ast.BasicLit)
				require.True(t, ok, spec.Names[0].Name)
				code, err := strconv.Unquote(literal.Value)
				require.NoError(t, err)
				declared = append(declared, adapter.Code(code))
			}
			return true
		})
	}
	require.ElementsMatch(t, adapter.Codes(), declared)
	for _, code := range declared {
		e := code.Explain()
		require.NotEmpty(t, e.Title, code)
		require.NotEmpty(t, e.Cause, code)
		require.NotEmpty(t, e.Next, code)
	}
	require.Equal(t, adapter.CodeInternal.Explain(), adapter.Code("of a newer program").Explain())
}
