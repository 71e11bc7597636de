/* SPDX-License-Identifier: MIT
** The runs that ended within the last hour, for the time line: the store's
** history, or where it keeps none what the rows told.
*/
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/serve.h"

#define HOUR_US INT64_C(3600000000)

/* A run that ended is written to the history a moment later, and those of
** several processes not in the order of their ends. */
#define SLACK_US INT64_C(60000000)

static ec_ended *place(const ec_runs *runs, size_t i) {
  return &runs->ring[(runs->first + i) % EC_RUNS];
}

static void drop_oldest(ec_runs *runs) {
  free(place(runs, 0)->json);
  runs->first = (runs->first + 1) % EC_RUNS;
  runs->count--;
}

static void render(ec_text *text, const eg_past *past) {
  ec_text_add(text, "[", 1);
  ec_text_key(text, past->key);
  ec_text_say(text, ",%" PRId64 ",%" PRId64 ".%03" PRId64 ",%d]",
              past->start_us / 1000, past->duration_us / 1000,
              past->duration_us % 1000, (int)eg_run_of(past->status));
}

void ec_runs_add(ec_runs *runs, const eg_past *past, ec_text *fresh) {
  ec_text text = {0};
  if (runs->ring == NULL)
    runs->ring = calloc(EC_RUNS, sizeof *runs->ring);
  render(&text, past);
  if (runs->ring == NULL || text.broken) {
    ec_text_free(&text);
    return;
  }
  if (runs->count == EC_RUNS) {
    drop_oldest(runs);
    runs->cut = true;
  }
  if (fresh->len > 0)
    ec_text_add(fresh, ",", 1);
  ec_text_add(fresh, text.at, text.len);
  *place(runs, runs->count++) = (ec_ended){past->start_us + past->duration_us,
                                           text.at, text.len};
}

/* ------------------------------------------------------------- asking -- */

typedef struct asking {
  ec_runs *runs;
  int64_t from_us;
  uint64_t first; /* what it began with this time */
  eg_past *found; /* newest first */
  size_t count, room, old;
  bool broken;
} asking;

static uint64_t identity(const eg_past *past) {
  const unsigned char *at = past->key.data;
  uint64_t hash = past->token * UINT64_C(0x9e3779b97f4a7c15) + 1;
  hash ^= (uint64_t)past->start_us;
  for (size_t i = 0; i < past->key.len; i++)
    hash = (hash ^ at[i]) * UINT64_C(1099511628211);
  return hash != 0 ? hash : 1;
}

static bool keep(asking *a, const eg_past *past) {
  if (a->count == a->room) {
    size_t room = a->room > 0 ? a->room * 2 : 64;
    eg_past *found = realloc(a->found, room * sizeof *found);
    if (found == NULL)
      return false;
    a->found = found;
    a->room = room;
  }
  unsigned char *key = malloc(past->key.len);
  if (key == NULL)
    return false;
  memcpy(key, past->key.data, past->key.len);
  a->found[a->count] = *past;
  a->found[a->count++].key.data = key;
  return true;
}

static bool visit(void *ctx, const eg_past *past) {
  enum { ENOUGH_OLD = 100 };
  asking *a = ctx;
  uint64_t id = identity(past);
  if (id == a->runs->newest)
    return false;
  if (a->first == 0)
    a->first = id;
  if (past->start_us + past->duration_us < a->from_us)
    return ++a->old < ENOUGH_OLD;
  if (a->count == EC_RUNS) {
    a->runs->cut = true;
    return false;
  }
  a->broken = !keep(a, past);
  return !a->broken;
}

bool ec_runs_ask(ec_runs *runs, eg_guard *guard, ec_text *fresh) {
  static const eg_bytes all = {"", 0};
  asking a = {.runs = runs, .from_us = eg_wall_us() - HOUR_US - SLACK_US};
  eg_status status = eg_history(guard, all, EC_RUNS + 1000, visit, &a, NULL);
  if (status == EG_UNSUPPORTED)
    runs->unkept = true;
  for (size_t i = a.count; i-- > 0;) { /* oldest first */
    if (status == EG_OK && !a.broken)
      ec_runs_add(runs, &a.found[i], fresh);
    free((void *)a.found[i].key.data);
  }
  free(a.found);
  if (status == EG_OK && !a.broken && a.first != 0)
    runs->newest = a.first;
  return status == EG_OK && a.count > 0;
}

/* -------------------------------------------------------------- rest -- */

void ec_runs_forget(ec_runs *runs, int64_t before_us) {
  while (runs->count > 0 && place(runs, 0)->end_us < before_us)
    drop_oldest(runs);
}

void ec_runs_print(const ec_runs *runs, ec_text *text) {
  ec_text_say(text,
              "{\"columns\":[\"key\",\"startMs\",\"durationMs\",\"status\"],"
              "\"complete\":%s,\"remembered\":%s,\"runs\":[",
              runs->cut ? "false" : "true", runs->unkept ? "false" : "true");
  for (size_t i = 0; i < runs->count; i++) {
    const ec_ended *run = place(runs, i);
    if (i > 0)
      ec_text_add(text, ",", 1);
    ec_text_add(text, run->json, run->json_len);
  }
  ec_text_add(text, "]", 1);
}

void ec_runs_free(ec_runs *runs) {
  while (runs->count > 0)
    drop_oldest(runs);
  free(runs->ring);
  *runs = (ec_runs){0};
}
