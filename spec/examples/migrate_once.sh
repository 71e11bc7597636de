#!/bin/sh
# A migration that is done once, by whichever of a machine's start scripts
# comes first: here three of them, side by side.  One that fails is tried again
# by the next.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export EXECUTIONGUARD_STORE="file:$place/store"

migrate() {
  # --wait: who comes second goes on only when the migration is through
  # shellcheck disable=SC2016 # the inner sh expands it
  eguard run --once --wait=1m migrate-42 -- \
    sh -c 'echo "by token $EXECUTIONGUARD_TOKEN" >>"$1"' migrate \
    "$place/migrations"
}

# the first attempt fails, and leaves it undone
if eguard run --once migrate-42 -- sh -c 'echo "no such table" >&2; exit 3'
then
  exit 1
fi
eguard show migrate-42 | grep 'error .*exit status 3'

migrate & first=$!
migrate & second=$!
migrate & third=$!
wait "$first"
wait "$second"
wait "$third"

cat "$place/migrations"
test "$(wc -l <"$place/migrations")" = 1
