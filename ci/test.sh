#!/usr/bin/env bash
# Runs every check of the repository. Needs Go; the programs that
# tests run are installed with apt-get when run as root.
#
#   bash ci/test.sh          every check
#   bash ci/test.sh -short   the same with the longest tests cut short
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin # nginx

short=()
[ "${1:-}" = "-short" ] && short=(-short)
began=$SECONDS
step() {
	printf '\n== %s (at %d s)\n' "$*" $((SECONDS - began))
}

step "programs that tests run"
bash ci/install.sh

step "format"
unformatted=$(go tool -modfile=tools/go.mod gofumpt -l $(git ls-files '*.go'))
if [ -n "$unformatted" ]; then
	echo "not formatted with gofumpt:" "$unformatted"
	exit 1
fi

step "lint"
bash ci/lint.sh
for os in darwin windows; do
	echo "go vet for $os" # but for what is the same everywhere and has a large SDK compiled
	GOOS=$os go vet $(go list ./... | grep -v /dnsprovider/route53)
	[ "$os" = darwin ] || GOOS=$os go vet -C acmetest ./...
done

step "what imports what"
bash ci/deps.sh

step "what nothing but tests calls"
bash ci/deadcode.sh

step "quickstart"
go run -C examples ./quickstart -once

if [ ${#short[@]} -eq 0 ]; then
	step "the fake year of 300 names, names that hang, every fault of a storage, cleaning of 25,000 and 20,000 strangers, which are too long for the race detector"
	out=$(go test -run '^(TestFakeYear|TestEveryCallOfAStorageMayFail|TestCleaningOfALargeStorage|TestNamesThatHangCostOthersNoTime|TestStrangersCostBoundedWork)$' -timeout 20m .)
	echo "$out"
	[[ $out != *"no tests to run"* ]]
fi

for mod in $(git ls-files '*go.mod' | grep -v '^tools/' | sort -r); do
	step "tests of $(dirname "$mod")"
	go test -C "$(dirname "$mod")" -race -shuffle=on -timeout 20m "${short[@]}" ./...
done
