/* SPDX-License-Identifier: MIT
** Who holds a key: the owner line, and whose it is.
**
** Within one process the line is two numbers, who and which guard, and since
** when, then the text where the call gave one; host, pid and the guard's text
** are looked up when somebody asks.  It never holds a command line: that may
** be full of secrets.
*/
#include "guard/guard.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct line {
  uint32_t state, guard;
  int64_t since_us; /* steady: the offset is added when somebody asks */
} line;

_Static_assert(sizeof(line) == 16, "the line of a process of its own");
_Static_assert(sizeof(line) + EG_OWNER_MAX <= EGI_HOLDER_MAX, "fits a store");

/* The guards that are open; only for looking up the owner's text. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t unpinned = PTHREAD_COND_INITIALIZER;
static eg_guard *guards;
static size_t guard_count;

static _Atomic uint32_t next_guard = 1, next_state = 1;

uint32_t eg_next_state(void) { return atomic_fetch_add(&next_state, 1); }

/* The line on a store inside of this process; others: far_owner.c. */
eg_bytes egi_owner_line(const eg_guard *guard, const char *text,
                        int64_t since_us, unsigned char *out) {
  const eg_clock *clock = guard->env.clock;
  if (since_us == EGI_NO_TIME)
    since_us = clock->coarse_us(clock->ctx);
  line l = {guard->state, guard->number, since_us};
  memcpy(out, &l, sizeof l);
  size_t n = text != NULL ? strnlen(text, EG_OWNER_MAX) : 0;
  if (n > 0)
    memcpy(out + sizeof l, text, n);
  eg_bytes bytes = {out, sizeof l + n};
  return bytes;
}

static bool parse(eg_bytes bytes, line *l) {
  if (bytes.len < sizeof *l)
    return false;
  memcpy(l, bytes.data, sizeof *l);
  return true;
}

bool egi_owner_is_guard(const eg_guard *guard, eg_bytes bytes) {
  line l;
  if (!guard->store->inside)
    return egi_far_is_guard(guard, bytes);
  return parse(bytes, &l) && l.guard == guard->number;
}

bool egi_owner_is_here(const eg_guard *guard, eg_bytes bytes) {
  return guard->store->inside || egi_far_is_here(bytes);
}

bool egi_owner_is_state(const eg_guard *guard, eg_bytes bytes) {
  line l;
  if (!guard->store->inside)
    return egi_far_is_state(guard, bytes);
  return parse(bytes, &l) && l.state != 0 && l.state == guard->state;
}

void egi_owner_read(const eg_guard *guard, eg_bytes bytes, eg_owner *owner) {
  line l;
  memset(owner, 0, sizeof *owner);
  if (!guard->store->inside) {
    egi_far_read(guard, bytes, owner);
    return;
  }
  if (!parse(bytes, &l))
    return;
  if (gethostname(owner->host, sizeof owner->host - 1) != 0)
    strcpy(owner->host, "localhost");
  owner->pid = getpid();
  const eg_clock *clock = guard->env.clock;
  int64_t offset = clock->offset_us(clock->ctx, egi_now(&guard->env));
  owner->since_us = l.since_us + offset;
  owner->state = l.state;
  owner->guard = l.guard;
  owner->mine = l.guard == guard->number;
  owner->here = true;
  size_t n = bytes.len - sizeof l;
  if (n > 0) {
    memcpy(owner->text, (const char *)bytes.data + sizeof l,
           n < EG_OWNER_MAX ? n : EG_OWNER_MAX);
    return;
  }
  pthread_mutex_lock(&lock);
  for (const eg_guard *g = guards; g != NULL; g = g->next)
    if (g->number == l.guard)
      memcpy(owner->text, g->owner, sizeof owner->text);
  pthread_mutex_unlock(&lock);
}

void egi_owner_enlist(eg_guard *guard, const char *text) {
  if (text == NULL)
    text = program_invocation_short_name;
  snprintf(guard->owner, sizeof guard->owner, "%s", text);
  guard->number = atomic_fetch_add(&next_guard, 1);
  pthread_mutex_lock(&lock);
  guard->next = guards;
  guards = guard;
  guard_count++;
  pthread_mutex_unlock(&lock);
}

void egi_owner_fork(egi_fork phase) {
  if (phase == EGI_FORKING)
    pthread_mutex_lock(&lock);
  for (eg_guard *g = guards; g != NULL; g = g->next) {
    const egi_store_ops *ops = g->ops;
    void (*tell)(egi_store *) = phase == EGI_FORKING         ? ops->before_fork
                                : phase == EGI_FORKED_PARENT ? ops->after_fork
                                                             : ops->forked;
    egi_history_fork(g->history, phase);
    egi_counting_guard_fork(g, phase);
    if (phase == EGI_FORKED_CHILD) /* who read it is not there */
      g->pins = 0;
    if (tell != NULL)
      tell(g->store);
  }
  if (phase == EGI_FORKED_CHILD)
    pthread_cond_init(&unpinned, NULL);
  if (phase != EGI_FORKING)
    egi_mutex_fork(&lock, phase);
}

void egi_owner_delist(eg_guard *guard) {
  pthread_mutex_lock(&lock);
  eg_guard **link = &guards;
  while (*link != guard)
    link = &(*link)->next;
  *link = guard->next;
  guard_count--;
  pthread_mutex_unlock(&lock);
}

/* ---------------------------------------------- read by other threads -- */

/* The guards that may be read by anybody, at most cap; with the lock. */
static size_t pin_at_most(eg_guard **out, size_t cap) {
  size_t n = 0;
  for (eg_guard *g = guards; g != NULL && n < cap; g = g->next)
    if (!g->closing) {
      g->pins++;
      out[n++] = g;
    }
  return n;
}

bool egi_owner_pin(const eg_env *env, egi_pinned *pinned) {
  for (pinned->cap = 8;;) {
    size_t size = pinned->cap * sizeof *pinned->guards;
    pinned->guards = egi_alloc(env, size);
    if (pinned->guards == NULL)
      return false;
    pthread_mutex_lock(&lock);
    size_t count = guard_count;
    if (count <= pinned->cap)
      pinned->n = pin_at_most(pinned->guards, pinned->cap);
    pthread_mutex_unlock(&lock);
    if (count <= pinned->cap)
      return true;
    egi_free(env, pinned->guards, size);
    pinned->cap = count + count / 4;
  }
}

void egi_owner_unpin(const eg_env *env, egi_pinned *pinned) {
  pthread_mutex_lock(&lock);
  for (size_t i = 0; i < pinned->n; i++)
    pinned->guards[i]->pins--;
  pthread_cond_broadcast(&unpinned);
  pthread_mutex_unlock(&lock);
  egi_free(env, pinned->guards, pinned->cap * sizeof *pinned->guards);
}

void egi_owner_leave_alone(eg_guard *guard) {
  pthread_mutex_lock(&lock);
  while (guard->pins > 0)
    pthread_cond_wait(&unpinned, &lock);
  guard->closing = true;
  pthread_mutex_unlock(&lock);
}
