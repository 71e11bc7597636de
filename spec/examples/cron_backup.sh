#!/bin/sh
# A backup by cron that never runs twice at the same time.  The line of the
# crontab would be
#
#   */5 * * * *  eguard run -q --timeout=2h backup -- /usr/local/bin/backup
#
# and that of a systemd service (SuccessExitStatus=75: somebody else is at it)
#
#   ExecStart=eguard run --timeout=2h backup -- /usr/local/bin/backup
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export EXECUTIONGUARD_STORE="file:$place/store"

cat >"$place/backup" <<'SCRIPT'
#!/bin/sh
echo "backing up, token $EXECUTIONGUARD_TOKEN"
until test -e "$1/finish"; do sleep 0.02; done
SCRIPT
chmod +x "$place/backup"

# three o'clock
eguard run -q --timeout=2h backup -- "$place/backup" "$place" &
first=$!
until eguard show backup 2>/dev/null | grep -q '^held by'; do sleep 0.02; done

# five past three: still running, so nothing is started, and it says so
status=0
eguard run --timeout=2h backup -- "$place/backup" "$place" || status=$?
test "$status" = 75

touch "$place/finish"
wait "$first"

# cron starts commands with next to nothing in their environment
env -i HOME="$place" PATH="$PATH" \
  sh -c "eguard run -q --store='file:$place/store' --timeout=2h backup -- \
    '$place/backup' '$place'"

eguard history backup
test "$(eguard history backup | wc -l)" = 2
