/* SPDX-License-Identifier: MIT
** What the memory store sees of an entry, and how it forgets one whose time is
** over.  Called with the mutex of the shard held; memory.h has the rules.
*/
#include <string.h>

#include "store/memory.h"

enum { SWEEP_BUCKETS = 4 /* at each insert */ };

/* -------------------------------------------------------------- seeing -- */

static int64_t left_of(int64_t until, int64_t now) {
  return until > now ? until - now : 0;
}

bool egi_memory_see_times(const egi_view *view, int64_t now, egi_seen *seen) {
  const egi_times *times = &view->times;
  egi_sight *at = &seen->at;
  at->timed = egi_times_set(times);
  at->stamp_us = times->stamp;
  if (now == EGI_NO_TIME)
    return true;
  bool waits = times->not_before > now;
  bool ended = egi_is_over(times->life, now) ||
               (view->bytes.len == 0 && !waits);
  if (egi_is_over(times->lease, now)) {
    at->held = false;
    seen->holder = (eg_bytes){NULL, 0};
  }
  if (ended && !at->held)
    return false;
  if (at->held && times->lease != EGI_NEVER)
    at->left_us = times->lease - now;
  if (waits)
    at->not_before_left_us = times->not_before - now;
  if (times->fresh != EGI_NEVER)
    at->fresh_left_us = left_of(times->fresh, now);
  if (times->life != EGI_NEVER)
    seen->life_left_us = left_of(times->life, now);
  return true;
}

/* ---------------------------------------------------------- forgetting -- */

static void free_large(egi_shard *shard, egi_entry *entry) {
  const eg_env *env = shard->table.arena.env;
  void *record = (void *)(uintptr_t)egi_own(egi_entry_large(entry));
  env->alloc(env->alloc_ud, record, egi_entry_len(entry), 0);
  shard->large--;
}

static bool is_opaque(const egi_view *view) {
  egi_head head;
  return egi_decode_head(view->bytes, &head) && !head.absent &&
         head.kind == EG_KIND_OPAQUE;
}

/* Takes out an entry whose time is over. */
static void forget(egi_memory *memory, egi_shard *shard,
                   const egi_spot *spot) {
  egi_table *table = &shard->table;
  egi_entry *entry = spot->entry;
  unsigned flags = egi_entry_flags(entry);
  uint32_t extra = egi_own(&entry->extra);
  egi_view view;
  egi_entry_view(table, entry, &view);
  bool tell = memory->space->name == NULL && is_opaque(&view);
  if (view.bytes.len > 0)
    egi_memory_uncount(shard, egi_entry_key(entry), egi_own(&entry->hash));
  egi_table_begin(table);
  egi_table_unlink(table, spot);
  egi_table_end(table);
  if (flags & EGI_FADES)
    shard->fading--;
  if (flags & EGI_HELD)
    egi_shard_end_hold(shard, extra);
  if (extra != 0)
    egi_shard_release(shard, extra);
  if (flags & EGI_LARGE)
    free_large(shard, entry);
  if (tell) { /* its block is the node of the list */
    egi_set(&entry->next, egi_own(&shard->forgotten));
    egi_set(&shard->forgotten, spot->block);
  } else {
    egi_arena_release(&table->arena, spot->block, flags & EGI_CLASS_MASK);
  }
}

/* Takes the first of the forgotten.  Returns the length of its key; 0: the key
** is opaque again, so its keeper has a newer value by now. */
static size_t take_forgotten(egi_shard *shard, void *key) {
  egi_table *table = &shard->table;
  uint32_t block = egi_own(&shard->forgotten);
  egi_entry *entry = egi_entry_at(table, block);
  eg_bytes bytes = egi_entry_key(entry);
  egi_view view = {.bytes = {NULL, 0}};
  egi_key again;
  egi_key_init(&again, bytes, egi_own(&entry->hash));
  egi_spot spot;
  egi_table_find(table, &again, &spot);
  if (spot.entry != NULL)
    egi_entry_view(table, spot.entry, &view);
  if (is_opaque(&view))
    bytes.len = 0;
  memcpy(key, bytes.data, bytes.len);
  egi_set(&shard->forgotten, egi_own(&entry->next));
  egi_arena_release(&table->arena, block,
                    egi_entry_flags(entry) & EGI_CLASS_MASK);
  return bytes.len;
}

size_t egi_memory_next_forgotten(egi_store *store, void *key) {
  egi_shard *shard = ((egi_memory *)store)->space->shards;
  size_t len = 0;
  if (egi_get(&shard->forgotten) == 0)
    return 0;
  egi_shard_lock(shard);
  while (len == 0 && egi_own(&shard->forgotten) != 0)
    len = take_forgotten(shard, key);
  egi_shard_unlock(shard);
  return len;
}

void egi_memory_sweep(egi_memory *memory, egi_shard *shard, int64_t now) {
  const egi_table *table = &shard->table;
  if (now == EGI_NO_TIME)
    now = memory->env.clock->coarse_us(memory->env.clock->ctx);
  for (unsigned i = 0; i < SWEEP_BUCKETS; i++) {
    if (shard->hand >= egi_own(&table->buckets))
      shard->hand = 0;
    egi_spot spot;
    egi_table_chain(table, shard->hand++, &spot);
    while (spot.entry != NULL) {
      egi_view view;
      egi_seen seen;
      egi_entry_view(table, spot.entry, &view);
      if (view.timed && !egi_memory_see(&view, now, &seen))
        forget(memory, shard, &spot);
      egi_table_next(table, &spot);
    }
  }
}

void egi_memory_look(egi_place *place, egi_seen *seen) {
  const egi_table *table = &place->shard->table;
  egi_table_find(table, &place->key, &place->spot);
  if (place->spot.entry != NULL) {
    egi_entry_view(table, place->spot.entry, &place->view);
    if (egi_entry_flags(place->spot.entry) & EGI_FADES)
      egi_memory_now(place->memory, &place->now);
    if (egi_memory_see(&place->view, place->now, seen))
      return;
    forget(place->memory, place->shard, &place->spot);
    egi_table_find(table, &place->key, &place->spot); /* where it would be */
  }
  place->view.token = 0;
  place->view.held = false;
  place->view.timed = false;
  place->view.bytes.len = 0;
  egi_memory_absent(place->now, seen);
}

void egi_memory_free_large(egi_shard *shard) {
  const egi_table *table = &shard->table;
  uint32_t buckets = egi_own(&table->buckets);
  for (uint32_t i = 0; i < buckets && shard->large > 0; i++) {
    egi_spot spot;
    egi_table_chain(table, i, &spot);
    while (spot.entry != NULL) {
      if (egi_entry_flags(spot.entry) & EGI_LARGE)
        free_large(shard, spot.entry);
      egi_table_next(table, &spot);
    }
  }
}
