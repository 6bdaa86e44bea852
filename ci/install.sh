#!/usr/bin/env bash
# Installs the programs that tests run, when one is missing and we are root. With
# CI=true it is a failure that one is still missing afterwards, and tests fail too
# in place of being skipped.
set -euo pipefail

# missing names the packages of the programs that are not there.
missing() {
	local program package
	for program in gcc openssl curl nginx named:bind9; do # without a colon it is its package's name too
		package=${program#*:}
		program=${program%:*}
		PATH=$PATH:/usr/sbin command -v "$program" >/dev/null 2>&1 || echo "$package"
	done
}

wanted=$(missing)
if [ -n "$wanted" ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
	export DEBIAN_FRONTEND=noninteractive
	# shellcheck disable=SC2086 # one word each
	(apt-get update -qq && apt-get install -y -qq --no-install-recommends $wanted) >/dev/null || echo "apt-get failed"
	wanted=$(missing)
fi
if [ -z "$wanted" ]; then
	echo "all there"
	exit 0
fi
echo "missing:" $wanted
if [ "${CI:-}" = true ]; then
	exit 1
fi
echo "the tests that need them are skipped"
