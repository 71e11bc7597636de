/* SPDX-License-Identifier: MIT
** The clock of the conformance tests, moved by hand.
**
** RULES.  (1) `lock` guards all below.  (2) Order: the mutex of who waits,
** then `lock`.  Who moves the clock must wake sleepers with their mutex held,
** the other way round: it only tries, and lets go of `lock` when it fails.
*/
#include "etcd_world.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct sleeper {
  struct sleeper *next;
  pthread_cond_t *cond;
  pthread_mutex_t *mutex;
  int64_t deadline_us;
  bool woken;
} sleeper;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t now_us = INT64_C(5000000000);
static int64_t offset_us = INT64_C(1767225600000000);
static sleeper *sleepers;
static int sleeping;

int64_t clock_now_us(void) {
  pthread_mutex_lock(&lock);
  int64_t us = now_us;
  pthread_mutex_unlock(&lock);
  return us;
}

static int64_t clock_now(void *ctx) {
  (void)ctx;
  return clock_now_us();
}

static int64_t clock_offset(void *ctx, int64_t at_us) {
  (void)ctx;
  (void)at_us;
  pthread_mutex_lock(&lock);
  int64_t us = offset_us;
  pthread_mutex_unlock(&lock);
  return us;
}

static void leave(sleeper *self) {
  sleeper **link = &sleepers;
  while (*link != self)
    link = &(*link)->next;
  *link = self->next;
  sleeping--;
}

static int clock_wait(void *ctx, pthread_cond_t *cond, pthread_mutex_t *mutex,
                      int64_t deadline_us) {
  (void)ctx;
  sleeper self = {NULL, cond, mutex, deadline_us, false};
  pthread_mutex_lock(&lock);
  if (now_us >= deadline_us) {
    pthread_mutex_unlock(&lock);
    return ETIMEDOUT;
  }
  self.next = sleepers;
  sleepers = &self;
  sleeping++;
  pthread_mutex_unlock(&lock);
  pthread_cond_wait(cond, mutex);
  pthread_mutex_lock(&lock);
  leave(&self);
  bool due = now_us >= deadline_us;
  pthread_mutex_unlock(&lock);
  return due ? ETIMEDOUT : 0;
}

static void clock_wake(void *ctx, pthread_cond_t *cond) {
  (void)ctx;
  pthread_cond_broadcast(cond);
}

const eg_clock world_clock = {NULL,         clock_now,  clock_now,
                              clock_offset, clock_wait, clock_wake};

/* Wakes one sleeper whose time has come.  False: there is none. */
static bool wake_one(void) {
  sleeper *s = sleepers;
  while (s != NULL && (s->woken || s->deadline_us > now_us))
    s = s->next;
  if (s == NULL)
    return false;
  if (pthread_mutex_trylock(s->mutex) == 0) {
    s->woken = true;
    pthread_cond_broadcast(s->cond);
    pthread_mutex_unlock(s->mutex);
    return true;
  }
  pthread_mutex_unlock(&lock);
  sched_yield();
  pthread_mutex_lock(&lock);
  return true;
}

/* The clock of a server that is under test, which moves with ours:
** spec/tools/handclock.c reads it. */
static _Atomic int64_t *server_clock(void) {
  static _Atomic int64_t *shared;
  const char *path = getenv("EXECUTIONGUARD_SPEC_CLOCK");
  if (shared != NULL || path == NULL)
    return shared;
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0)
    return NULL;
  void *at = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                  0);
  close(fd);
  if (at != MAP_FAILED)
    shared = at;
  return shared;
}

void clock_advance_ms(int64_t ms) {
  etcd_world_before(clock_now_us() / 1000);
  etcd_world_after(clock_now_us() / 1000 + ms);
  pthread_mutex_lock(&lock);
  now_us += ms * 1000;
  _Atomic int64_t *server = server_clock();
  if (server != NULL)
    atomic_fetch_add(server, ms * 1000);
  while (wake_one())
    continue;
  pthread_mutex_unlock(&lock);
}

void clock_set_wall_back_ms(int64_t ms) {
  pthread_mutex_lock(&lock);
  offset_us -= ms * 1000;
  pthread_mutex_unlock(&lock);
}

void clock_await_sleepers(int n) {
  for (int i = 0; i < 100000; i++) {
    pthread_mutex_lock(&lock);
    bool all = sleeping >= n;
    pthread_mutex_unlock(&lock);
    if (all)
      return;
    sched_yield();
  }
}
