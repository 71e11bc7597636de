/* SPDX-License-Identifier: MIT
** What is there: a key's slot, row and lock file, put together.
*/
#include "store/file.h"

#include <string.h>

void egi_at_begin(egi_file *file, eg_bytes key, egi_at *at) {
  egi_dir *dir = file->dir;
  uint64_t hash[2];
  at->file = file;
  at->dir = dir;
  at->name = (eg_bytes){file->name, file->name_len};
  at->key = key;
  egi_file_hash(dir->side.head->seed, at->name, key, hash);
  at->hash = hash[0];
  at->hash2 = hash[1];
  at->shard = (unsigned)(hash[0] >> 58);
  at->now = file->env.clock->now_us(file->env.clock->ctx);
  at->slot = NULL;
  at->leaving = NULL;
  at->heap = NULL;
  at->heap_size = 0;
}

void egi_at_of_slot(egi_file *file, unsigned shard, unsigned row, egi_at *at) {
  egi_slot *slot = egi_slot_at(&file->dir->side, shard, row);
  memset(at, 0, offsetof(egi_at, small));
  at->file = file;
  at->dir = file->dir;
  at->name = (eg_bytes){slot->text, slot->name_len};
  at->key = (eg_bytes){slot->text + slot->name_len, slot->key_len};
  at->hash = atomic_load(&file->dir->side.head->tags[shard][row]);
  at->hash2 = slot->hash2;
  at->shard = shard;
  at->now = file->env.clock->now_us(file->env.clock->ctx);
}

void egi_at_end(egi_at *at) {
  const eg_env *env = &at->file->env;
  if (at->heap != NULL)
    env->alloc(env->alloc_ud, at->heap, at->heap_size, 0);
}

static void nothing(egi_at *at) {
  at->base = at->version = at->token = 0;
  at->len = 0;
  at->progress = 0;
  at->in_slot = at->held = at->ours = at->unknown = at->marked = false;
  at->stamp = 0;
  at->lease = at->not_before = at->fresh = at->life = EGI_UNSET;
  at->bytes = at->holder = (eg_bytes){NULL, 0};
}

/* ------------------------------------------------------------- mending -- */

/* A slot whose writer was killed: its row may know better. */
static eg_status mend(egi_file *file, unsigned shard, unsigned row,
                      eg_error *error) {
  egi_at at;
  egi_slot *slot = egi_slot_at(&file->dir->side, shard, row);
  unsigned other;
  egi_at_of_slot(file, shard, row, &at);
  if (egi_slot_find(&file->dir->side, shard, at.hash, at.hash2, &other) !=
      slot) { /* a newer one took its place */
    egi_slot_publish(&file->dir->side, shard, row, 0);
    return EG_OK;
  }
  nothing(&at);
  if (egi_filter_may(file->dir->side.head, at.hash2)) {
    eg_status status = egi_db_get(&at, false, error);
    if (status != EG_OK)
      return status;
  }
  if (at.version > slot->version ||
      (!slot->in_slot && at.base != slot->base)) {
    if (at.token > slot->token)
      slot->held = 0;
    slot->in_slot = 0;
    slot->base = at.base;
    slot->len = (uint32_t)at.len;
    slot->stamp = at.stamp;
    slot->not_before = at.not_before;
    slot->fresh = at.fresh;
    slot->life = at.life;
    if (at.version > slot->version)
      slot->version = at.version;
  } else {
    slot->base = at.base;
  }
  if (!slot->held && !slot->in_slot)
    egi_slot_publish(&file->dir->side, shard, row, 0);
  return EG_OK;
}

static eg_status mend_shard(egi_file *file, unsigned shard, eg_error *error) {
  egi_side_head *head = file->dir->side.head;
  unsigned rows = atomic_load(&head->rows);
  for (unsigned i = 0; i < rows; i++)
    if (atomic_load(&head->tags[shard][i]) != 0) {
      eg_status status = mend(file, shard, i, error);
      if (status != EG_OK)
        return status;
    }
  head->shards[shard].suspect = 0;
  return EG_OK;
}

eg_status egi_shard_lock(egi_file *file, unsigned shard, eg_error *error) {
  egi_side_shard *s = &file->dir->side.head->shards[shard];
  bool died;
  eg_status status = egi_mutex_lock(&s->mutex, &died, error);
  if (status != EG_OK)
    return status;
  if (died)
    s->suspect = 1;
  if (s->suspect)
    status = mend_shard(file, shard, error);
  if (status != EG_OK)
    egi_mutex_unlock(&s->mutex);
  return status;
}

void egi_shard_unlock(egi_file *file, unsigned shard) {
  egi_mutex_unlock(&file->dir->side.head->shards[shard].mutex);
}

/* ------------------------------------------------------------- looking -- */

static void from_slot(egi_at *at) {
  const egi_slot *slot = at->slot;
  at->base = slot->base;
  at->version = slot->version;
  at->token = slot->token;
  at->len = slot->len;
  at->in_slot = slot->in_slot;
  at->stamp = slot->stamp;
  at->not_before = slot->not_before;
  at->fresh = slot->fresh;
  at->life = slot->life;
  at->lease = slot->held ? slot->lease : EGI_UNSET;
  if (slot->in_slot)
    at->bytes = (eg_bytes){slot->bytes, slot->len};
}

/* The bytes of a key whose slot leaves them to the row. */
static eg_status bytes_of_row(egi_at *at, eg_error *error) {
  eg_status status = egi_db_get(at, true, error);
  if (status != EG_OK)
    return status;
  at->slot->base = at->base; /* somebody wrote past us? his row counts */
  at->slot->len = (uint32_t)at->len;
  at->version = at->slot->version;
  at->token = at->slot->token;
  return EG_OK;
}

static bool over(int64_t until, int64_t now) {
  return until != EGI_UNSET && until <= now;
}

/* Is the grant that the slot names still one? */
static void judge_hold(egi_at *at, int want) {
  const egi_slot *slot = at->slot;
  int64_t now = egi_at_now(at);
  if (slot != NULL && slot->held && !over(slot->lease, now)) {
    at->ours = slot->process == at->dir->nonce;
    at->held = at->ours || egi_lock_busy(at);
  }
  if (at->held && slot != NULL) {
    at->holder = (eg_bytes){slot->holder, slot->holder_len};
    if (slot->progress_token == (uint32_t)slot->token)
      at->progress = slot->progress;
  } else if (want & EGI_WANT_PROBE) {
    at->held = at->unknown = egi_lock_busy(at);
  }
  if (!at->held || at->unknown)
    at->lease = EGI_UNSET;
}

/* What time alone does. */
static void settle(egi_at *at) {
  int64_t now = egi_at_now(at);
  if (over(at->not_before, now))
    at->not_before = EGI_UNSET;
  bool granted = at->held && !at->unknown;
  if (granted ||
      !(over(at->life, now) || (at->len == 0 && at->not_before == EGI_UNSET)))
    return;
  at->version = at->token = 0;
  at->len = 0;
  at->stamp = 0;
  at->bytes = (eg_bytes){NULL, 0};
  at->not_before = at->fresh = at->life = EGI_UNSET;
}

eg_status egi_at_look(egi_at *at, int want, eg_error *error) {
  eg_status status = EG_OK;
  bool bytes = (want & EGI_WANT_BYTES) != 0;
  nothing(at);
  at->slot = egi_slot_find(&at->dir->side, at->shard, at->hash, at->hash2,
                           &at->row);
  if (at->slot != NULL) {
    from_slot(at);
    if (bytes && !at->in_slot && at->len > 0)
      status = bytes_of_row(at, error);
  } else if (egi_filter_may(at->dir->side.head, at->hash2) &&
             !egi_cache_get(at)) {
    status = egi_db_get(at, bytes, error);
    if (status == EG_OK && bytes && at->marked)
      egi_cache_put(at);
  }
  if (status != EG_OK)
    return status;
  judge_hold(at, want);
  settle(at);
  return EG_OK;
}

static int64_t left(int64_t until, int64_t now, int64_t none) {
  if (until == EGI_UNSET)
    return none;
  return until > now ? until - now : 0;
}

void egi_at_see(const egi_at *at, egi_seen *seen) {
  int64_t now = egi_at_now(at);
  bool timed = at->lease != EGI_UNSET || at->not_before != EGI_UNSET ||
               at->fresh != EGI_UNSET || at->life != EGI_UNSET;
  seen->at = (egi_sight){.token = at->token,
                         .held = at->held,
                         .timed = timed,
                         .clocked = true,
                         .now_us = at->now,
                         .stamp_us = at->stamp,
                         .left_us = left(at->lease, now, -1),
                         .not_before_left_us = left(at->not_before, now, 0),
                         .fresh_left_us = left(at->fresh, now, -1),
                         .progress = at->progress};
  seen->version = at->version;
  seen->bytes = at->bytes;
  seen->holder = at->holder;
  seen->life_left_us = left(at->life, now, -1);
  if (at->marked && at->slot == NULL && !timed && !at->held)
    memcpy(seen->mark, at->mark, sizeof seen->mark);
  else
    memset(seen->mark, 0, sizeof seen->mark);
}
