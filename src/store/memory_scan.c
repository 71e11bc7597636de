/* SPDX-License-Identifier: MIT
** Scan of the memory store: every record and hold once, with no lock held
** while it is visited.
**
** The table grows meanwhile, but in a way that can be followed: at the start a
** shard has N0 buckets, and each key has a home among them, by the bits of its
** hash that mattered then.  Where buckets were added since, a home is divided
** between those that are the same in these bits.  So the scan goes from home
** to home; each is copied whole with the mutex held, and visited without.  No
** key has two homes, so none is visited twice.
*/
#include <string.h>

#include "store/memory.h"

/* The records of one home: of each an item, key, bytes and holder, and so on
** from the next multiple of the item's alignment. */
typedef struct item {
  egi_seen seen; /* what it points at is behind the item */
  size_t key_len;
  size_t size; /* of it all */
} item;

typedef struct scan {
  egi_memory *memory;
  eg_bytes prefix;
  egi_visit_fn visit;
  void *ctx;
  int64_t now; /* read at most once a home */
  char *buf;
  size_t size, used;
} scan;

/* Room for so many bytes more; NULL: no memory. */
static char *reserve(scan *s, size_t more) {
  size_t need = s->used + more, size = s->size;
  if (need > size) {
    size = 2 * size > need ? 2 * size : need;
    char *buf = s->memory->env.alloc(s->memory->env.alloc_ud, s->buf, s->size,
                                     size);
    if (buf == NULL)
      return NULL;
    s->buf = buf;
    s->size = size;
  }
  char *room = s->buf + s->used;
  s->used = need;
  return room;
}

/* Copies one entry, if it is to be visited.  False: no memory. */
static bool copy(scan *s, const egi_table *table, const egi_entry *entry) {
  eg_bytes key = egi_entry_key(entry);
  egi_view view;
  item made = {.key_len = key.len};
  if ((egi_entry_len(entry) == 0 && !(egi_entry_flags(entry) & EGI_HELD)) ||
      key.len < s->prefix.len ||
      (s->prefix.len > 0 &&
       memcmp(key.data, s->prefix.data, s->prefix.len) != 0))
    return true;
  egi_memory_now(s->memory, &s->now);
  egi_entry_view(table, entry, &view);
  if (!egi_memory_see(&view, s->now, &made.seen) ||
      (made.seen.bytes.len == 0 && !made.seen.at.held))
    return true;
  size_t bytes = made.seen.bytes.len, holder = made.seen.holder.len;
  made.size = sizeof made + key.len + bytes + holder;
  made.size = (made.size + 15) / 16 * 16;
  char *to = reserve(s, made.size);
  if (to == NULL)
    return false;
  memcpy(to, &made, sizeof made);
  to += sizeof made;
  memcpy(to, key.data, key.len);
  if (bytes > 0)
    memcpy(to + key.len, made.seen.bytes.data, bytes);
  if (holder > 0)
    memcpy(to + key.len + bytes, made.seen.holder.data, holder);
  return true;
}

/* Copies a home: the bucket, and those that were divided from it. */
static bool copy_home(scan *s, egi_shard *shard, uint32_t home,
                      uint32_t step) {
  const egi_table *table = &shard->table;
  bool ok = true;
  s->used = 0;
  s->now = EGI_NO_TIME;
  egi_shard_lock(shard);
  uint32_t buckets = egi_own(&table->buckets);
  for (uint64_t b = home; ok && b < buckets; b += step) {
    egi_spot spot;
    egi_table_chain(table, (uint32_t)b, &spot);
    while (ok && spot.entry != NULL) {
      ok = copy(s, table, spot.entry);
      egi_table_next(table, &spot);
    }
  }
  egi_shard_unlock(shard);
  return ok;
}

/* Visits what was copied.  False: it is enough. */
static bool visit_home(scan *s) {
  for (size_t at = 0; at < s->used;) {
    item *found = (item *)(void *)(s->buf + at);
    char *data = (char *)(found + 1);
    eg_bytes key = {data, found->key_len};
    egi_seen *seen = &found->seen;
    seen->bytes.data = data + key.len;
    seen->holder.data = seen->holder.len > 0 ? data + key.len + seen->bytes.len
                                             : NULL;
    at += found->size;
    if (!s->visit(s->ctx, key, seen))
      return false;
  }
  return true;
}

/* Scans a shard.  False: it is enough, or there is no memory (*status). */
static bool scan_shard(scan *s, egi_shard *shard, eg_status *status) {
  egi_shard_lock(shard);
  uint32_t homes = egi_own(&shard->table.buckets);
  egi_shard_unlock(shard);
  for (uint32_t home = 0; home < homes; home++) {
    if (!copy_home(s, shard, home, egi_home_step(homes, home))) {
      *status = EG_NOMEM;
      return false;
    }
    if (!visit_home(s))
      return false;
  }
  return true;
}

eg_status egi_memory_scan(egi_store *store, eg_bytes prefix,
                          egi_visit_fn visit, void *ctx, eg_error *error) {
  egi_memory *memory = (egi_memory *)store;
  scan s = {.memory = memory, .prefix = prefix, .visit = visit, .ctx = ctx};
  eg_status status = EG_OK;
  for (unsigned i = 0; i < memory->space->n; i++)
    if (!scan_shard(&s, &memory->space->shards[i], &status))
      break;
  if (s.buf != NULL)
    memory->env.alloc(memory->env.alloc_ud, s.buf, s.size, 0);
  if (status == EG_NOMEM)
    egi_memory_fail(error, status, 0, "no memory to scan");
  return status;
}
