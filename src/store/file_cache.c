/* SPDX-License-Identifier: MIT
** Answers without asking the database: rows that were read, as long as nothing
** in it has changed.
**
** The header of the wal-index moves with every commit of any process, a
** foreign program too, and not otherwise.  It says that of the whole database,
** not of a key: one busy key costs everybody a SELECT.
**
** A key that has a slot is never answered from here.  The tags are looked at
** before the header: a grant leaves its tag before its end is in the row, or
** the row moves the header.
*/
#include "store/file.h"

#include <stdlib.h>
#include <string.h>

/* Is the header what it was?  If not, all that is cached is old.  Under the
** mutex. */
static bool still(egi_dir *dir) {
  uint64_t now[6];
  if (!egi_db_read_header(dir, now))
    return false;
  if (memcmp(now, dir->mark, sizeof now) == 0)
    return true;
  memcpy(dir->mark, now, sizeof now);
  dir->generation++;
  return false;
}

static egi_cached *place(egi_dir *dir, uint64_t hash2) {
  return &dir->cache[hash2 % EGI_CACHE_ROWS];
}

void egi_cache_put(egi_at *at) {
  egi_dir *dir = at->dir;
  bool plain = at->len <= EGI_CACHE_BYTES && at->not_before == EGI_UNSET &&
               at->fresh == EGI_UNSET && at->life == EGI_UNSET;
  if (!plain)
    return;
  pthread_mutex_lock(&dir->cache_mutex);
  if (dir->cache == NULL)
    dir->cache = calloc(EGI_CACHE_ROWS, sizeof *dir->cache);
  still(dir);
  if (dir->cache != NULL &&
      memcmp(dir->mark, at->mark, sizeof at->mark) == 0) {
    egi_cached *row = place(dir, at->hash2);
    row->hash = at->hash;
    row->hash2 = at->hash2;
    row->generation = dir->generation;
    row->token = at->token;
    row->len = (uint32_t)at->len;
    if (at->len > 0)
      memcpy(row->bytes, at->bytes.data, at->len);
  }
  pthread_mutex_unlock(&dir->cache_mutex);
}

bool egi_file_peek(egi_store *store, eg_bytes key, unsigned char *room,
                   eg_bytes *bytes, uint64_t *token, uint64_t *tag) {
  egi_file *file = (egi_file *)store;
  egi_dir *dir = file->dir;
  uint64_t hash[2];
  bool found = false;
  if (dir->stale || dir->cache == NULL)
    return false;
  egi_file_hash(dir->side.head->seed, (eg_bytes){file->name, file->name_len},
                key, hash);
  *tag = hash[1];
  if (!egi_slot_none(&dir->side, (unsigned)(hash[0] >> 58), hash[0]))
    return false;
  pthread_mutex_lock(&dir->cache_mutex);
  if (still(dir) && dir->cache != NULL) {
    const egi_cached *row = place(dir, hash[1]);
    found = row->generation == dir->generation && row->hash == hash[0] &&
            row->hash2 == hash[1];
    if (found) {
      memcpy(room, row->bytes, row->len);
      *bytes = (eg_bytes){room, row->len};
      *token = row->token;
    }
  }
  pthread_mutex_unlock(&dir->cache_mutex);
  return found;
}

bool egi_file_unchanged(egi_store *store, eg_bytes key,
                        const uint64_t mark[6]) {
  egi_file *file = (egi_file *)store;
  egi_dir *dir = file->dir;
  uint64_t hash[2], now[6];
  if (dir->stale || mark[0] == 0)
    return false;
  egi_file_hash(dir->side.head->seed, (eg_bytes){file->name, file->name_len},
                key, hash);
  if (!egi_slot_none(&dir->side, (unsigned)(hash[0] >> 58), hash[0]))
    return false;
  pthread_mutex_lock(&dir->cache_mutex);
  bool same = egi_db_read_header(dir, now) &&
              memcmp(now, mark, sizeof now) == 0;
  pthread_mutex_unlock(&dir->cache_mutex);
  return same;
}
