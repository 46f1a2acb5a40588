#!/usr/bin/env bash
# What the checks need on this machine: `prereq.sh [go] [postgres] [keycloak] [browser]`, all of it by default.
# As root on Debian and its kin it installs what is missing; elsewhere it says what is missing and how to get it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing=()
apt_updated=

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_update() {
	[ -n "$apt_updated" ] || apt-get update -qq
	apt_updated=yes
}

apt_install() {
	apt_update
	echo "installing $*"
	DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends "$@" </dev/null >/dev/null
}

need_go() {
	# Inside the module, so that the go command fetches the toolchain that go.mod asks for where it may.
	local wanted
	wanted=$(awk '$1 == "go" {print $2}' go.mod)
	if ! command -v go >/dev/null; then
		missing+=("Go $wanted or newer: https://go.dev/dl/")
	elif ! go version >/dev/null; then
		missing+=("Go $wanted or newer (this one is older and may not fetch it): https://go.dev/dl/")
	elif [ "$(go env CGO_ENABLED)" != 1 ] || ! command -v "$(go env CC)" >/dev/null; then
		# The race detector links with the system's C compiler.
		if can_install; then apt_install gcc libc6-dev; else missing+=("a C compiler, for go test -race: apt-get install gcc libc6-dev"); fi
	fi
}

has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; }

need_postgres() {
	[ -z "${KEYTRAIL_TEST_POSTGRES_URL:-}" ] || return 0
	has_postgres && return 0
	if ! can_install; then
		missing+=("PostgreSQL server: apt-get install postgresql, or set KEYTRAIL_TEST_POSTGRES_URL to a superuser's URL")
		return 0
	fi
	# Debian starts a cluster at installation; the tests bring their own.
	if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
		mkdir -p /etc/postgresql-common
		echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
	fi
	apt_install postgresql
}

# java_major prints the newest Java of the places where kcserver looks too, 0 for none.
java_major() {
	local newest=0 program major
	for program in "${JAVA_HOME:-/none}/bin/java" "$(command -v java || true)" /usr/lib/jvm/*/bin/java /opt/*/bin/java; do
		[ -x "$program" ] || continue
		major=$("$program" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1) || true
		[ "${major:-0}" -le "$newest" ] || newest=$major
	done
	echo "$newest"
}

# newest_jdk names the newest headless JDK that apt offers: 21 or newer runs the newest Keycloak, 17 an older one.
newest_jdk() {
	local newest
	newest=$(apt-cache search --names-only '^openjdk-[0-9]+-jdk-headless$' | sed -n 's/^openjdk-\([0-9]*\)-jdk-headless.*/\1/p' | sort -n | tail -n 1)
	[ "${newest:-0}" -ge 17 ] && echo "openjdk-$newest-jdk-headless"
}

need_keycloak() {
	[ -z "${KEYTRAIL_TEST_KEYCLOAK_URL:-}" ] || return 0
	if [ "$(java_major)" -lt 17 ]; then
		local jdk=
		if can_install; then
			apt_update
			jdk=$(newest_jdk) || true
		fi
		if [ -n "$jdk" ]; then
			apt_install "$jdk"
		else
			missing+=("Java 21 or newer (17 tests an older Keycloak): apt-get install openjdk-21-jdk-headless")
		fi
	fi
	# Maven is needed once: then the built server is kept in the user's cache folder.
	if ! command -v mvn >/dev/null && ! compgen -G "${XDG_CACHE_HOME:-$HOME/.cache}/keytrail/keycloak-*-recipe-*" >/dev/null; then
		if can_install; then apt_install maven; else missing+=("Maven, to fetch Keycloak: apt-get install maven"); fi
	fi
}

# has_browser looks where the page's tests look.
has_browser() {
	local name
	for name in "${KEYTRAIL_TEST_BROWSER:-}" chromium chromium-browser google-chrome google-chrome-stable chrome; do
		[ -z "$name" ] || ! command -v "$name" >/dev/null || return 0
	done
	return 1
}

need_browser() {
	has_browser && return 0
	if can_install; then
		apt_install chromium
	else
		missing+=("Chromium: apt-get install chromium, or set KEYTRAIL_TEST_BROWSER to one's path")
	fi
}

[ $# -gt 0 ] || set -- go postgres keycloak browser
for need in "$@"; do
	"need_$need"
done
if [ ${#missing[@]} -gt 0 ]; then
	printf 'missing: %s\n' "${missing[@]}" >&2
	exit 1
fi
