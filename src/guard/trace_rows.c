/* SPDX-License-Identifier: MIT
** From notes to what is drawn: what belongs together is one item, and what
** overlaps without being within the other goes into lanes of its own.
**
** An item that is not within another of its row cannot be drawn there: that is
** what coroutines do that run in turn on one thread.
*/
#include "guard/trace.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NONE UINT32_MAX
#define DEPTH 32 /* items within one another, in a lane */

/* --------------------------------------------------------- the picture -- */

static void *resize(egi_picture *p, void *old, size_t size, size_t n,
                    size_t more) {
  void *now = p->env.alloc(p->env.alloc_ud, old, n * size, more * size);
  p->no_memory = p->no_memory || now == NULL;
  return now != NULL ? now : old;
}

egi_item *egi_picture_add(egi_picture *p) {
  if (p->items == NULL || p->n == p->cap) {
    size_t cap = p->cap > 0 ? 2 * p->cap : 256;
    p->items = resize(p, p->items, sizeof *p->items, p->cap, cap);
    if (p->items == NULL || p->no_memory)
      return NULL;
    p->cap = cap;
  }
  egi_item *item = &p->items[p->n++];
  memset(item, 0, sizeof *item);
  return item;
}

uint32_t egi_picture_row(egi_picture *p, uint32_t process, uint32_t thread) {
  for (size_t i = p->row_n; i-- > 0;)
    if (p->rows[i].process == process && p->rows[i].thread == thread)
      return (uint32_t)i;
  if (p->row_n == p->row_cap) {
    size_t cap = p->row_cap > 0 ? 2 * p->row_cap : 16;
    p->rows = resize(p, p->rows, sizeof *p->rows, p->row_cap, cap);
    if (p->no_memory)
      return 0;
    p->row_cap = cap;
  }
  egi_row *row = &p->rows[p->row_n];
  *row = (egi_row){.process = process, .thread = thread};
  return (uint32_t)p->row_n++;
}

void egi_picture_free(egi_picture *p) {
  egi_free(&p->env, p->items, p->cap * sizeof *p->items);
  egi_free(&p->env, p->rows, p->row_cap * sizeof *p->rows);
}

/* --------------------------------------------------------------- lanes -- */

static int in_order(const void *a, const void *b) {
  const egi_item *x = a, *y = b;
  if (x->row != y->row)
    return x->row < y->row ? -1 : 1;
  if (x->lane != y->lane)
    return x->lane < y->lane ? -1 : 1;
  if (x->start_us != y->start_us)
    return x->start_us < y->start_us ? -1 : 1;
  if (x->end_us != y->end_us) /* the longer one is around the other */
    return x->end_us > y->end_us ? -1 : 1;
  return (x->token > y->token) - (x->token < y->token);
}

typedef struct lane {
  int64_t ends[DEPTH];
  unsigned depth;
} lane;

static bool fits(lane *l, const egi_item *item) {
  while (l->depth > 0 && l->ends[l->depth - 1] <= item->start_us)
    l->depth--;
  if (l->depth == DEPTH ||
      (l->depth > 0 && l->ends[l->depth - 1] < item->end_us))
    return false;
  l->ends[l->depth++] = item->end_us;
  return true;
}

static void settle_lanes(egi_picture *p, lane **lanes, size_t *cap) {
  size_t used = 0;
  for (size_t i = 0; i < p->n; i++) {
    egi_item *item = &p->items[i];
    if (i == 0 || p->items[i - 1].row != item->row)
      used = 0;
    if (item->instant)
      continue;
    size_t at = 0;
    while (at < used && !fits(&(*lanes)[at], item))
      at++;
    item->lane = (uint32_t)at;
    if (at < used)
      continue;
    if (used == *cap) {
      size_t more = *cap > 0 ? 2 * *cap : 8;
      *lanes = resize(p, *lanes, sizeof **lanes, *cap, more);
      if (p->no_memory)
        return;
      *cap = more;
    }
    (*lanes)[used].depth = 1;
    (*lanes)[used++].ends[0] = item->end_us;
  }
}

bool egi_picture_settle(egi_picture *p) {
  lane *lanes = NULL;
  size_t cap = 0;
  if (p->no_memory)
    return false;
  if (p->n > 1)
    qsort(p->items, p->n, sizeof *p->items, in_order);
  settle_lanes(p, &lanes, &cap);
  egi_free(&p->env, lanes, cap * sizeof *lanes);
  if (p->n > 1)
    qsort(p->items, p->n, sizeof *p->items, in_order);
  return !p->no_memory;
}

/* --------------------------------------------------- what is not ended -- */

/* Items that have begun, by their key or the number of their wait; the latest
** of each. */
typedef struct opened {
  const egi_note *note;
  uint32_t item, before; /* the latest, and the one before */
} opened;

typedef struct table {
  egi_picture *picture;
  opened *slots;
  size_t size; /* a power of two */
  uint32_t process;
  int64_t offset_us;
} table;

static uint64_t hash_of(const egi_note *n) {
  uint64_t hash = UINT64_C(14695981039346656037) ^ n->wait; /* FNV-1a */
  size_t len = n->len < EGI_TRACE_KEY ? n->len : EGI_TRACE_KEY;
  for (size_t i = 0; n->wait == 0 && i < len; i++)
    hash = (hash ^ n->key[i]) * UINT64_C(1099511628211);
  hash = (hash ^ (uintptr_t)n->space) * UINT64_C(1099511628211);
  return hash ^ hash >> 32;
}

static bool same(const egi_note *a, const egi_note *b) {
  if (a->wait != 0 || b->wait != 0)
    return a->wait == b->wait;
  size_t len = a->len < EGI_TRACE_KEY ? a->len : EGI_TRACE_KEY;
  return a->space == b->space && a->len == b->len &&
         memcmp(a->key, b->key, len) == 0;
}

static opened *find(const table *t, const egi_note *n) {
  size_t at = (size_t)hash_of(n) & (t->size - 1);
  while (t->slots[at].note != NULL && !same(t->slots[at].note, n))
    at = (at + 1) & (t->size - 1);
  return &t->slots[at];
}

static egi_item *begun(const table *t, const opened *slot) {
  return slot->note != NULL && slot->item != NONE
             ? &t->picture->items[slot->item]
             : NULL;
}

static egi_item *begin(table *t, const egi_note *n, egi_trace_kind kind,
                       int64_t at_us) {
  egi_item *item = egi_picture_add(t->picture);
  if (item == NULL)
    return NULL;
  item->kind = (uint8_t)kind;
  item->start_us = item->end_us = at_us + t->offset_us;
  item->row = egi_picture_row(t->picture, t->process, n->thread);
  item->token = n->token;
  item->open = true;
  item->len = n->len < EGI_TRACE_KEY ? n->len : EGI_TRACE_KEY;
  item->cut = n->len > EGI_TRACE_KEY;
  memcpy(item->key, n->key, item->len);
  return item;
}

static void finish(const table *t, egi_item *item, const egi_note *n,
                   eg_status status) {
  item->open = false;
  item->status = (uint8_t)status;
  item->end_us = n->at_us + t->offset_us;
  if (item->end_us < item->start_us) /* noted by threads side by side */
    item->end_us = item->start_us;
}

static void instant(table *t, const egi_note *n, egi_trace_kind kind) {
  egi_item *item = begin(t, n, kind, n->at_us);
  if (item != NULL) {
    item->open = false;
    item->instant = true;
  }
}

/* Where it ended on a row that is not the one it ran on. */
static void mark_timeout(table *t, const egi_note *n, uint32_t row) {
  instant(t, n, EGI_TRACE_TIMEOUT);
  if (!t->picture->no_memory)
    t->picture->items[t->picture->n - 1].row = row;
}

static void take_grant(table *t, const egi_note *n) {
  opened *slot = find(t, n);
  egi_item *before = begun(t, slot);
  if (before != NULL) /* nobody noted how that ended */
    finish(t, before, n, EG_LOST);
  uint32_t last = before != NULL ? slot->item : NONE;
  if (begin(t, n, (egi_trace_kind)n->kind, n->at_us) != NULL)
    *slot = (opened){n, (uint32_t)(t->picture->n - 1), last};
}

/* An end that was noted after the next grant: threads are side by side. */
static void take_late_end(table *t, const opened *slot, const egi_note *n) {
  if (slot->before == NONE || n->status == EG_LOST ||
      t->picture->items[slot->before].token != n->token)
    return;
  t->picture->items[slot->before].status = n->status;
  if (n->status == EG_TIMEOUT)
    mark_timeout(t, n, t->picture->items[slot->before].row);
}

static void take_end(table *t, const egi_note *n, int64_t began_us) {
  opened *slot = find(t, n);
  egi_item *item = begun(t, slot);
  if (item != NULL && n->token != 0 && item->token != n->token) {
    take_late_end(t, slot, n);
    return;
  }
  if (item == NULL && n->status == EG_LOST)
    return;
  if (item == NULL) /* it began before the trace did */
    item = begin(t, n,
                 n->kind == EGI_TRACE_END ? EGI_TRACE_RUN : EGI_TRACE_LOCK,
                 began_us);
  if (item == NULL)
    return;
  uint32_t row = item->row;
  finish(t, item, n, (eg_status)n->status);
  if (slot->note != NULL)
    slot->item = NONE;
  if (n->status == EG_TIMEOUT)
    mark_timeout(t, n, row);
}

/* Who waited holds it, whoever took it for them. */
static void take_waited(table *t, const egi_note *n) {
  opened *slot = find(t, n);
  egi_item *item = begun(t, slot);
  if (item != NULL) {
    finish(t, item, n, (eg_status)n->status);
    slot->item = NONE;
  }
  egi_note of_key = *n;
  of_key.wait = 0;
  egi_item *held = begun(t, find(t, &of_key));
  if (n->token != 0 && held != NULL && held->token == n->token)
    held->row = egi_picture_row(t->picture, t->process, n->thread);
}

static void take(table *t, const egi_note *n, int64_t began_us) {
  switch ((egi_trace_kind)n->kind) {
  case EGI_TRACE_RUN:
  case EGI_TRACE_LOCK:
    take_grant(t, n);
    break;
  case EGI_TRACE_WAIT:
    if (begin(t, n, EGI_TRACE_WAIT, n->at_us) != NULL)
      *find(t, n) = (opened){n, (uint32_t)(t->picture->n - 1), NONE};
    break;
  case EGI_TRACE_END:
  case EGI_TRACE_FREED:
    take_end(t, n, began_us);
    break;
  case EGI_TRACE_WAITED:
    take_waited(t, n);
    break;
  default:
    instant(t, n, (egi_trace_kind)n->kind);
    break;
  }
}

bool egi_picture_notes(egi_picture *p, const egi_note *notes, size_t n,
                       int64_t began_us, int64_t ended_us, int64_t offset_us) {
  table t = {.picture = p, .size = 16, .offset_us = offset_us};
  t.process = (uint32_t)getpid();
  while (t.size < 2 * n)
    t.size *= 2;
  t.slots = egi_alloc(&p->env, t.size * sizeof *t.slots);
  if (t.slots == NULL)
    return false;
  memset(t.slots, 0, t.size * sizeof *t.slots);
  for (size_t i = 0; i < n && !p->no_memory; i++)
    take(&t, &notes[i], began_us);
  egi_free(&p->env, t.slots, t.size * sizeof *t.slots);
  for (size_t i = 0; i < p->n; i++)
    if (p->items[i].open && p->items[i].end_us < ended_us + offset_us)
      p->items[i].end_us = ended_us + offset_us;
  return !p->no_memory;
}
