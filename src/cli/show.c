/* SPDX-License-Identifier: MIT
** eguard show, wait, version: one thing at a time.
*/
#include "cli/cli.h"

#include <inttypes.h>
#include <string.h>

static void line(const char *name, const char *value) {
  if (*value != '\0' && strcmp(value, "-") != 0)
    printf("%-11s %s\n", name, value);
}

static void time_line(const char *name, int64_t epoch_us) {
  char text[EC_DURATION_TEXT];
  line(name, ec_terminal() ? ec_format_local(epoch_us, text)
                           : ec_format_rfc3339(epoch_us, text));
}

static void left_line(const char *name, int64_t us) {
  char text[EC_DURATION_TEXT];
  if (us > 0)
    line(name, eg_format_duration(us, text));
}

static void show_result(const eg_record *record) {
  ec_json json;
  if (record->kind == EG_KIND_OPAQUE)
    line("result", "kept by the process that ran it");
  if (record->kind != EG_KIND_VALUE || record->value.len == 0)
    return;
  printf("%-11s ", "result");
  ec_json_begin(&json, stdout);
  ec_json_value(&json, NULL, record->value);
  ec_json_end(&json);
}

static void show_executions(const eg_record *r) {
  char text[200];
  eg_times times;
  int n = snprintf(text, sizeof text, "%" PRIu32, r->count);
  if (r->failed + r->timed_out + r->lost > 0)
    snprintf(text + n, sizeof text - (size_t)n,
             " (%" PRIu32 " failed, %" PRIu32 " timed out, %" PRIu32 " lost)",
             r->failed, r->timed_out, r->lost);
  line("executions", text);
  eg_record_times(r, &times);
  if (times.runs > 3) /* else "last took" says it all */
    line("all took", ec_describe_times(&times, text, sizeof text));
  if (r->blocked + r->cached > 0) {
    snprintf(text, sizeof text, "%" PRIu64 " blocked, %" PRIu64 " cached",
             r->blocked, r->cached);
    line("other calls", text);
  }
  eg_record_waits(r, &times);
  if (times.runs > 0) {
    n = snprintf(text, sizeof text, "%" PRIu64 " time%s, ", times.runs,
                 times.runs == 1 ? "" : "s");
    ec_describe_times(&times, text + n, sizeof text - (size_t)n);
    line("waited", text);
  }
}

static void show_text(eg_guard *guard, const eg_record *r) {
  char text[1200];
  const char *colour = ec_colour_of(r->status);
  line("key", eg_printable(r->key, text, sizeof text));
  printf("%-11s %s%s%s%s\n", "status", colour,
         r->only_locked ? "locked (there is no record)"
                        : eg_run_word(r->status),
         *colour != '\0' ? ec_colour_end() : "",
         r->crashed ? " (its owner died)" : "");
  if (r->locked) {
    line("held by", ec_describe_owner(&r->owner, text, sizeof text));
    time_line("since", r->owner.since_us);
  }
  if (r->progress >= 0) {
    snprintf(text, sizeof text, "%.1f%%", r->progress * 100);
    line("progress", text);
  }
  snprintf(text, sizeof text, "%" PRIu64, r->token);
  line("token", text);
  show_executions(r);
  time_line("start", r->start_us);
  time_line("end", r->end_us);
  left_line("took", r->duration_us);
  line("last took", ec_describe_last(guard, r->key, r, text, sizeof text));
  left_line("cooldown", r->cooldown_left_us);
  left_line("good for", r->fresh_left_us);
  show_result(r);
  line("error", eg_printable(r->error, text, sizeof text));
  line("trace", eg_printable(r->trace, text, sizeof text));
}

static int no_record(const ec_options *options, const char *key) {
  char name[200];
  if (options->json)
    puts("null");
  ec_note("there is no record of %s",
          eg_printable(eg_str(key), name, sizeof name));
  return eg_status_exit(EG_NOTFOUND);
}

int ec_show(ec_options *options) {
  int exit_status;
  eg_record record;
  eg_error error = {0};
  eg_guard *guard = ec_open(options, &exit_status);
  if (guard == NULL)
    return exit_status;
  eg_status status = eg_fetch(guard, eg_str(options->operands[0]), &record,
                              &error);
  if (EG_IS_FAILURE(status)) {
    exit_status = ec_failed("show", status, &error);
  } else if (status == EG_NOTFOUND && !record.locked) {
    exit_status = no_record(options, options->operands[0]);
  } else if (options->json) {
    ec_json json;
    ec_json_begin(&json, stdout);
    ec_json_record(&json, &record);
    exit_status = ec_json_end(&json);
  } else {
    show_text(guard, &record);
    exit_status = 0;
  }
  eg_record_free(&record);
  eg_close(guard);
  return exit_status;
}

/* --------------------------------------------------------------- wait -- */

/* Until nothing holds the key.  OK, TIMEOUT, or a failure. */
static eg_status await(eg_guard *guard, eg_bytes key, int64_t deadline_us,
                       eg_record *record, eg_error *error) {
  eg_watch *watch;
  eg_status status = eg_watch_open(guard, key, &watch, error);
  if (status != EG_OK)
    return status;
  for (;;) {
    status = eg_look(guard, key, record, error);
    if (EG_IS_FAILURE(status) || !record->locked)
      break;
    int64_t left_us = deadline_us == EG_FOREVER ? EG_FOREVER
                                                : deadline_us - eg_now_us();
    if (left_us <= 0) {
      status = EG_TIMEOUT;
      break;
    }
    eg_record_free(record);
    int64_t wait_ms = left_us == EG_FOREVER ? EG_FOREVER
                                            : (left_us + 999) / 1000;
    status = eg_watch_wait(watch, wait_ms, error);
    if (EG_IS_FAILURE(status))
      break;
  }
  eg_unwatch(watch);
  return EG_IS_FAILURE(status) || status == EG_TIMEOUT ? status : EG_OK;
}

int ec_wait(ec_options *options) {
  int exit_status;
  char who[400], name[200];
  eg_record record = {0};
  eg_error error = {0};
  eg_guard *guard = ec_open(options, &exit_status);
  if (guard == NULL)
    return exit_status;
  int64_t deadline_us = EG_FOREVER;
  if (options->timeout_ms >= 0 && options->timeout_ms != EG_FOREVER)
    deadline_us = eg_now_us() + options->timeout_ms * 1000;
  eg_bytes key = eg_str(options->operands[0]);
  eg_status status = await(guard, key, deadline_us, &record, &error);
  exit_status = 0;
  if (EG_IS_FAILURE(status))
    exit_status = ec_failed("wait", status, &error);
  else if (status == EG_TIMEOUT)
    exit_status = EC_TIMEDOUT;
  if (status == EG_TIMEOUT)
    ec_note("%s is still held by %s", eg_printable(key, name, sizeof name),
            ec_describe_owner(&record.owner, who, sizeof who));
  if (options->json && !EG_IS_FAILURE(status)) {
    ec_json json;
    ec_json_begin(&json, stdout);
    ec_json_record(&json, &record);
    ec_json_end(&json);
  }
  eg_record_free(&record);
  eg_close(guard);
  return exit_status;
}

/* ------------------------------------------------------------ version -- */

int ec_version(ec_options *options) {
  if (!options->json) {
    printf("eguard %s; stores:", EG_VERSION);
    for (const char *const *s = eg_schemes(); *s != NULL; s++)
      printf(" %s", *s);
    putchar('\n');
    return 0;
  }
  ec_json json;
  ec_json_begin(&json, stdout);
  ec_json_open(&json, NULL, '{');
  ec_json_text(&json, "version", EG_VERSION);
  ec_json_open(&json, "stores", '[');
  for (const char *const *s = eg_schemes(); *s != NULL; s++)
    ec_json_text(&json, NULL, *s);
  ec_json_close(&json, ']');
  ec_json_close(&json, '}');
  return ec_json_end(&json);
}
