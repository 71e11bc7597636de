/* SPDX-License-Identifier: MIT
** How a swap lands: what goes into the slot, what into the row, and in which
** order, so that a process that is killed half-way leaves either state.
**
**   to the slot   grants and their ends that leave the record as it is; the
**                 record of a run that begins, unless it must be durable or
**                 is large; times of a key that has no bytes
**   to the row    all else, in one statement, before the slot follows
**
** The row is written first, then the slot; a slot is left, or changed, last.
*/
#include "store/file.h"

#include <string.h>

typedef struct change {
  egi_at *at;
  const egi_swap *swap;
  egi_after after; /* as the row would have it */
  int64_t lease;
  size_t len;
  bool held, stays, record; /* record: bytes or times are not what they were */
  bool to_slot;
  bool took; /* the flock, just now */
  egi_entry *entry;
} change;

/* ------------------------------------------------------------ planning -- */

static int64_t until(int64_t before, int64_t now, int64_t ms) {
  if (ms == EGI_LEAVE_TIME)
    return before;
  if (ms <= 0)
    return EGI_UNSET;
  return ms < (EGI_UNSET - 1 - now) / 1000 ? now + ms * 1000 : EGI_UNSET - 1;
}

static void plan(change *c) {
  const egi_at *at = c->at;
  const egi_swap *swap = c->swap;
  int64_t now = egi_at_now(at);
  const eg_clock *clock = at->file->env.clock;
  bool granted = at->held && !at->unknown;
  c->held = swap->hold == EGI_TAKE || (swap->hold == EGI_KEEP && granted);
  c->len = swap->write == EGI_LEAVE ? at->len
           : swap->write == EGI_PUT ? swap->bytes.len
                                    : 0;
  c->after.not_before = until(at->not_before, now, swap->not_before_ms);
  c->after.fresh = until(at->fresh, now, swap->fresh_ms);
  c->after.life = until(at->life, now, swap->life_ms);
  c->lease = !c->held                 ? EGI_UNSET
             : swap->hold == EGI_TAKE ? until(EGI_UNSET, now, swap->lease_ms)
                                      : at->lease;
  c->after.stamp = swap->write == EGI_LEAVE
                       ? at->stamp
                       : at->now + clock->offset_us(clock->ctx, at->now);
  c->stays = c->len > 0 || c->held || c->after.not_before != EGI_UNSET;
  c->record = swap->write == EGI_PUT ||
              (swap->write == EGI_FORGET && at->len > 0) ||
              c->after.not_before != at->not_before ||
              c->after.fresh != at->fresh || c->after.life != at->life;
  c->after.durable = swap->durable || at->file->options.full;
}

/* May the record be in the slot alone? */
static bool fits_slot(const change *c) {
  const egi_at *at = c->at;
  const egi_swap *swap = c->swap;
  bool known = swap->write != EGI_LEAVE || at->len == 0 || at->in_slot;
  if (!known || c->len > EGI_SLOT_BYTES)
    return false;
  if (at->dir->options.only_locks)
    return c->len == 0;
  if (!c->held)
    return false;
  return c->len == 0 || (swap->hold == EGI_TAKE && !c->after.durable);
}

/* ------------------------------------------------------------- the row -- */

static eg_status write_row(change *c, eg_error *error) {
  egi_at *at = c->at;
  const egi_swap *swap = c->swap;
  if (!c->stays || (c->to_slot && c->len == 0))
    return at->base != 0 ? egi_db_delete(at, error) : EG_OK;
  if (c->to_slot)
    return EG_OK;
  c->after.leave = swap->write == EGI_LEAVE && !at->in_slot && at->len > 0;
  c->after.bytes = swap->write == EGI_PUT     ? swap->bytes
                   : swap->write == EGI_LEAVE ? at->bytes
                                              : (eg_bytes){NULL, 0};
  return egi_db_put(at, &c->after, error);
}

/* ------------------------------------------------------------ the slot -- */

static void fill_record(const change *c, egi_slot *slot) {
  slot->len = (uint32_t)c->len;
  slot->stamp = c->after.stamp;
  slot->not_before = c->after.not_before;
  slot->fresh = c->after.fresh;
  slot->life = c->after.life;
}

/* The record in the slot after the swap, its bytes included. */
static void place_record(const change *c, egi_slot *slot) {
  const egi_at *at = c->at;
  bool in_row = c->record && !c->to_slot;
  fill_record(c, slot);
  if (in_row) {
    slot->base = c->after.version;
    slot->in_slot = 0;
    return;
  }
  slot->base = c->record && c->len == 0 ? 0 : at->base;
  slot->in_slot = c->record || at->in_slot;
  if (!slot->in_slot || c->len == 0)
    return;
  eg_bytes bytes = c->swap->write == EGI_PUT ? c->swap->bytes : at->bytes;
  if (bytes.data != slot->bytes)
    memcpy(slot->bytes, bytes.data, bytes.len);
}

static void sum(egi_slot *slot) {
  if (slot->in_slot)
    slot->check = egi_slot_sum(slot);
}

static void fill_slot(const change *c, egi_slot *slot) {
  const egi_at *at = c->at;
  const egi_swap *swap = c->swap;
  slot->hash2 = at->hash2;
  slot->version = c->after.version;
  slot->token = c->after.token;
  slot->process = at->dir->nonce;
  slot->lease = c->lease;
  slot->since = egi_at_now(at);
  slot->pid = (uint32_t)at->dir->pid;
  slot->held = c->held;
  slot->line = at->slot != NULL && at->slot->line ? 2 : 0;
  slot->holder_len = (uint16_t)swap->holder.len;
  if (swap->holder.len > 0)
    memcpy(slot->holder, swap->holder.data, swap->holder.len);
  slot->name_len = (uint16_t)at->name.len;
  slot->key_len = (uint16_t)at->key.len;
  if (at->name.len > 0)
    memcpy(slot->text, at->name.data, at->name.len);
  memcpy(slot->text + at->name.len, at->key.data, at->key.len);
  place_record(c, slot);
  sum(slot);
}

/* A grant gets a slot of its own, and then the old one goes. */
static void new_slot(change *c, unsigned row) {
  egi_at *at = c->at;
  egi_side *side = &at->dir->side;
  fill_slot(c, egi_slot_at(side, at->shard, row));
  egi_slot_publish(side, at->shard, row, at->hash);
  if (at->slot != NULL)
    egi_slot_publish(side, at->shard, at->row, 0);
  at->slot = egi_slot_at(side, at->shard, row);
  at->row = row;
}

static void change_slot(change *c) {
  egi_at *at = c->at;
  egi_slot *slot = at->slot;
  bool in_row = c->record && !c->to_slot;
  if (!c->stays || (!c->held && in_row)) {
    egi_slot_publish(&at->dir->side, at->shard, at->row, 0);
    return;
  }
  place_record(c, slot);
  slot->held = c->held;
  slot->lease = c->lease;
  slot->token = c->after.token;
  slot->version = c->after.version;
  sum(slot);
}

/* ------------------------------------------------------------ evicting -- */

eg_status egi_at_evict(egi_at *at, eg_error *error) {
  egi_slot *slot = at->slot;
  egi_after after = {.version = slot->version,
                     .token = slot->token,
                     .stamp = slot->stamp,
                     .not_before = slot->not_before,
                     .fresh = slot->fresh,
                     .life = slot->life,
                     .leave = !slot->in_slot && slot->len > 0};
  eg_status status = EG_OK;
  at->base = slot->base;
  if (slot->in_slot)
    after.bytes = (eg_bytes){slot->bytes, slot->len};
  bool worth = slot->in_slot || slot->base != 0;
  if (worth && !at->dir->options.only_locks)
    status = egi_db_put(at, &after, error);
  if (status == EG_OK || status == EG_CONFLICT) {
    if (!slot->held)
      egi_slot_publish(&at->dir->side, at->shard, at->row, 0);
    else if (status == EG_OK && worth) {
      slot->in_slot = 0;
      slot->base = slot->version;
    }
    status = EG_OK;
  }
  return status;
}

/* A free row of the shard, if need be made free. */
static int room(egi_at *at) {
  egi_side *side = &at->dir->side;
  unsigned rows = atomic_load(&side->head->rows);
  for (unsigned i = 0; i < rows; i++)
    if (atomic_load(&side->head->tags[at->shard][i]) == 0)
      return (int)i;
  for (unsigned i = 0; i < rows; i++) {
    egi_slot *slot = egi_slot_at(side, at->shard, i);
    egi_at other;
    if (slot->held || slot == at->slot)
      continue;
    egi_at_of_slot(at->file, at->shard, i, &other);
    other.slot = slot;
    other.row = i;
    if (egi_at_evict(&other, NULL) == EG_OK)
      return (int)i;
  }
  return egi_slot_free_row(side, at->shard);
}

/* ------------------------------------------------------------- landing -- */

/* Rules 3 (but for expect) and 4. */
static bool may_land(const egi_at *at, const egi_swap *swap) {
  if (swap->token != 0 &&
      (!at->held || at->unknown || swap->token != at->token))
    return false;
  return swap->hold != EGI_TAKE || !at->held;
}

static eg_status take_flock(change *c, eg_error *error) {
  egi_at *at = c->at;
  eg_status status = egi_lock_take(at, &c->entry, error);
  if (status == EG_CONFLICT) {
    at->held = at->unknown = true;
    egi_lock_tell(at);
  }
  c->took = status == EG_OK && !c->entry->held && c->entry->won == NULL;
  return status;
}

static void note_grant(change *c) {
  egi_at *at = c->at;
  egi_entry *entry = c->entry;
  if (entry->held && entry->file != NULL)
    atomic_fetch_sub(&entry->file->holds, 1);
  entry->held = true;
  entry->won = NULL;
  entry->token = c->after.token;
  entry->file = at->file;
  atomic_fetch_add(&at->file->holds, 1);
  if (at->dir->options.only_locks)
    egi_lock_line(at, entry->fd);
}

static void end_grant(const change *c) {
  egi_at *at = c->at;
  egi_entry *entry = egi_lock_entry(at);
  if (entry == NULL || !entry->held)
    return;
  if (at->slot != NULL)
    egi_lock_blank(at->slot, entry->fd);
  egi_lock_leave(at, entry);
}

static void number(change *c) {
  const egi_at *at = c->at;
  bool makes = c->swap->hold == EGI_TAKE || c->swap->hold == EGI_BREAK;
  int64_t now = egi_at_now(at);
  c->after.version = egi_side_number(at->dir->side.head, now);
  c->after.token = makes ? c->after.version : at->token;
}

static eg_status no_slot(eg_error *error) {
  return egi_file_fail(error, EG_UNAVAILABLE, 0,
                       "no room in guard.shm for one more key that is held: "
                       "the disk is full, or %d are",
                       EGI_SHARDS * EGI_SHARD_SLOTS);
}

/* Row and slot, in this order.  row: a free one, for a grant. */
static eg_status land(change *c, int row, eg_error *error) {
  egi_at *at = c->at;
  bool slot_only = !c->record && (c->swap->hold == EGI_TAKE ||
                                  at->slot != NULL || at->base == 0);
  eg_status status = EG_OK;
  c->to_slot = c->record && fits_slot(c);
  if (!slot_only || !c->stays) {
    if (c->stays && !c->record)
      c->record = true; /* a version alone, and nowhere but in the row */
    status = write_row(c, error);
  }
  if (status != EG_OK)
    return status;
  if (c->swap->hold == EGI_TAKE || (row >= 0 && at->slot == NULL))
    new_slot(c, (unsigned)row);
  else if (at->slot != NULL)
    change_slot(c);
  return EG_OK;
}

eg_status egi_at_swap(egi_at *at, const egi_swap *swap, uint64_t *version,
                      uint64_t *token, eg_error *error) {
  change c = {.at = at, .swap = swap};
  unsigned char owner[EGI_HOLDER_MAX];
  eg_status status = EG_OK;
  int row = -1;
  if (!may_land(at, swap))
    return EG_CONFLICT;
  plan(&c);
  size_t owner_len = at->holder.len;
  if (owner_len > 0)
    memcpy(owner, at->holder.data, owner_len);
  if (swap->hold == EGI_TAKE && (row = room(at)) < 0)
    return no_slot(error);
  if (swap->hold == EGI_TAKE)
    status = take_flock(&c, error);
  if (status != EG_OK)
    return status;
  number(&c);
  status = land(&c, row, error);
  if (status != EG_OK) {
    if (c.took)
      egi_lock_drop(at, c.entry);
    return status;
  }
  if (swap->hold == EGI_TAKE)
    note_grant(&c);
  else if (swap->hold != EGI_KEEP)
    end_grant(&c);
  if ((swap->hold == EGI_DROP || swap->hold == EGI_BREAK) &&
      swap->write == EGI_PUT)
    egi_file_ended(at, swap, at->token, (eg_bytes){owner, owner_len});
  *version = c.stays ? c.after.version : 0;
  *token = c.after.token;
  if (swap->wake)
    egi_file_wake(at);
  return EG_OK;
}
