#!/usr/bin/env bash
# What imports what: a program that imports only the root links no cloud SDK, test
# CA, zap or cluster engine, and no reader of package adopt that it does not name;
# rooms do not import the root; one package imports acmez.
set -euo pipefail
cd "$(dirname "$0")/.."

module=github.com/certwright/certwright
failed=0
fail() {
	printf '%s\n' "$@"
	failed=1
}

deps=$(go list -deps .)
foreign=$(go list -deps -f '{{if not .Standard}}{{.ImportPath}}{{end}}' . |
	grep -vE "^($module(/(adopt|storage|internal/.*))?|github.com/mholt/acmez/v3(/.*)?|golang.org/x/(crypto|net|sync|sys|text)/.*)$" || true)
foreign+=$(grep -E '^testing|/fake(ca|dns)$' <<<"$deps" || true)
[ -z "$foreign" ] || fail "the root package must not link:" "$foreign"

rooms=$(go list -deps ./internal/... ./storage/... ./adopt/...)
if grep -qx "$module" <<<"$rooms"; then
	fail "a package below internal/, storage/ or adopt/ imports the root"
fi

imports=$(go list -f '{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}' ./...)
importers=$(grep 'mholt/acmez' <<<"$imports" | cut -d' ' -f1 | sort -u)
[ "$importers" = "$module/internal/acmeflow" ] || fail "only internal/acmeflow imports acmez, but these do:" "$importers"

importers=$(grep -E ' github.com/(libdns|miekg|aws)/' <<<"$imports" | cut -d' ' -f1 | sort -u |
	grep -vE "^$module/(dnsprovider(/.*)?|internal/(dnsprobe|fakedns|bind))$" || true)
[ -z "$importers" ] || fail "only dnsprovider, what is below it and its rooms import libdns, miekg/dns and AWS, but these do too:" "$importers"

program=$(mktemp)
trap 'rm -f "$program"' EXIT
go build -C benchmarks -o "$program" ./size/certwright
symbols=$(go tool nm "$program")
grep -q "certwright/adopt\.Pair\.Format" <<<"$symbols" || fail "the symbols do not name what is linked for sure"
readers=$(grep -oE 'certwright/adopt\.\(\*(source|files|certMagic|autocert|lego|certbot)\)\S*' <<<"$symbols" || true)
[ -z "$readers" ] || fail "a program that names no source of package adopt links:" "$readers"

[ $failed -eq 0 ] && echo "$(wc -l <<<"$deps") packages, none of them foreign"
exit $failed
