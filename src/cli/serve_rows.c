/* SPDX-License-Identifier: MIT
** What the last scan saw of each key, as the page gets it: rendered once, when
** something of it is new, for all who look.
*/
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/serve.h"

const char ec_known_columns[] =
    "[\"key\",\"status\",\"locked\",\"startMs\",\"endMs\",\"durationMs\","
    "\"runs\",\"failed\",\"timedOut\",\"lost\",\"p50Ms\",\"p95Ms\","
    "\"waiters\",\"owner\",\"sinceMs\",\"error\",\"note\",\"progress\"]";

enum { ERROR_SHOWN = 160 };

void ec_text_key(ec_text *text, eg_bytes key) {
  const char *data = key.data;
  if (key.len > 0 && data[0] != '\0' && ec_is_utf8(key)) {
    ec_text_quote(text, key);
    return;
  }
  ec_text_say(text, "\"\\u0000");
  ec_text_percent(text, key);
  ec_text_add(text, "\"", 1);
}

/* ---------------------------------------------------------- rendering -- */

static void add_ms(ec_text *text, int64_t us) {
  ec_text_say(text, ",%" PRId64, us / 1000);
}

static void add_exact_ms(ec_text *text, int64_t us) {
  ec_text_say(text, ",%" PRId64 ".%03" PRId64, us / 1000, us % 1000);
}

/* Cut where a character ends. */
static eg_bytes shortened(eg_bytes text) {
  const unsigned char *at = text.data;
  if (text.len <= ERROR_SHOWN)
    return text;
  text.len = ERROR_SHOWN;
  while (text.len > 0 && (at[text.len] & 0xc0) == 0x80)
    text.len--;
  return text;
}

static void add_owner(ec_text *text, const eg_record *record) {
  char who[400];
  if (!record->locked) {
    ec_text_say(text, ",null,0");
    return;
  }
  ec_text_add(text, ",", 1);
  ec_text_quote(text,
                eg_str(ec_describe_owner(&record->owner, who, sizeof who)));
  add_ms(text, record->owner.since_us);
}

static void render(ec_text *text, const eg_record *r, uint32_t waiters) {
  eg_times times;
  eg_record_times(r, &times);
  ec_text_add(text, "[", 1);
  ec_text_key(text, r->key);
  ec_text_say(text, ",%d,%d", (int)r->status, r->locked);
  add_ms(text, r->start_us);
  add_ms(text, r->end_us > 0 ? r->end_us : r->last_us);
  add_exact_ms(text, r->duration_us);
  ec_text_say(text, ",%" PRIu32 ",%" PRIu32 ",%" PRIu32 ",%" PRIu32, r->count,
              r->failed, r->timed_out, r->lost);
  add_exact_ms(text, times.p50_us);
  add_exact_ms(text, times.p95_us);
  ec_text_say(text, ",%" PRIu32, waiters);
  add_owner(text, r);
  ec_text_add(text, ",", 1);
  if (r->error.len > 0)
    ec_text_quote(text, shortened(r->error));
  else
    ec_text_say(text, "null");
  ec_text_say(text, ",%s",
              r->corrupt       ? "\"corrupt\""
              : r->crashed     ? "\"owner died\""
              : r->only_locked ? "\"no record\""
                               : "null");
  if (r->progress < 0)
    ec_text_say(text, ",null]");
  else
    ec_text_say(text, ",%.3f]", r->progress);
}

/* -------------------------------------------------------------- index -- */

static uint64_t hash_of(eg_bytes key) {
  const unsigned char *at = key.data;
  uint64_t hash = UINT64_C(14695981039346656037);
  for (size_t i = 0; i < key.len; i++)
    hash = (hash ^ at[i]) * UINT64_C(1099511628211);
  return hash ^ hash >> 29;
}

static void put_in_index(ec_known *rows, uint32_t place) {
  size_t mask = rows->index_size - 1, at = rows->all[place]->hash & mask;
  while (rows->index[at] != 0)
    at = (at + 1) & mask;
  rows->index[at] = place + 1;
}

/* As many places as make it half full at most, and everybody in again. */
static bool rebuild_index(ec_known *rows) {
  size_t size = 64;
  while (size < rows->room * 2)
    size *= 2;
  if (size != rows->index_size) {
    uint32_t *index = malloc(size * sizeof *index);
    if (index == NULL)
      return false;
    free(rows->index);
    rows->index = index;
    rows->index_size = size;
  }
  memset(rows->index, 0, size * sizeof *rows->index);
  for (size_t i = 0; i < rows->count; i++)
    put_in_index(rows, (uint32_t)i);
  return true;
}

static bool make_room(ec_known *rows) {
  if (rows->count < rows->room)
    return true;
  size_t room = rows->room > 0 ? rows->room * 2 : 64;
  ec_known_row **all = realloc(rows->all, room * sizeof(ec_known_row *));
  if (all == NULL)
    return false;
  rows->all = all;
  size_t before = rows->room;
  rows->room = room;
  if (rebuild_index(rows))
    return true;
  rows->room = before;
  return false;
}

static ec_known_row *find(const ec_known *rows, eg_bytes key, uint64_t hash) {
  size_t mask = rows->index_size - 1;
  if (rows->index_size == 0)
    return NULL;
  for (size_t at = hash & mask; rows->index[at] != 0; at = (at + 1) & mask) {
    ec_known_row *row = rows->all[rows->index[at] - 1];
    if (row->hash == hash && row->key_len == key.len &&
        memcmp(row->key, key.data, key.len) == 0)
      return row;
  }
  return NULL;
}

static ec_known_row *add(ec_known *rows, eg_bytes key, uint64_t hash) {
  ec_known_row *row = make_room(rows) ? calloc(1, sizeof *row + key.len)
                                      : NULL;
  if (row == NULL)
    return NULL;
  row->hash = hash;
  row->key_len = (uint16_t)key.len;
  memcpy(row->key, key.data, key.len);
  rows->all[rows->count] = row;
  put_in_index(rows, (uint32_t)rows->count++);
  return row;
}

/* ------------------------------------------------------------- seeing -- */

/* A grant that ended by its lease, or with its owner, changes no version. */
static bool is_same(const ec_known_row *row, const eg_record *r,
                    uint32_t waiters) {
  return row->json != NULL && row->version == r->version &&
         row->status == r->status && row->locked == r->locked &&
         row->corrupt == r->corrupt && row->waiters == waiters &&
         row->progress == r->progress;
}

const ec_known_row *ec_known_see(ec_known *rows, const eg_record *record,
                                 uint32_t waiters, bool *ended) {
  uint64_t hash = hash_of(record->key);
  ec_known_row *row = find(rows, record->key, hash);
  *ended = false;
  if (row == NULL)
    row = add(rows, record->key, hash);
  if (row == NULL) {
    rows->broken = true;
    return NULL;
  }
  row->round = rows->round;
  if (is_same(row, record, waiters))
    return NULL;
  ec_text text = {0};
  render(&text, record, waiters);
  if (text.broken) { /* next time */
    ec_text_free(&text);
    rows->broken = true;
    return NULL;
  }
  free(row->json);
  row->json = text.at;
  row->json_len = text.len;
  *ended = row->last_us != record->last_us;
  row->version = record->version;
  row->last_us = record->last_us;
  row->waiters = waiters;
  row->progress = record->progress;
  row->status = (uint8_t)record->status;
  row->locked = record->locked;
  row->corrupt = record->corrupt;
  return row;
}

static void free_row(ec_known_row *row) {
  free(row->json);
  free(row);
}

size_t ec_known_sweep(ec_known *rows, ec_text *gone) {
  size_t kept = 0, dropped = 0;
  for (size_t i = 0; i < rows->count; i++) {
    ec_known_row *row = rows->all[i];
    if (row->round == rows->round) {
      rows->all[kept++] = row;
      continue;
    }
    if (dropped++ > 0)
      ec_text_add(gone, ",", 1);
    ec_text_key(gone, (eg_bytes){row->key, row->key_len});
    free_row(row);
  }
  rows->count = kept;
  if (dropped > 0)
    rebuild_index(rows); /* the size is the same: it cannot fail */
  return dropped;
}

void ec_known_free(ec_known *rows) {
  for (size_t i = 0; i < rows->count; i++)
    free_row(rows->all[i]);
  free(rows->all);
  free(rows->index);
  *rows = (ec_known){0};
}
