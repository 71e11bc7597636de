/* SPDX-License-Identifier: MIT
** Ended runs as the stores on servers keep them, and those that were read put
** in order.
**
**   token (8)  bytes of the owner line (2)  owner line       by who is asked
**   start (8)  duration (8)  exit status (4)  status (1)  flags (1: a process)
**   the error, up to EGI_PAST_ERROR bytes                    the tail
**
** Little-endian.
*/
#include "store/holder.h"
#include "store/remote.h"

#include <stdlib.h>
#include <string.h>

enum { HEAD = 10, TAIL = 22 };

bool egi_past_is_due(const egi_swap *swap) {
  return (swap->hold == EGI_DROP || swap->hold == EGI_BREAK) &&
         swap->write == EGI_PUT && swap->ended >= EG_RUN_COMPLETED;
}

size_t egi_past_head(uint64_t token, eg_bytes holder, unsigned char *out) {
  unsigned char *at = egi_put_number(egi_put_number(out, token, 8), holder.len,
                                     2);
  if (holder.len > 0)
    memcpy(at, holder.data, holder.len);
  return HEAD + holder.len;
}

size_t egi_past_tail(const egi_swap *swap, unsigned char *out) {
  size_t n = swap->error.len < EGI_PAST_ERROR ? swap->error.len
                                              : EGI_PAST_ERROR;
  unsigned char *at = egi_put_number(out, (uint64_t)swap->start_us, 8);
  at = egi_put_number(at, (uint64_t)swap->duration_us, 8);
  at = egi_put_number(at, (uint32_t)swap->exit_status, 4);
  at = egi_put_number(at, (uint64_t)swap->ended, 1);
  at = egi_put_number(at, swap->exited, 1);
  if (n > 0)
    memcpy(at, swap->error.data, n);
  return TAIL + n;
}

bool egi_past_read(eg_bytes bytes, eg_past *past) {
  egi_holder holder = {.text = {"", 0}};
  const unsigned char *at = bytes.data;
  if (bytes.len < HEAD + TAIL)
    return false;
  size_t line = (size_t)egi_get_number(at + 8, 2);
  if (bytes.len - HEAD - TAIL < line)
    return false;
  const unsigned char *tail = at + HEAD + line;
  egi_holder_read((eg_bytes){at + HEAD, line}, &holder);
  past->token = egi_get_number(at, 8);
  past->owner = holder.text;
  past->start_us = (int64_t)egi_get_number(tail, 8);
  past->duration_us = (int64_t)egi_get_number(tail + 8, 8);
  past->exit_status = (int32_t)egi_get_number(tail + 16, 4);
  past->status = tail[20] == EG_RUN_COMPLETED  ? EG_OK
                 : tail[20] == EG_RUN_TIMEDOUT ? EG_TIMEOUT
                                               : EG_FAILED;
  past->exited = tail[21] == 1;
  past->error = (eg_bytes){tail + TAIL, bytes.len - HEAD - line - TAIL};
  return true;
}

/* --------------------------------------------------------------- in order */

void egi_pasts_init(egi_pasts *pasts, size_t most) {
  *pasts = (egi_pasts){.most = most};
}

/* Newest first. */
static int compare(const void *a, const void *b) {
  const eg_past *x = *(eg_past *const *)a, *y = *(eg_past *const *)b;
  int64_t of_x = x->start_us + x->duration_us;
  int64_t of_y = y->start_us + y->duration_us;
  if (of_x != of_y)
    return of_x < of_y ? 1 : -1;
  return (x->token < y->token) - (x->token > y->token);
}

static void order(egi_pasts *pasts) {
  if (pasts->n > 0)
    qsort(pasts->list, pasts->n, sizeof *pasts->list, compare);
  while (pasts->n > pasts->most)
    free(pasts->list[--pasts->n]);
}

static bool grow(egi_pasts *pasts) {
  if (pasts->n < pasts->cap)
    return true;
  if (pasts->n / 2 >= pasts->most) { /* half of them will not be shown */
    order(pasts);
    return true;
  }
  size_t cap = pasts->cap > 0 ? 2 * pasts->cap : 64;
  eg_past **list = realloc(pasts->list, cap * sizeof *list);
  if (list == NULL)
    return false;
  pasts->list = list;
  pasts->cap = cap;
  return true;
}

bool egi_pasts_add(egi_pasts *pasts, eg_bytes key, eg_bytes bytes) {
  eg_past *past;
  if (!grow(pasts))
    return false;
  past = malloc(sizeof *past + key.len + bytes.len);
  if (past == NULL)
    return false;
  unsigned char *room = (unsigned char *)(past + 1);
  memcpy(room, key.data, key.len);
  memcpy(room + key.len, bytes.data, bytes.len);
  past->key = (eg_bytes){room, key.len};
  if (egi_past_read((eg_bytes){room + key.len, bytes.len}, past))
    pasts->list[pasts->n++] = past;
  else
    free(past); /* none of ours */
  return true;
}

void egi_pasts_show(egi_pasts *pasts, eg_visit_past visit, void *ctx) {
  order(pasts);
  for (size_t i = 0; i < pasts->n; i++)
    if (!visit(ctx, pasts->list[i]))
      break;
}

void egi_pasts_free(egi_pasts *pasts) {
  for (size_t i = 0; i < pasts->n; i++)
    free(pasts->list[i]);
  free(pasts->list);
  egi_pasts_init(pasts, 0);
}
