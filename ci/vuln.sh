#!/usr/bin/env bash
# Looks for known vulnerabilities in what the modules call. Needs the network, so
# it is no part of ci/test.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
for mod in $(git ls-files '*go.mod' | grep -v '^tools/'); do
	cd "$root/$(dirname "$mod")"
	echo "$(dirname "$mod")"
	go tool -modfile="$root/tools/go.mod" govulncheck ./...
done
