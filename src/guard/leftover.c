/* SPDX-License-Identifier: MIT
** Outcomes that could not be stored, and that nobody waits for any more: the
** guard's attendant tries again, until the grant ends.
**
** From then on its lease is not renewed: the outcome is stored before it ends,
** or the key is free.  Lists and fields are guarded by `attending`.
*/
#include "guard/guard.h"

#include "executionguard_host.h"

#include <string.h>

enum { FIRST_DELAY_US = 100000, LAST_DELAY_US = 1000000 };

struct egi_leftover {
  egi_leftover *next;
  size_t size;
  eg_grant grant;
  eg_outcome outcome; /* points into bytes, as policy does */
  eg_policy policy;
  eg_bytes key;
  int64_t due_us, delay_us;
  int64_t took_us; /* the work, which had ended by then */
  char bytes[];
};

static eg_bytes keep(char **to, eg_bytes from) {
  eg_bytes kept = {*to, from.len};
  if (from.len > 0)
    memcpy(*to, from.data, from.len);
  *to += from.len;
  return kept;
}

static egi_leftover *copy_of(const eg_guard *guard, eg_bytes key,
                             const eg_grant *grant, const eg_outcome *outcome,
                             const eg_policy *policy) {
  size_t size = sizeof(egi_leftover) + key.len + outcome->value.len +
                outcome->error.len + outcome->trace.len;
  egi_leftover *l = egi_alloc(&guard->env, size);
  if (l == NULL)
    return NULL;
  char *to = l->bytes;
  *l = (egi_leftover){.size = size,
                      .grant = *grant,
                      .outcome = *outcome,
                      .policy = *policy,
                      .delay_us = FIRST_DELAY_US};
  l->policy.owner = NULL; /* that is of the grant */
  int64_t now = egi_now(&guard->env);
  l->took_us = now - grant->start_us;
  if (now < grant->deadline_us)
    l->grant.deadline_us = EG_FOREVER;
  l->key = keep(&to, key);
  l->outcome.value = keep(&to, outcome->value);
  l->outcome.error = keep(&to, outcome->error);
  l->outcome.trace = keep(&to, outcome->trace);
  return l;
}

static void put_off(eg_guard *guard, egi_leftover *l) {
  egi_attendant *a = &guard->attendant;
  l->due_us = egi_now(&guard->env) + l->delay_us;
  l->delay_us = l->delay_us < LAST_DELAY_US / 2 ? 2 * l->delay_us
                                                : LAST_DELAY_US;
  l->next = a->leftovers;
  a->leftovers = l;
}

eg_status eg_commit_later(eg_guard *guard, eg_bytes key, const eg_grant *grant,
                          const eg_outcome *outcome, const eg_policy *policy,
                          eg_error *error) {
  static const eg_policy plain = EG_POLICY_DEFAULT;
  if (!guard->ops->blocks)
    return egi_fail(error, EG_UNSUPPORTED,
                    "this store is never away: commit again");
  egi_leftover *l = copy_of(guard, key, grant, outcome,
                            policy != NULL ? policy : &plain);
  if (l == NULL)
    return egi_fail(error, EG_NOMEM, "not enough memory");
  egi_attending_lock();
  egi_tenure *held = egi_tenure_find(guard, key, grant->token);
  if (held != NULL) {
    held->renew_us = EG_FOREVER;
    put_off(guard, l);
    egi_attend_call(guard);
  }
  egi_attending_unlock();
  if (held != NULL)
    return EG_OK;
  egi_free(&guard->env, l, l->size);
  return EG_LOST;
}

int64_t egi_leftover_due(const egi_attendant *a) {
  int64_t due = EG_FOREVER;
  for (const egi_leftover *l = a->leftovers; l != NULL; l = l->next)
    due = l->due_us < due ? l->due_us : due;
  return due;
}

bool egi_is_leftover(eg_bytes key, uint64_t token) {
  bool found = false;
  egi_attending_lock();
  for (const eg_guard *g = NULL; (g = egi_attend_each(g)) != NULL;)
    for (egi_leftover *l = g->attendant.leftovers; l != NULL; l = l->next)
      found = found || (l->grant.token == token && l->key.len == key.len &&
                        memcmp(l->key.data, key.data, key.len) == 0);
  egi_attending_unlock();
  return found;
}

static void unlink_it(egi_attendant *a, const egi_leftover *l) {
  egi_leftover **link = &a->leftovers;
  while (*link != l)
    link = &(*link)->next;
  *link = l->next;
}

static eg_status commit(eg_guard *guard, egi_leftover *l) {
  l->grant.start_us = egi_now(&guard->env) - l->took_us;
  return eg_commit(guard, l->key, &l->grant, &l->outcome, &l->policy, NULL);
}

/* It stays in the list meanwhile: nobody else takes it out.  A grant that is
** over is not asked for: its outcome would be refused. */
bool egi_leftover_next(eg_guard *guard) {
  egi_attendant *a = &guard->attendant;
  int64_t now = egi_now(&guard->env);
  egi_leftover *l = a->leftovers;
  while (l != NULL && l->due_us > now)
    l = l->next;
  if (l == NULL)
    return false;
  bool held = egi_tenure_find(guard, l->key, l->grant.token) != NULL;
  egi_attending_unlock();
  eg_status status = held ? commit(guard, l) : EG_LOST;
  egi_attending_lock();
  unlink_it(a, l);
  if (status == EG_UNCOMMITTED || status == EG_NOMEM)
    put_off(guard, l);
  else
    egi_free(&guard->env, l, l->size);
  return true;
}

/* The guard is closed; each is tried once more while the store answers. */
void egi_leftovers_end(eg_guard *guard) {
  egi_attendant *a = &guard->attendant;
  eg_status status = EG_OK;
  egi_leftover *l;
  while ((l = a->leftovers) != NULL) {
    a->leftovers = l->next;
    if (status != EG_UNCOMMITTED)
      status = commit(guard, l);
    egi_free(&guard->env, l, l->size);
  }
  for (; (l = a->forked_leftovers) != NULL; egi_free(&guard->env, l, l->size))
    a->forked_leftovers = l->next;
}

/* They are the parent's to store; nothing can be freed here. */
void egi_leftovers_forked(egi_attendant *a) {
  egi_leftover **link = &a->forked_leftovers;
  while (*link != NULL)
    link = &(*link)->next;
  *link = a->leftovers;
  a->leftovers = NULL;
}
