#!/usr/bin/env bash
# golangci-lint with the linters of .golangci.yml, which go vet and staticcheck are
# among, in each module but internal/stepca: that is a few tests, which go test vets, and
# its CA would be compiled once more for them.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
failed=0
for mod in $(git ls-files '*go.mod' | grep -vE '^(tools|internal/stepca)/'); do
	cd "$root/$(dirname "$mod")"
	echo "$(dirname "$mod")"
	go tool -modfile="$root/tools/go.mod" golangci-lint run --allow-parallel-runners ./... || failed=1
done
exit $failed
