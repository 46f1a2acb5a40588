#!/usr/bin/env bash
# Everything that guards a change, in order of cost, stopping at the first failure. What `make test` and continuous
# integration run: the same on a bare machine as root and on a developer's.
#
# One PostgreSQL cluster and one Keycloak serve the whole run; suites that need them fail, rather than skip, without them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export HOME="${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}"

# Whatever is killed leaves its temporary files here, to be removed with the rest. Others may pass through: as root
# the PostgreSQL server runs under an account of its own.
work=$(mktemp -d)
mkdir "$work/tmp"
chmod 711 "$work" "$work/tmp"
export TMPDIR="$work/tmp"

servers=()
foreground=

# Jobs in groups of their own, so that a job can be stopped together with what it started.
set -m

stop_group() { kill -TERM -- "-$1" 2>/dev/null || true; }

cleanup() {
	local status=$?
	trap - EXIT
	trap '' INT TERM # a second Ctrl-C must not leave servers behind
	[ -z "$foreground" ] || stop_group "$foreground"
	local pid
	for pid in ${servers[@]+"${servers[@]}"}; do kill -TERM "$pid" 2>/dev/null || true; done
	wait
	rm -rf "$work"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# run waits in a way that a signal can interrupt: bash runs traps only between foreground commands.
run() {
	local status=0
	"$@" &
	foreground=$!
	wait "$foreground" || status=$?
	foreground=
	return "$status"
}

step_name=
step_since=0
step() {
	end_step
	step_name=$1
	step_since=$SECONDS
	printf '\n==> %s\n' "$step_name"
}
end_step() {
	[ -z "$step_name" ] || printf '    %s: %d s\n' "$step_name" $((SECONDS - step_since))
	step_name=
}

# serve FILE COMMAND… starts a server in the background and waits until it has written FILE.
serve() {
	local file=$1 pid
	shift
	"$@" &
	pid=$!
	servers+=("$pid")
	until [ -e "$file" ]; do
		if ! kill -0 "$pid" 2>/dev/null; then
			wait "$pid" || true
			echo "$1 ended before it was ready" >&2
			return 1
		fi
		sleep 0.2
	done
}

check_format() {
	local unformatted
	unformatted=$(gofmt -l .)
	[ -n "$unformatted" ] || return 0
	printf 'not formatted, try: make fmt\n%s\n' "$unformatted" >&2
	return 1
}

go_test() {
	# report prints the closing line and judges; go's own status matters where it ended before any test.
	go test -json -race -shuffle=on -timeout 20m ./... | "$work/report" -allow scripts/allowed-skips.txt
}

step prerequisites
run scripts/prereq.sh

step format
check_format

step compile
run go build -o "$work/" ./internal/suitetest/report
run go build -o "$work/postgres" ./internal/dbtest/cmd
run go build -o "$work/keycloak" ./internal/kcserver/cmd
run env CGO_ENABLED=0 go build ./...
run go test -race -run '^$' ./... >"$work/compile.log" || { cat "$work/compile.log"; exit 1; }

step 'vet and lint'
run scripts/lint.sh

# Without the race detector, which finds nothing where one goroutine runs at a time and lets it try fewer seeds.
step simulation
run go test -count=1 ./internal/simulation

if [ -z "${KEYTRAIL_TEST_POSTGRES_URL:-}" ]; then
	step 'start PostgreSQL'
	serve "$work/postgres.url" "$work/postgres" -url-file "$work/postgres.url"
	KEYTRAIL_TEST_POSTGRES_URL=$(cat "$work/postgres.url")
	export KEYTRAIL_TEST_POSTGRES_URL
fi

# Last, because it is the costliest and slows down what compiles beside it.
if [ -z "${KEYTRAIL_TEST_KEYCLOAK_URL:-}" ]; then
	step 'start Keycloak'
	serve "$work/keycloak.env" "$work/keycloak" -port 0 -test-env "$work/keycloak.env"
	set -a
	# shellcheck source=/dev/null
	. "$work/keycloak.env"
	set +a
fi

step test
export KEYTRAIL_TEST_REQUIRE=all
run go_test
