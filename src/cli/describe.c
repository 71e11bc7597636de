/* SPDX-License-Identifier: MIT
** Records and holders in words, and as JSON.
*/
#include "cli/cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *ec_describe_owner(const eg_owner *owner, char *text, size_t size) {
  char host[80], here[80] = "", about[2 * EG_OWNER_MAX];
  if (owner->pid <= 0) { /* flock(1), or one that is just letting go */
    snprintf(text, size, "somebody who left no name");
    return text;
  }
  eg_bytes own = {owner->text, strlen(owner->text)};
  eg_bytes name = {owner->host, strlen(owner->host)};
  eg_printable(name, host, sizeof host);
  eg_printable(own, about, sizeof about);
  gethostname(here, sizeof here - 1);
  bool elsewhere = strcmp(here, owner->host) != 0 && *owner->host != '\0';
  bool says = *about != '\0' && strcmp(about, "eguard") != 0;
  snprintf(text, size, "pid %" PRId64 "%s%s%s%s%s", owner->pid,
           elsewhere ? " on " : "", elsewhere ? host : "", says ? " (" : "",
           says ? about : "", says ? ")" : "");
  return text;
}

char *ec_describe_since(const eg_owner *owner, char *text, size_t size) {
  char since[EC_DURATION_TEXT], ago[EC_DURATION_TEXT];
  text[0] = '\0';
  if (owner->since_us > 0)
    snprintf(text, size, ", since %s (%s)",
             ec_format_local(owner->since_us, since),
             eg_format_duration(eg_wall_us() - owner->since_us, ago));
  return text;
}

char *ec_describe_breaker(const char *holder, char *text, size_t size) {
  char host[80] = "?";
  const char *user = getenv("SUDO_USER");
  gethostname(host, sizeof host - 1);
  if (user == NULL || *user == '\0')
    user = getenv("LOGNAME");
  snprintf(text, size,
           "broken by force by %s (uid %ld, pid %ld on %s), from %s",
           user != NULL && *user != '\0' ? user : "somebody", (long)getuid(),
           (long)getpid(), host, holder);
  return text;
}

enum { LAST = 3 };

typedef struct last {
  int64_t us[LAST];
  int n;
} last;

static bool note_past(void *ctx, const eg_past *past) {
  last *l = ctx;
  if (past->status == EG_OK)
    l->us[l->n++] = past->duration_us;
  return l->n < LAST;
}

char *ec_describe_last(eg_guard *guard, eg_bytes key, const eg_record *record,
                       char *text, size_t size) {
  last l = {.n = 0};
  size_t at = 0;
  char one[EC_DURATION_TEXT];
  text[0] = '\0';
  if (eg_history(guard, key, 20, note_past, &l, NULL) != EG_OK || l.n == 0) {
    l.n = record->duration_us > 0;
    l.us[0] = record->duration_us;
  }
  for (int i = 0; i < l.n && at < size; i++) {
    const char *before = i == 0 ? "" : i + 1 == l.n ? " and " : ", ";
    int n = snprintf(text + at, size - at, "%s%s", before,
                     eg_format_duration(l.us[i], one));
    at += n > 0 ? (size_t)n : 0;
  }
  return text;
}

char *ec_describe_times(const eg_times *times, char *text, size_t size) {
  char half[EC_DURATION_TEXT], most[EC_DURATION_TEXT], all[EC_DURATION_TEXT];
  snprintf(text, size, "half within %s, 95%% within %s, 99%% within %s",
           eg_format_duration(times->p50_us, half),
           eg_format_duration(times->p95_us, most),
           eg_format_duration(times->p99_us, all));
  return text;
}

static void json_owner(ec_json *json, const eg_owner *owner) {
  ec_json_open(json, "owner", '{');
  ec_json_text(json, "host", owner->host);
  ec_json_integer(json, "pid", owner->pid);
  ec_json_text(json, "text", owner->text);
  ec_json_time(json, "since", owner->since_us);
  ec_json_close(json, '}');
}

static void json_maybe(ec_json *json, const char *name, eg_bytes text) {
  if (text.len > 0)
    ec_json_bytes(json, name, text);
  else
    ec_json_null(json, name);
}

static void json_when(ec_json *json, const eg_record *record) {
  ec_json_time(json, "startTime", record->start_us);
  ec_json_time(json, "endTime", record->end_us);
  ec_json_time(json, "lastExecutionTime", record->last_us);
  ec_json_seconds(json, "duration", record->duration_us);
  ec_json_seconds(json, "cooldownLeft", record->cooldown_left_us);
  if (record->fresh_left_us < 0)
    ec_json_null(json, "freshLeft");
  else
    ec_json_seconds(json, "freshLeft", record->fresh_left_us);
}

void ec_json_times(ec_json *json, const char *name, const char *n,
                   const eg_times *times) {
  ec_json_open(json, name, '{');
  ec_json_unsigned(json, n, times->runs);
  ec_json_seconds(json, "total", times->total_us);
  ec_json_seconds(json, "p50", times->p50_us);
  ec_json_seconds(json, "p95", times->p95_us);
  ec_json_seconds(json, "p99", times->p99_us);
  ec_json_close(json, '}');
}

void ec_json_record(ec_json *json, const eg_record *record) {
  eg_times times;
  ec_json_open(json, NULL, '{');
  ec_json_bytes(json, "key", record->key);
  ec_json_text(json, "status", eg_run_word(record->status));
  ec_json_bool(json, "locked", record->locked);
  ec_json_bool(json, "onlyLocked", record->only_locked);
  ec_json_bool(json, "corrupt", record->corrupt);
  ec_json_bool(json, "crashed", record->crashed);
  ec_json_unsigned(json, "token", record->token);
  ec_json_unsigned(json, "executionCount", record->count);
  ec_json_unsigned(json, "failed", record->failed);
  ec_json_unsigned(json, "timedOut", record->timed_out);
  ec_json_unsigned(json, "lost", record->lost);
  ec_json_unsigned(json, "blocked", record->blocked);
  ec_json_unsigned(json, "cached", record->cached);
  json_when(json, record);
  eg_record_times(record, &times);
  ec_json_times(json, "runTime", "runs", &times);
  eg_record_waits(record, &times);
  ec_json_times(json, "waitTime", "waits", &times);
  json_maybe(json, "error", record->error);
  json_maybe(json, "trace", record->trace);
  if (record->kind == EG_KIND_VALUE && record->value.len > 0)
    ec_json_value(json, "result", record->value);
  else
    ec_json_null(json, "result");
  if (record->locked)
    json_owner(json, &record->owner);
  else
    ec_json_null(json, "owner");
  if (record->progress < 0)
    ec_json_null(json, "progress");
  else
    ec_json_real(json, "progress", record->progress);
  ec_json_close(json, '}');
}

void ec_json_past(ec_json *json, const eg_past *past) {
  ec_json_open(json, NULL, '{');
  ec_json_bytes(json, "key", past->key);
  ec_json_unsigned(json, "token", past->token);
  ec_json_text(json, "status", eg_run_word(eg_run_of(past->status)));
  ec_json_time(json, "startTime", past->start_us);
  ec_json_time(json, "endTime", past->start_us + past->duration_us);
  ec_json_seconds(json, "duration", past->duration_us);
  json_maybe(json, "owner", past->owner);
  if (past->exited)
    ec_json_integer(json, "exitStatus", past->exit_status);
  else
    ec_json_null(json, "exitStatus");
  json_maybe(json, "error", past->error);
  ec_json_close(json, '}');
}
