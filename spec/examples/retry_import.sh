#!/bin/sh
# An import that is tried three times, each attempt at most a minute, and no
# more than once an hour.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export EXECUTIONGUARD_STORE="file:$place/store"

cat >"$place/import" <<'SCRIPT'
echo attempt >>"$1"
test "$(wc -l <"$1")" -ge 3 || { echo "the server is busy" >&2; exit 1; }
SCRIPT

import() {
  eguard run --retry=2 --delay=10ms --backoff --timeout=1m --cooldown=1h \
    --owner="$1" import -- sh "$place/import" "$place/attempts"
}

import "the first one"
test "$(wc -l <"$place/attempts")" = 3

status=0
import "the next one" || status=$?
test "$status" = 75

# one grant, one execution, however many attempts
eguard show import | grep 'executions *1$'
