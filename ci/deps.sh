#!/usr/bin/env bash
# A program that imports only the root package links no cloud SDK, no test CA,
# no zap and no cluster engine.
set -euo pipefail
cd "$(dirname "$0")/.."

deps=$(go list -deps .)
bad=$(grep -E 'pebble|aws|etcd|/testing$|^testing|goleak|miekg/dns|libdns|challtestsrv|go-jose|certmagic|zap' <<<"$deps" || true)
if [ -n "$bad" ]; then
	echo "the root package must not link:"
	echo "$bad"
	exit 1
fi
internal=$(go list -deps ./internal/... | grep -x 'github.com/certwright/certwright' || true)
if [ -n "$internal" ]; then
	echo "a package below internal/ imports the root"
	exit 1
fi
importers=$(go list -f '{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}' ./... | grep 'mholt/acmez' | cut -d' ' -f1 | sort -u)
if [ "$importers" != "github.com/certwright/certwright/internal/acmeflow" ]; then
	echo "only internal/acmeflow imports acmez, but these do: $importers"
	exit 1
fi
echo "$(wc -l <<<"$deps") packages, none of them foreign"
