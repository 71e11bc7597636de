/* SPDX-License-Identifier: MIT
** eguard summary: all records at a glance.
*/
#include "cli/cli.h"

enum { TOP = 10 };

static void json_key(ec_json *json, const eg_summary_key *key) {
  ec_json_open(json, NULL, '{');
  ec_json_bytes(json, "key", key->key);
  ec_json_text(json, "status", eg_run_word(key->status));
  ec_json_unsigned(json, "executionCount", key->count);
  ec_json_unsigned(json, "failed", key->failed);
  ec_json_unsigned(json, "timedOut", key->timed_out);
  ec_json_unsigned(json, "lost", key->lost);
  ec_json_unsigned(json, "blocked", key->blocked);
  ec_json_times(json, "runTime", "runs", &key->times);
  ec_json_close(json, '}');
}

static void json_keys(ec_json *json, const char *name,
                      const eg_summary_key *keys, size_t n) {
  ec_json_open(json, name, '[');
  for (size_t i = 0; i < n; i++)
    json_key(json, &keys[i]);
  ec_json_close(json, ']');
}

static int print_json(const eg_summary *summary) {
  ec_json json;
  const eg_census *census = &summary->census;
  ec_json_begin(&json, stdout);
  ec_json_open(&json, NULL, '{');
  ec_json_unsigned(&json, "totalRecords", census->total);
  ec_json_open(&json, "byStatus", '{');
  for (int i = 0; i < EG_RUN_COUNT; i++)
    ec_json_unsigned(&json, eg_run_word((eg_run)i), census->by_run[i]);
  ec_json_close(&json, '}');
  ec_json_unsigned(&json, "corrupt", census->corrupt);
  ec_json_unsigned(&json, "held", census->held);
  ec_json_unsigned(&json, "onlyLocked", census->only_locked);
  ec_json_unsigned(&json, "executions", census->executions);
  ec_json_unsigned(&json, "failed", census->failed);
  ec_json_unsigned(&json, "timedOut", census->timed_out);
  ec_json_unsigned(&json, "lost", census->lost);
  ec_json_unsigned(&json, "blocked", census->blocked);
  ec_json_unsigned(&json, "cached", census->cached);
  ec_json_times(&json, "runTime", "runs", &census->times);
  ec_json_times(&json, "waitTime", "waits", &census->waits);
  json_keys(&json, "slowest", summary->slowest, summary->n_slowest);
  json_keys(&json, "mostBlocked", summary->blocked, summary->n_blocked);
  json_keys(&json, "failing", summary->failing, summary->n_failing);
  ec_json_close(&json, '}');
  return ec_json_end(&json);
}

static bool print_line(void *ctx, const char *line) {
  (void)ctx;
  return puts(line) >= 0;
}

int ec_summary(ec_options *options) {
  eg_summary summary;
  eg_view view;
  int exit_status;
  eg_error error = {0};
  size_t top = options->top >= 0 ? (size_t)options->top : TOP;
  if (top > EG_SUMMARY_MAX) {
    ec_error("--top=%zu: at most %d", top, EG_SUMMARY_MAX);
    return EC_USAGE;
  }
  eg_guard *guard = ec_open(options, &exit_status);
  if (guard == NULL)
    return exit_status;
  eg_status status = eg_summary_take(guard, top, &summary, &error);
  eg_close(guard);
  exit_status = 0;
  if (status != EG_OK) {
    exit_status = ec_failed("summary", status, &error);
  } else if (options->json) {
    exit_status = print_json(&summary);
  } else {
    ec_view(options, &view);
    eg_summary_draw(&summary, &view, NULL, NULL, 0, print_line, NULL);
  }
  eg_summary_free(&summary);
  return exit_status;
}
