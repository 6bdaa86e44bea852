#!/usr/bin/env bash
# The linters that take long or need the network: golangci-lint and govulncheck.
# Not part of ci/test.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
go tool -modfile=tools/go.mod golangci-lint run ./...
go tool -modfile=tools/go.mod govulncheck ./...
