#!/usr/bin/env bash
# go vet and golangci-lint over the given packages (default: all); --fix-format formats instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=v2.15.0
# Outside the tree, because it takes minutes to build; per Go version, because one built by an older Go refuses newer code.
bin="${XDG_CACHE_HOME:-$HOME/.cache}/keytrail/golangci-lint-$version-$(go env GOVERSION)"
if [ ! -x "$bin/golangci-lint" ]; then
	echo "building golangci-lint $version … (once; takes minutes)"
	GOBIN="$bin" go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
fi

if [ "${1:-}" = --fix-format ]; then
	exec "$bin/golangci-lint" fmt
fi
[ $# -gt 0 ] || set -- ./...
go vet "$@"
exec "$bin/golangci-lint" run --timeout 15m "$@"
