#!/bin/sh
# A slow command whose output is good for ten minutes: both streams, in their
# order, and its exit status.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export EXECUTIONGUARD_STORE="file:$place/store"

weather() {
  # --wait: who asks while it is asked for gets that answer, too
  # shellcheck disable=SC2016 # the inner sh expands it
  eguard run --cache=10m --wait weather -- \
    sh -c 'echo asked >>"$1"; echo "rain, 12 degrees"' weather "$place/asked"
}

weather
weather
weather & weather & weather &
wait
test "$(wc -l <"$place/asked")" = 1

eguard reset weather
weather
test "$(wc -l <"$place/asked")" = 2
