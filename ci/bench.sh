#!/usr/bin/env bash
# Measures certwright beside CertMagic, autocert and what could be had at most,
# prints the tables with ratios and writes them to docs/performance.md. Takes
# about thirteen minutes; nothing else should run meanwhile.
#
#   bash ci/bench.sh                 everything
#   bash ci/bench.sh lookup start    only these, without writing the page
#   bash ci/bench.sh -quick          a try of each with little work, without writing the page
#
# BENCH_NOTE is a sentence for the page, such as what else was running.
set -euo pipefail
cd "$(dirname "$0")/.."

all=(lookup handshake start memory idle growth locks issue size)
quick=()
if [ "${1:-}" = "-quick" ]; then
	quick=(-quick)
	shift
fi
wanted=("${all[@]}")
[ $# -gt 0 ] && wanted=("$@")
page=()
[ $# -eq 0 ] && [ ${#quick[@]} -eq 0 ] && page=(-out ../docs/performance.md)

out=$PWD/ci/out/bench
rm -rf "$out"
mkdir -p "$out/bin" docs
revision=$(git describe --always --dirty 2>/dev/null || true)
cd benchmarks

measure() {
	case $1 in
	locks) # 1x: each benchmark has its own number of rounds
		if [ ${#quick[@]} -eq 0 ]; then
			go test -run '^$' -bench . -benchtime 1x ./locks
		fi
		;;
	size)
		go run ./size
		;;
	*)
		go build -o "$out/bin/$1" "./$1"
		"$out/bin/$1" "${quick[@]}"
		;;
	esac
}

failed=0
for name in "${wanted[@]}"; do
	if [ ! -f "$name/main.go" ] && [ "$name" != locks ]; then
		echo "== $name: there is no such program" >&2
		continue
	fi
	begin=$SECONDS
	if ! measure "$name" >"$out/$name.rows"; then
		echo "== $name failed; its rows are missing or not all there" >&2
		failed=1
	fi
	echo "== $name: $((SECONDS - begin)) s" >&2
done
echo "== all: $SECONDS s" >&2
go run ./report "${page[@]}" -revision "$revision" -note "${BENCH_NOTE:-}" "$out"/*.rows
exit $failed
