/* SPDX-License-Identifier: MIT
** A trace of what a store remembers: its history, and what is held now.
*/
#include "guard/trace.h"

#include "executionguard_view.h"

#include <stdio.h>
#include <string.h>

typedef struct past {
  egi_picture picture;
  eg_bytes key;
  int64_t since_us, now_us;
} past;

/* The row of an owner, which is a process of its own to those who draw. */
static uint32_t row_of(egi_picture *p, const char *owner) {
  for (size_t i = 0; i < p->row_n; i++)
    if (strcmp(p->rows[i].owner, owner) == 0)
      return (uint32_t)i;
  uint32_t number = (uint32_t)p->row_n + 1;
  uint32_t row = egi_picture_row(p, number, number);
  if (!p->no_memory) {
    snprintf(p->rows[row].owner, sizeof p->rows[row].owner, "%s", owner);
    snprintf(p->rows[row].name, sizeof p->rows[row].name, "owner");
  }
  return row;
}

static egi_item *add(past *p, const char *owner, eg_bytes key) {
  uint32_t row = row_of(&p->picture, owner);
  egi_item *item = p->picture.no_memory ? NULL : egi_picture_add(&p->picture);
  if (item == NULL)
    return NULL;
  item->row = row;
  item->len = (uint16_t)(key.len < EGI_TRACE_KEY ? key.len : EGI_TRACE_KEY);
  item->cut = key.len > EGI_TRACE_KEY;
  memcpy(item->key, key.data, item->len);
  return item;
}

static bool add_past(void *ctx, const eg_past *run) {
  past *p = ctx;
  char owner[EG_OWNER_MAX + 1];
  size_t n = run->owner.len < EG_OWNER_MAX ? run->owner.len : EG_OWNER_MAX;
  if (run->start_us + run->duration_us < p->since_us)
    return true;
  if (n > 0)
    memcpy(owner, run->owner.data, n);
  owner[n] = '\0';
  egi_item *item = add(p, owner, run->key);
  if (item == NULL)
    return false;
  item->kind = EGI_TRACE_RUN;
  item->status = (uint8_t)run->status;
  item->start_us = run->start_us > 0 ? run->start_us : 0;
  item->end_us = item->start_us +
                 (run->duration_us > 0 ? run->duration_us : 0);
  item->token = run->token;
  if (run->status != EG_TIMEOUT)
    return true;
  egi_item moment = *item;
  moment.kind = EGI_TRACE_TIMEOUT;
  moment.instant = true;
  moment.start_us = item->end_us;
  item = egi_picture_add(&p->picture);
  if (item != NULL)
    *item = moment;
  return item != NULL;
}

static bool is_wanted(const past *p, eg_bytes key) {
  return p->key.len == 0 || (p->key.len == key.len &&
                             memcmp(p->key.data, key.data, key.len) == 0);
}

static bool add_held(void *ctx, const eg_record *record) {
  past *p = ctx;
  if (!record->locked || !is_wanted(p, record->key))
    return true;
  egi_item *item = add(p, record->owner.text, record->key);
  if (item == NULL)
    return false;
  bool runs = record->status == EG_RUN_RUNNING;
  int64_t since = runs ? record->start_us : record->owner.since_us;
  item->kind = runs ? EGI_TRACE_RUN : EGI_TRACE_LOCK;
  item->open = true;
  item->token = record->token;
  item->start_us = since > 0 && since < p->now_us ? since : p->now_us;
  item->end_us = p->now_us;
  return true;
}

eg_status eg_write_past(eg_guard *guard, eg_bytes key, size_t n,
                        int64_t since_us, eg_write write, void *ctx,
                        eg_error *error) {
  const eg_clock *clock = guard->env.clock;
  int64_t now = egi_now(&guard->env);
  past p = {.picture = {.env = guard->env}, .key = key, .since_us = since_us};
  p.now_us = now + clock->offset_us(clock->ctx, now);
  eg_status status = eg_history(guard, key, n, add_past, &p, error);
  if (status == EG_OK || status == EG_UNSUPPORTED)
    status = eg_scan_held(guard, eg_str(""), add_held, &p, error);
  if (status == EG_OK && !egi_picture_settle(&p.picture))
    status = egi_fail(error, EG_NOMEM, "not enough memory for the trace");
  if (status == EG_OK)
    status = egi_picture_text(&p.picture, write, ctx);
  egi_picture_free(&p.picture);
  return status;
}
