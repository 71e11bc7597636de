/* SPDX-License-Identifier: MIT
** Answers without asking the database: rows that were read, as long as nothing
** in it has changed.
**
** The header of the wal-index moves with every commit of any process, a
** foreign program too, and not otherwise.  It says that of the whole database,
** not of a key: a busy process costs the others a SELECT.  What this process
** commits itself is known: if the header has moved by that one commit, all
** other rows are as they were.
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

static void fill(egi_dir *dir, const egi_at *at, const egi_after *row) {
  egi_cached *cached = place(dir, at->hash2);
  *cached = (egi_cached){.hash = at->hash,
                         .hash2 = at->hash2,
                         .generation = dir->generation,
                         .version = row->version,
                         .token = row->token,
                         .stamp = row->stamp,
                         .len = (uint32_t)row->bytes.len};
  if (row->bytes.len > 0)
    memcpy(cached->bytes, row->bytes.data, row->bytes.len);
}

static bool is_plain(const egi_after *row) {
  return row->bytes.len <= EGI_CACHE_BYTES && row->not_before == EGI_UNSET &&
         row->fresh == EGI_UNSET && row->life == EGI_UNSET;
}

static const egi_cached *find(egi_dir *dir, uint64_t hash, uint64_t hash2) {
  const egi_cached *row = place(dir, hash2);
  return row->generation == dir->generation && row->hash == hash &&
                 row->hash2 == hash2
             ? row
             : NULL;
}

bool egi_cache_get(egi_at *at) {
  egi_dir *dir = at->dir;
  const egi_cached *row = NULL;
  if (dir->cache == NULL)
    return false;
  pthread_mutex_lock(&dir->cache_mutex);
  if (still(dir))
    row = find(dir, at->hash, at->hash2);
  if (row != NULL) {
    at->base = at->version = row->version;
    at->token = row->token;
    at->stamp = row->stamp;
    at->len = row->len;
    memcpy(at->small, row->bytes, row->len);
    at->bytes = (eg_bytes){at->small, row->len};
    memcpy(at->mark, dir->mark, sizeof at->mark);
    at->marked = true;
  }
  pthread_mutex_unlock(&dir->cache_mutex);
  return row != NULL;
}

/* Has it moved by one commit?  iChange counts them (walformat.html). */
static bool moved_once(const uint64_t before[6], const uint64_t now[6]) {
  return (uint32_t)now[1] == (uint32_t)before[1] + 1;
}

void egi_cache_wrote(egi_dir *dir, const egi_at *at, const egi_after *after,
                     const uint64_t before[6]) {
  uint64_t now[6];
  pthread_mutex_lock(&dir->cache_mutex);
  bool kept = dir->cache != NULL && egi_db_read_header(dir, now) &&
              memcmp(before, dir->mark, sizeof dir->mark) == 0 &&
              moved_once(before, now);
  if (kept) {
    memcpy(dir->mark, now, sizeof now);
    if (at != NULL && after != NULL && is_plain(after))
      fill(dir, at, after);
    else if (at != NULL)
      place(dir, at->hash2)->generation = 0;
  }
  pthread_mutex_unlock(&dir->cache_mutex);
}

void egi_cache_put(egi_at *at) {
  egi_dir *dir = at->dir;
  const egi_after row = {.version = at->version,
                         .token = at->token,
                         .stamp = at->stamp,
                         .not_before = at->not_before,
                         .fresh = at->fresh,
                         .life = at->life,
                         .bytes = at->bytes};
  if (!is_plain(&row))
    return;
  pthread_mutex_lock(&dir->cache_mutex);
  if (dir->cache == NULL)
    dir->cache = calloc(EGI_CACHE_ROWS, sizeof *dir->cache);
  still(dir);
  if (dir->cache != NULL && memcmp(dir->mark, at->mark, sizeof at->mark) == 0)
    fill(dir, at, &row);
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
    const egi_cached *row = find(dir, hash[0], hash[1]);
    found = row != NULL && row->len <= EGI_PEEK_ROOM;
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
