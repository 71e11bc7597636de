/* SPDX-License-Identifier: MIT
** What is better done off the callers' path: batches of history, late holder
** lines, runs written down that last, and a look whether holds still stand.
*/
#include "store/file.h"

#include <string.h>

enum { LOOK_US = 100000, FLUSH_US = 1000000 };

typedef struct round {
  egi_file *file;
  egi_lost_fn lost;
  void *ctx;
  bool wants_db;
  int64_t next; /* in how many microseconds to come again; INT64_MAX */
} round_;

static void come_again(round_ *r, int64_t in_us) {
  if (in_us < r->next)
    r->next = in_us;
}

/* So that people see what runs.  To open the database takes long: who is
** stopped meanwhile (SIGSTOP) shall not have the shard's mutex. */
static void write_down(round_ *r, egi_at *at) {
  if (egi_db_is_open(at->dir))
    egi_at_evict(at, NULL);
  else
    r->wants_db = true;
}

/* A hold of this handle.  False: it is gone. */
static bool look_after(round_ *r, egi_entry *entry) {
  egi_at at;
  egi_at_begin(r->file, (eg_bytes){entry->key, entry->key_len}, &at);
  bool stands = egi_at_look(&at, 0, NULL) != EG_OK ||
                (at.held && at.ours && at.token == entry->token);
  if (stands && at.slot != NULL && egi_lock_replaced(&at, entry->fd)) {
    at.slot->held = 0; /* another file has the name: it excludes nobody */
    stands = false;
  }
  if (stands && at.slot != NULL) {
    int64_t age = egi_at_now(&at) - at.slot->since;
    if (age < EGI_LATE_US)
      come_again(r, EGI_LATE_US - age);
    else if (at.slot->line != 1)
      egi_lock_line(&at, entry->fd);
    if (age >= EGI_LATE_US && at.slot->in_slot && at.slot->len > 0)
      write_down(r, &at);
  }
  if (stands && at.lease != EGI_UNSET)
    come_again(r, at.lease - egi_at_now(&at) > 0 ? at.lease - egi_at_now(&at)
                                                 : 0);
  if (!stands) {
    bool next = at.slot != NULL && at.slot->held &&
                at.slot->token != entry->token; /* has the file that came */
    if (at.slot != NULL && !next)
      egi_lock_blank(at.slot, entry->fd);
    egi_lock_drop(&at, entry);
    egi_file_wake(&at);
  }
  egi_at_end(&at);
  return stands;
}

/* One hold of a shard that is gone is told, outside of the mutex.  True: look
** at the shard again. */
static bool one_gone(round_ *r, unsigned shard) {
  unsigned char key[EG_KEY_MAX];
  eg_bytes bytes = {key, 0};
  uint64_t token = 0;
  if (egi_shard_lock(r->file, shard, NULL) != EG_OK)
    return false;
  egi_entry *entry = r->file->dir->entries[shard];
  for (; entry != NULL; entry = entry->next) {
    if (!entry->held || entry->file != r->file)
      continue;
    memcpy(key, entry->key, entry->key_len);
    bytes.len = entry->key_len;
    token = entry->token;
    if (!look_after(r, entry))
      break; /* the entry may be gone too */
  }
  bool gone = entry != NULL;
  egi_shard_unlock(r->file, shard);
  if (gone && r->lost != NULL)
    r->lost(r->ctx, bytes, token);
  return gone;
}

static void look_at_all(round_ *r) {
  for (unsigned i = 0; i < EGI_SHARDS; i++)
    while (one_gone(r, i))
      continue;
}

static bool open_db(egi_dir *dir) {
  pthread_mutex_lock(&dir->db_mutex);
  eg_status status = egi_db_ready(dir, NULL);
  pthread_mutex_unlock(&dir->db_mutex);
  return status == EG_OK;
}

int64_t egi_file_tend(egi_store *store, int64_t now_us, egi_lost_fn lost,
                      void *ctx) {
  egi_file *file = (egi_file *)store;
  round_ r = {.file = file, .lost = lost, .ctx = ctx, .next = INT64_MAX};
  if (file->dir->stale)
    return EG_FOREVER;
  if (atomic_load(&file->holds) > 0)
    look_at_all(&r);
  if (r.wants_db && open_db(file->dir))
    look_at_all(&r);
  atomic_store(&file->dir->side.head->last_us,
               now_us + file->dir->side.head->base_us);
  if (egi_file_flush(file, NULL) != EG_OK)
    come_again(&r, FLUSH_US);
  if (atomic_load(&file->holds) > 0)
    come_again(&r, LOOK_US);
  return r.next == INT64_MAX ? EG_FOREVER : now_us + r.next;
}
