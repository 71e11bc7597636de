/* SPDX-License-Identifier: MIT
** Scan of the file store: first the keys whose record is in a slot, or that
** are held and have none, then the rows, page by page; no lock is held while
** one is visited.
**
** A record goes from its slot to a row and not back while it is the same run,
** so whoever was visited in a slot is noted, by its hash, and not visited as a
** row: a list that is as long as there are slots in use, whatever the number
** of records.
*/
#include "store/file.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE_KEYS = 64 };

typedef struct scan {
  egi_file *file;
  eg_bytes prefix;
  egi_visit_fn visit;
  void *ctx;
  bool stopped;
  egi_seen seen; /* a copy of what is visited */
  uint64_t *met; /* hash2 of those that were visited in their slots */
  size_t met_count, met_size;
  unsigned char last[EG_KEY_MAX];
  size_t last_len;
  size_t lens[PAGE_KEYS];
  unsigned char keys[PAGE_KEYS][EG_KEY_MAX];
} scan;

static eg_status no_memory(eg_error *error) {
  return egi_file_fail(error, EG_NOMEM, ENOMEM, "not enough memory to scan");
}

static bool has_prefix(const scan *s, eg_bytes key) {
  return key.len >= s->prefix.len &&
         (s->prefix.len == 0 ||
          memcmp(key.data, s->prefix.data, s->prefix.len) == 0);
}

/* ---------------------------------------------------------- the visits -- */

/* Looks at a key and visits it, if it has bytes or is held.  *in_slot: they
** are there. */
static eg_status visit_key(scan *s, eg_bytes key, bool *in_slot,
                           uint64_t *hash2, eg_error *error) {
  egi_file *file = s->file;
  egi_seen lent;
  egi_at at;
  bool there = false;
  egi_at_begin(file, key, &at);
  *hash2 = at.hash2;
  eg_status status = egi_shard_lock(file, at.shard, error);
  if (status != EG_OK)
    return status;
  status = egi_at_look(&at, EGI_WANT_BYTES | EGI_WANT_PROBE, error);
  if (status == EG_OK && (at.len > 0 || at.held)) {
    egi_seen_init(&lent);
    egi_at_see(&at, &lent);
    there = egi_seen_keep(&s->seen, &lent, &file->env);
    if (!there)
      status = no_memory(error);
  }
  *in_slot = at.in_slot;
  egi_shard_unlock(file, at.shard);
  egi_at_end(&at);
  if (there)
    s->stopped = !s->visit(s->ctx, key, &s->seen);
  return status;
}

/* ----------------------------------------------------------- the slots -- */

static bool note(scan *s, uint64_t hash2) {
  const eg_env *env = &s->file->env;
  if (s->met_count == s->met_size) {
    size_t size = s->met_size > 0 ? 2 * s->met_size : 64;
    uint64_t *met = env->alloc(env->alloc_ud, s->met,
                               s->met_size * sizeof *met, size * sizeof *met);
    if (met == NULL)
      return false;
    s->met = met;
    s->met_size = size;
  }
  s->met[s->met_count++] = hash2;
  return true;
}

/* The key of a slot that is in use and ours to visit; 0: it is not. */
static eg_status key_of_slot(const scan *s, unsigned shard, unsigned row,
                             unsigned char *key, size_t *len,
                             eg_error *error) {
  egi_file *file = s->file;
  const egi_slot *slot = egi_slot_at(&file->dir->side, shard, row);
  *len = 0;
  if (atomic_load(&file->dir->side.head->tags[shard][row]) == 0)
    return EG_OK;
  eg_status status = egi_shard_lock(file, shard, error);
  if (status != EG_OK)
    return status;
  if (atomic_load(&file->dir->side.head->tags[shard][row]) != 0 &&
      (slot->len > 0 ? slot->in_slot : slot->held) &&
      slot->name_len == file->name_len &&
      memcmp(slot->text, file->name, file->name_len) == 0 &&
      has_prefix(s, (eg_bytes){slot->text + slot->name_len, slot->key_len})) {
    memcpy(key, slot->text + slot->name_len, slot->key_len);
    *len = slot->key_len;
  }
  egi_shard_unlock(file, shard);
  return EG_OK;
}

static bool was_met(const scan *s, uint64_t hash2, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (s->met[i] == hash2)
      return true;
  return false;
}

static eg_status scan_slots(scan *s, eg_error *error) {
  const egi_side_head *head = s->file->dir->side.head;
  unsigned rows = atomic_load(&head->rows);
  eg_status status = EG_OK;
  for (unsigned i = 0; i < rows * EGI_SHARDS; i++) {
    unsigned char key[EG_KEY_MAX];
    size_t len;
    uint64_t hash[2];
    bool in_slot;
    status = key_of_slot(s, i / rows, i % rows, key, &len, error);
    if (status != EG_OK || s->stopped)
      break;
    if (len == 0)
      continue;
    egi_file_hash(head->seed, (eg_bytes){s->file->name, s->file->name_len},
                  (eg_bytes){key, len}, hash);
    if (was_met(s, hash[1], s->met_count)) /* it has another slot by now */
      continue;
    if (!note(s, hash[1]))
      return no_memory(error);
    status = visit_key(s, (eg_bytes){key, len}, &in_slot, &hash[1], error);
    if (status != EG_OK || s->stopped)
      break;
  }
  return status;
}

/* ------------------------------------------------------------ the rows -- */

static int by_number(const void *a, const void *b) {
  const uint64_t *x = a, *y = b;
  return *x < *y ? -1 : *x > *y;
}

/* The next page of keys.  *n: how many. */
static eg_status next_page(scan *s, size_t *n, eg_error *error) {
  egi_dir *dir = s->file->dir;
  int rc = SQLITE_DONE;
  *n = 0;
  pthread_mutex_lock(&dir->db_mutex);
  eg_status status = egi_db_confirm(dir, error);
  if (status == EG_OK) {
    sqlite3_stmt *q;
    rc = egi_db_statement(dir, EGI_SQL_PAGE, &q);
    sqlite3_bind_text(q, 1, s->file->name, (int)s->file->name_len,
                      SQLITE_STATIC);
    sqlite3_bind_blob(q, 2, s->last, (int)s->last_len, SQLITE_STATIC);
    while (q != NULL && (rc = sqlite3_step(q)) == SQLITE_ROW &&
           *n < PAGE_KEYS) {
      size_t len = (size_t)sqlite3_column_bytes(q, 0);
      if (len > EG_KEY_MAX)
        continue; /* not one of ours */
      memcpy(s->keys[*n], sqlite3_column_blob(q, 0), len);
      s->lens[(*n)++] = len;
    }
    sqlite3_reset(q);
    if (rc != SQLITE_DONE && rc != SQLITE_ROW)
      status = egi_db_fail(dir, rc, "reading", error);
  }
  pthread_mutex_unlock(&dir->db_mutex);
  return status;
}

/* Where the keys with the prefix begin: behind what is just before it. */
static void begin_at(scan *s) {
  s->last_len = 0;
  if (s->prefix.len == 0 || s->prefix.len > EG_KEY_MAX)
    return;
  memcpy(s->last, s->prefix.data, s->prefix.len);
  s->last_len = s->prefix.len;
}

static bool known(const scan *s, uint64_t hash2) {
  return s->met_count > 0 && bsearch(&hash2, s->met, s->met_count,
                                     sizeof *s->met, by_number) != NULL;
}

static eg_status scan_row(scan *s, eg_bytes key, eg_error *error) {
  uint64_t hash[2];
  bool in_slot;
  egi_file_hash(s->file->dir->side.head->seed,
                (eg_bytes){s->file->name, s->file->name_len}, key, hash);
  if (known(s, hash[1]))
    return EG_OK;
  return visit_key(s, key, &in_slot, &hash[1], error);
}

static eg_status scan_rows(scan *s, eg_error *error) {
  size_t n = 1;
  eg_status status = EG_OK;
  if (s->met_count > 0)
    qsort(s->met, s->met_count, sizeof *s->met, by_number);
  begin_at(s);
  if (s->last_len > 0) /* the prefix itself may be a key */
    status = scan_row(s, s->prefix, error);
  while (status == EG_OK && !s->stopped && n > 0) {
    status = next_page(s, &n, error);
    for (size_t i = 0; status == EG_OK && i < n && !s->stopped; i++) {
      eg_bytes key = {s->keys[i], s->lens[i]};
      if (!has_prefix(s, key))
        return EG_OK;
      status = scan_row(s, key, error);
    }
    if (n > 0) {
      memcpy(s->last, s->keys[n - 1], s->lens[n - 1]);
      s->last_len = s->lens[n - 1];
    }
  }
  return status;
}

eg_status egi_file_scan(egi_store *store, eg_bytes prefix, egi_visit_fn visit,
                        void *ctx, eg_error *error) {
  egi_file *file = (egi_file *)store;
  const eg_env *env = &file->env;
  eg_status status = egi_file_attach(file, error);
  if (status != EG_OK)
    return status;
  scan *s = env->alloc(env->alloc_ud, NULL, 0, sizeof *s);
  if (s == NULL)
    return no_memory(error);
  memset(s, 0, offsetof(scan, last));
  s->file = file;
  s->prefix = prefix;
  s->visit = visit;
  s->ctx = ctx;
  egi_seen_init(&s->seen);
  status = scan_slots(s, error);
  if (status == EG_OK && !s->stopped &&
      atomic_load(&file->dir->side.head->has_db) &&
      !file->dir->options.only_locks)
    status = scan_rows(s, error);
  egi_seen_free(&s->seen, env);
  if (s->met != NULL)
    env->alloc(env->alloc_ud, s->met, s->met_size * sizeof *s->met, 0);
  env->alloc(env->alloc_ud, s, sizeof *s, 0);
  return status;
}
