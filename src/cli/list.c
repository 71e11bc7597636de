/* SPDX-License-Identifier: MIT
** eguard ls: many records at once, and locks of keys that have none.
*/
#include "cli/cli.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <string.h>

typedef struct listing {
  const ec_options *options;
  const char *pattern; /* NULL: all */
  int64_t left;
  ec_json json;
  ec_table *table;
} listing;

static bool matches(const listing *l, eg_bytes key) {
  char text[EG_KEY_MAX + 1];
  if (l->pattern == NULL)
    return true;
  memcpy(text, key.data, key.len);
  text[key.len] = '\0';
  return fnmatch(l->pattern, text, 0) == 0;
}

/* What is to be said beside the times: who holds it, or why it failed. */
static const char *remark(const eg_record *record, char *text, size_t size) {
  if (record->locked)
    return ec_describe_owner(&record->owner, text, size);
  if (record->corrupt)
    return "cannot be read: look whether its work was done, then reset it";
  return eg_printable(record->error, text, size);
}

static void add_row(ec_table *table, const eg_record *r) {
  char text[400], time[EC_DURATION_TEXT];
  bool runs = r->locked && r->status == EG_RUN_RUNNING;
  const char *colour = ec_colour_of(r->status);
  int64_t since = runs ? r->start_us : r->only_locked ? r->owner.since_us : 0;
  int64_t at = since > 0 ? since : r->last_us;
  int64_t took = since > 0 ? eg_wall_us() - since : r->duration_us;
  ec_table_cell(table, eg_printable(r->key, text, sizeof text), "");
  snprintf(text, sizeof text, "%s%s",
           r->corrupt       ? "?"
           : r->only_locked ? "locked"
                            : eg_run_word(r->status),
           r->locked && !runs && !r->only_locked ? ", locked" : "");
  ec_table_cell(table, text, r->only_locked ? "" : colour);
  ec_table_cell(table, ec_format_when(at, time), "");
  ec_table_cell(table, ec_format_took(took, time), "");
  snprintf(text, sizeof text, "%" PRIu32, r->count);
  ec_table_cell(table, text, "");
  ec_table_cell(table, remark(r, text, sizeof text), "");
}

static bool list_one(void *ctx, const eg_record *record) {
  listing *l = ctx;
  if (!matches(l, record->key))
    return true;
  if (l->left-- <= 0)
    return false;
  if (l->options->json)
    ec_json_record(&l->json, record);
  else
    add_row(l->table, record);
  return l->left > 0;
}

static void begin(listing *l, const char *const *headings) {
  l->left = l->options->limit >= 0 ? l->options->limit : INT64_MAX;
  if (l->options->json) {
    ec_json_begin(&l->json, stdout);
    ec_json_open(&l->json, NULL, '[');
  } else {
    l->table = ec_table_new(headings);
  }
}

static int end(listing *l, const char *doing, eg_status status,
               const eg_error *error, bool sorted) {
  int exit_status = 0;
  if (l->options->json) {
    ec_json_close(&l->json, ']');
    exit_status = ec_json_end(&l->json);
  } else {
    ec_table_print(l->table, sorted);
  }
  return status == EG_OK ? exit_status : ec_failed(doing, status, error);
}

int ec_ls(ec_options *options) {
  static const char *const headings[] = {"KEY",  "STATUS", "SINCE", "TOOK",
                                         "RUNS", "REMARK", NULL};
  listing l = {.options = options};
  int exit_status;
  eg_error error = {0};
  eg_guard *guard = ec_open(options, &exit_status);
  if (guard == NULL)
    return exit_status;
  eg_bytes prefix = {"", 0};
  if (options->operand_count > 0) {
    l.pattern = options->operands[0];
    prefix = (eg_bytes){l.pattern, strcspn(l.pattern, "*?[\\")};
  }
  begin(&l, headings);
  eg_status status = l.left > 0
                         ? eg_scan_held(guard, prefix, list_one, &l, &error)
                         : EG_OK;
  exit_status = end(&l, "ls", status, &error, true);
  eg_close(guard);
  return exit_status;
}
