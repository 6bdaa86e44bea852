#!/usr/bin/env bash
# Nothing below internal/ is there that only tests call: a program that uses every
# exported name reaches all of it. internal/fakeca, internal/fakedns and internal/bind are for tests.
set -euo pipefail
cd "$(dirname "$0")/.."

module=github.com/certwright/certwright
packages=("$module" "$module"/{storage,storage/plugin,adopt,zaplog,dnsprovider,dnsprovider/{cloudflare,route53,rfc2136}})
program=ci/out/everything
mkdir -p "$program"
trap 'rm -rf "$program"' EXIT

# Whoever takes a type or a function as any may call it, and its methods, through
# reflection; deadcode counts that.
{
	echo 'package main'
	for p in "${packages[@]}"; do echo "import \"$p\""; done
	echo 'var everything = []any{'
	for p in "${packages[@]}"; do
		go doc -short "$p" | sed -nE "s/^ *func ([A-Z]\w*)\(.*/${p##*/}.\1,/p; s/^ *func ([A-Z]\w*)\[.*/${p##*/}.\1[any],/p; s/^type ([A-Z]\w*) .*/(*${p##*/}.\1)(nil),/p"
	done
	echo '}'
	echo 'func main() { _ = everything }'
} >"$program/main.go"
[ "$(grep -cE '^(\(\*)?[a-z]+\.[A-Z]' "$program/main.go")" -gt 60 ] || { echo "go doc does not name what is exported"; exit 1; }

failed=0
unused=$(comm -23 <(go list ./internal/... | grep -vE '/(bind|fakeca|fakedns)$' | sort) <(go list -deps "./$program" | sort))
if [ -n "$unused" ]; then
	echo "packages that only tests import:"
	echo "$unused"
	failed=1
fi
# durable.Watched is how the tests of crashes see each system call.
dead=$(go tool -modfile=tools/go.mod deadcode -filter "^$module/internal/" "./$program" | grep -v 'internal/durable/.* Watched$' || true)
if [ -n "$dead" ]; then
	echo "$dead"
	failed=1
fi
exit $failed
