#!/usr/bin/env bash
# Runs every check of the repository. Needs Go, gcc and make; the servers and
# programs that tests talk to are installed with apt-get when run as root.
#
#   bash ci/test.sh          every check
#   bash ci/test.sh -short   the same with the longest tests cut short
set -euo pipefail
cd "$(dirname "$0")/.."

short=()
[ "${1:-}" = "-short" ] && short=(-short)
step() { printf '\n== %s\n' "$*"; }

step "programs that tests need"
bash ci/install.sh

step "format"
unformatted=$(go tool -modfile=tools/go.mod gofumpt -l $(git ls-files '*.go'))
if [ -n "$unformatted" ]; then
	echo "not formatted with gofumpt:" "$unformatted"
	exit 1
fi

step "vet"
for mod in $(git ls-files '*go.mod' | grep -v '^tools/'); do
	(cd "$(dirname "$mod")" && go vet ./...)
done
for os in darwin windows; do
	echo "for $os"
	GOOS=$os go vet . ./internal/... ./storage/... ./acmetest/...
done

step "staticcheck"
for mod in $(git ls-files '*go.mod' | grep -v '^tools/'); do
	(cd "$(dirname "$mod")" && go tool -modfile="$OLDPWD/tools/go.mod" staticcheck ./...)
done

step "what a program links that imports only the root"
bash ci/deps.sh

step "quickstart"
go run ./examples/quickstart -once

if [ ${#short[@]} -eq 0 ]; then
	step "the fake year of 300 names, which is too long for the race detector"
	go test -run '^TestFakeYear$' -timeout 20m .
fi

step "tests"
for mod in $(git ls-files '*go.mod' | grep -v '^tools/' | sort -r); do
	(cd "$(dirname "$mod")" && go test -race -shuffle=on -timeout 20m "${short[@]}" ./...)
done
