/* SPDX-License-Identifier: MIT
** What there is to say about the records of a guard: how many of each status,
** the slowest keys, those that are asked for in vain, those that fail.
**
** One scan counts all records and keeps the largest of each kind; only those
** are looked up in the history.  Everything stands in one block of memory: the
** lists of keys first, then a room for each with its key and error.
*/
#include "executionguard_view.h"
#include "guard/guard.h"

#include <string.h>

enum { ERROR_KEPT = 160 };

typedef struct room {
  unsigned char key[EG_KEY_MAX];
  char error[ERROR_KEPT];
} room;

typedef uint64_t (*rank_fn)(const eg_summary_key *key);

/* The largest so far, in their order. */
typedef struct board {
  rank_fn rank;
  eg_summary_key *keys;
  room *rooms;
  size_t n, size;
} board;

enum { SLOWEST, BLOCKED, FAILING, BOARDS };

typedef struct taking {
  egi_gathering gathering;
  board boards[BOARDS];
} taking;

static uint64_t by_time(const eg_summary_key *key) {
  return key->times.p95_us > 0 ? (uint64_t)key->times.p95_us : 0;
}

static uint64_t by_blocked(const eg_summary_key *key) { return key->blocked; }

static uint64_t by_failures(const eg_summary_key *key) {
  return (uint64_t)key->failed + key->timed_out + key->lost;
}

/* ------------------------------------------------------------- boards -- */

static int compare(eg_bytes a, eg_bytes b) {
  int by = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
  return by != 0 ? by : a.len < b.len ? -1 : a.len > b.len;
}

/* Equal ones in the order of their keys: two summaries can be laid side by
** side. */
static bool stands_before(const board *b, const eg_summary_key *x,
                          const eg_summary_key *y) {
  uint64_t of_x = b->rank(x), of_y = b->rank(y);
  return of_x != of_y ? of_x > of_y : compare(x->key, y->key) < 0;
}

static eg_bytes keep(void *to, size_t max, eg_bytes from) {
  size_t n = from.len < max ? from.len : max;
  if (n > 0)
    memcpy(to, from.data, n);
  return (eg_bytes){to, n};
}

static room *room_of(const eg_summary_key *key) {
  return (room *)(void *)(uintptr_t)key->key.data;
}

static void offer(board *b, const eg_summary_key *key) {
  size_t at = b->n;
  if (b->size == 0 || b->rank(key) == 0)
    return;
  while (at > 0 && stands_before(b, key, &b->keys[at - 1]))
    at--;
  if (at == b->size)
    return;
  /* the room of the one that falls off, or the next */
  room *r = b->n < b->size ? &b->rooms[b->n] : room_of(&b->keys[b->n - 1]);
  b->n += b->n < b->size;
  memmove(&b->keys[at + 1], &b->keys[at], (b->n - 1 - at) * sizeof *b->keys);
  b->keys[at] = *key;
  b->keys[at].key = keep(r->key, sizeof r->key, key->key);
  b->keys[at].error = keep(r->error, sizeof r->error, key->error);
}

static bool take_one(void *ctx, const eg_record *record) {
  taking *t = ctx;
  egi_gather(&t->gathering, record);
  if (record->corrupt || record->only_locked)
    return true;
  eg_summary_key key = {.key = record->key,
                        .error = record->error,
                        .status = record->status,
                        .locked = record->locked,
                        .count = record->count,
                        .failed = record->failed,
                        .timed_out = record->timed_out,
                        .lost = record->lost,
                        .blocked = record->blocked};
  eg_record_times(record, &key.times);
  for (int i = 0; i < BOARDS; i++)
    offer(&t->boards[i], &key);
  return true;
}

/* ------------------------------------------------------------- history -- */

static bool take_past(void *ctx, const eg_past *past) {
  eg_summary_key *key = ctx;
  if (key->error.len == 0) /* a run after it went well */
    key->error = keep(room_of(key)->error, ERROR_KEPT, past->error);
  key->last[EG_SUMMARY_LAST - ++key->last_n] = (eg_beat){past->status,
                                                         past->duration_us};
  return key->last_n < EG_SUMMARY_LAST;
}

/* The newest comes first, and is to stand last. */
static eg_status look_back(eg_guard *guard, const board *b, bool *known,
                           eg_error *error) {
  for (size_t i = 0; i < b->n; i++) {
    eg_summary_key *key = &b->keys[i];
    eg_status status = eg_history(guard, key->key, EG_SUMMARY_LAST, take_past,
                                  key, error);
    *known = status != EG_UNSUPPORTED;
    if (!*known)
      return EG_OK;
    if (status != EG_OK)
      return status;
    memmove(key->last, key->last + EG_SUMMARY_LAST - key->last_n,
            key->last_n * sizeof *key->last);
  }
  return EG_OK;
}

/* -------------------------------------------------------------- taking -- */

static eg_status reserve(eg_guard *guard, size_t top, eg_memory *memory,
                         board *boards, eg_error *error) {
  size_t each = sizeof(eg_summary_key) + sizeof(room);
  const eg_env *env = &guard->env;
  if (top > EG_SUMMARY_MAX)
    return egi_fail(error, EG_INVALID,
                    "a summary has at most %d keys of a kind, not %zu",
                    EG_SUMMARY_MAX, top);
  if (top == 0)
    return EG_OK;
  memory->heap = egi_alloc(env, BOARDS * top * each);
  if (memory->heap == NULL)
    return egi_fail(error, EG_NOMEM, "not enough memory for a summary");
  memory->size = BOARDS * top * each;
  memory->alloc = env->alloc;
  memory->alloc_ud = env->alloc_ud;
  eg_summary_key *keys = memory->heap;
  room *rooms = (room *)(void *)(keys + BOARDS * top);
  for (size_t i = 0; i < BOARDS; i++) {
    boards[i].size = top;
    boards[i].keys = keys + i * top;
    boards[i].rooms = rooms + i * top;
  }
  return EG_OK;
}

eg_status eg_summary_take(eg_guard *guard, size_t top, eg_summary *summary,
                          eg_error *error) {
  memset(summary, 0, sizeof *summary);
  taking *t = egi_alloc(&guard->env, sizeof *t); /* a histogram is large */
  if (t == NULL)
    return egi_fail(error, EG_NOMEM, "not enough memory for a summary");
  memset(t, 0, sizeof *t);
  board *slowest = &t->boards[SLOWEST], *failing = &t->boards[FAILING];
  board *blocked = &t->boards[BLOCKED];
  slowest->rank = by_time;
  blocked->rank = by_blocked;
  failing->rank = by_failures;
  t->gathering.census = &summary->census;
  eg_status status = reserve(guard, top, &summary->memory, t->boards, error);
  if (status == EG_OK)
    status = eg_scan_held(guard, eg_str(""), take_one, t, error);
  egi_gathered(&t->gathering);
  summary->history = true;
  for (int i = 0; status == EG_OK && summary->history && i < BOARDS; i++)
    status = look_back(guard, &t->boards[i], &summary->history, error);
  summary->slowest = slowest->keys;
  summary->n_slowest = slowest->n;
  summary->blocked = blocked->keys;
  summary->n_blocked = blocked->n;
  summary->failing = failing->keys;
  summary->n_failing = failing->n;
  egi_free(&guard->env, t, sizeof *t);
  return status;
}

void eg_summary_free(eg_summary *summary) {
  egi_memory_free(&summary->memory);
  memset(summary, 0, sizeof *summary);
}
