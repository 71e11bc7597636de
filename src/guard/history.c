/* SPDX-License-Identifier: MIT
** The runs that ended through a guard, for stores that remember none: a ring
** of fixed size.
**
** One mutex guards the ring; an entry is copied out before it is shown, so
** nobody is called with it held.
*/
#include "guard/guard.h"

#include <string.h>

#define ERROR_KEPT 120

typedef struct entry {
  eg_past past; /* its bytes point into this entry */
  unsigned char key[EG_KEY_MAX];
  char error[ERROR_KEPT];
} entry;

struct egi_history {
  pthread_mutex_t mutex;
  uint64_t added;
  uint32_t size;
  entry entries[];
};

static size_t ring_bytes(uint32_t size) {
  return sizeof(egi_history) + size * sizeof(entry);
}

eg_status egi_history_open(const eg_env *env, uint32_t size,
                           egi_history **history, eg_error *error) {
  *history = NULL;
  if (size == 0)
    return EG_OK;
  egi_history *h = egi_alloc(env, ring_bytes(size));
  if (h == NULL)
    return egi_fail(error, EG_NOMEM, "not enough memory for a history of %u",
                    size);
  pthread_mutex_init(&h->mutex, NULL);
  h->added = 0;
  h->size = size;
  *history = h;
  return EG_OK;
}

void egi_history_close(egi_history *history, const eg_env *env) {
  if (history == NULL)
    return;
  pthread_mutex_destroy(&history->mutex);
  egi_free(env, history, ring_bytes(history->size));
}

void egi_history_fork(egi_history *history, egi_fork phase) {
  if (history != NULL)
    egi_mutex_fork(&history->mutex, phase);
}

static void copy(entry *to, const eg_past *past) {
  size_t n = past->error.len < ERROR_KEPT ? past->error.len : ERROR_KEPT;
  to->past = *past;
  memcpy(to->key, past->key.data, past->key.len);
  if (n > 0)
    memcpy(to->error, past->error.data, n);
  to->past.key.data = to->key;
  to->past.error.data = to->error;
  to->past.error.len = n;
}

void egi_history_add(eg_guard *guard, const eg_past *past) {
  egi_history *h = guard->history;
  pthread_mutex_lock(&h->mutex);
  copy(&h->entries[h->added++ % h->size], past);
  pthread_mutex_unlock(&h->mutex);
}

static bool is_of(const eg_past *past, eg_bytes key) {
  return key.len == 0 || (key.len == past->key.len &&
                          memcmp(key.data, past->key.data, key.len) == 0);
}

/* Copies the newest entry of the key that was added before *at, and moves *at
** to it.  False: there is none any more. */
static bool take_older(egi_history *h, eg_bytes key, uint64_t *at,
                       entry *out) {
  bool found = false;
  pthread_mutex_lock(&h->mutex);
  while (!found && *at > 0 && h->added - (*at - 1) <= h->size) {
    const entry *e = &h->entries[--*at % h->size];
    found = is_of(&e->past, key);
    if (found)
      copy(out, &e->past);
  }
  pthread_mutex_unlock(&h->mutex);
  return found;
}

eg_status eg_history(eg_guard *guard, eg_bytes key, size_t n,
                     eg_visit_past visit, void *ctx, eg_error *error) {
  egi_history *h = guard->history;
  if (guard->ops->history != NULL)
    return guard->ops->history(guard->store, key, n, visit, ctx, error);
  if (h == NULL)
    return egi_fail(error, EG_UNSUPPORTED,
                    "no history is kept; open the guard with "
                    "eg_options.history set");
  pthread_mutex_lock(&h->mutex);
  uint64_t at = h->added;
  pthread_mutex_unlock(&h->mutex);
  entry e;
  for (; n > 0 && take_older(h, key, &at, &e); n--)
    if (!visit(ctx, &e.past))
      break;
  return EG_OK;
}
