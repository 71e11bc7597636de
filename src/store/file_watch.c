/* SPDX-License-Identifier: MIT
** Watches of the file store: who waits for a key blocks in flock while
** somebody has it, else on a word of the side file.
**
** Three ways, by what the caller needs:
**   - the caller's thread blocks itself: the plain case;
**   - a descriptor was asked for: a helper thread blocks, and writes to an
**     eventfd; it may win the exclusion for the watch;
**   - the clock is not the machine's (a test's): the caller waits on a
**     condition of that clock, and a helper blocks where the key is another
**     process's.
**
** Cancelling a helper and its winning meet under the watch's mutex: a
** cancelled one unlocks at once.
*/
#include "store/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { CLOSE_US = 1000000 };

/* ------------------------------------------------------------- looking -- */

typedef struct sight {
  uint64_t version;
  bool held, foreign; /* foreign: by another process */
  int64_t lease_us;   /* steady: when a lease is over; EG_FOREVER */
} sight;

static eg_status look(const egi_watch *watch, sight *s, eg_error *error) {
  egi_at at;
  if (watch->dir->stale)
    return egi_file_fail(error, EG_UNAVAILABLE, 0, "a watch of before a fork");
  egi_at_begin(watch->file, watch->key, &at);
  eg_status status = egi_shard_lock(watch->file, at.shard, error);
  if (status != EG_OK)
    return status;
  status = egi_at_look(&at, EGI_WANT_PROBE, error);
  s->version = at.version;
  s->held = at.held;
  s->foreign = at.held && !at.ours;
  s->lease_us = at.held && at.lease != EGI_UNSET
                    ? at.now + (at.lease - egi_at_now(&at))
                    : EG_FOREVER;
  egi_shard_unlock(watch->file, at.shard);
  egi_at_end(&at);
  return status;
}

/* Has it changed since the watch was armed?  Then it is armed again. */
static eg_status rearm(egi_watch *watch, sight *s, eg_error *error) {
  eg_status status = look(watch, s, error);
  if (status != EG_OK)
    return status;
  pthread_mutex_lock(&watch->mutex);
  if (watch->changed || watch->version != s->version ||
      (watch->held && !s->held))
    status = EG_CHANGED;
  watch->changed = false;
  watch->version = s->version;
  watch->held = s->held;
  if (status == EG_CHANGED && watch->event >= 0) {
    eventfd_t count;
    eventfd_read(watch->event, &count);
  }
  pthread_mutex_unlock(&watch->mutex);
  return status;
}

/* Both under the watch's mutex. */
static void note_change(egi_watch *watch) {
  const eg_clock *clock = watch->file->env.clock;
  watch->changed = true;
  clock->wake(clock->ctx, &watch->cond);
}

static void notify(egi_watch *watch) {
  note_change(watch);
  if (watch->event >= 0)
    eventfd_write(watch->event, 1);
  egi_block_interrupt(watch->tid);
}

void egi_file_wake(egi_at *at) {
  egi_dir *dir = at->dir;
  egi_block_bump(dir, at->shard);
  /* The shard's mutex is held, and whoever watches looks with it held: one
  ** whose look comes later sees the change, one whose look was before is in
  ** the list. */
  if (atomic_load(&dir->watches) == NULL)
    return;
  pthread_mutex_lock(&dir->watch_mutex);
  for (egi_watch *watch = dir->watches; watch != NULL; watch = watch->next)
    if (watch->hash == at->hash && watch->hash2 == at->hash2) {
      pthread_mutex_lock(&watch->mutex);
      notify(watch);
      pthread_mutex_unlock(&watch->mutex);
    }
  pthread_mutex_unlock(&dir->watch_mutex);
}

/* -------------------------------------------------------------- helper -- */

static bool is_cancelled(egi_watch *watch) {
  pthread_mutex_lock(&watch->mutex);
  bool cancelled = watch->cancelled;
  pthread_mutex_unlock(&watch->mutex);
  return cancelled;
}

/* Waits until there is an end to it: cancelled, won, or it cannot be waited
** for (wait says so). */
static void help_on(egi_watch *watch) {
  sight s = {0}, last;
  pthread_mutex_lock(&watch->mutex);
  last = (sight){.version = watch->version, .held = watch->held};
  pthread_mutex_unlock(&watch->mutex);
  while (!is_cancelled(watch)) {
    uint32_t seen = egi_block_seen(watch);
    egi_blocked result = EGI_AGAIN;
    bool told = look(watch, &s, NULL) == EG_OK;
    bool news = !told || s.version != last.version || (last.held && !s.held);
    if (!told)
      return;
    if (news) {
      pthread_mutex_lock(&watch->mutex);
      notify(watch);
      pthread_mutex_unlock(&watch->mutex);
    }
    last = s;
    if (s.held)
      result = egi_block_flock(watch, EG_FOREVER, true, NULL);
    else
      egi_block_futex(watch, seen, EG_FOREVER);
    if (result != EGI_AGAIN)
      return;
  }
}

/* Nobody joins this thread: who is told that it has won has better things to
** do than to wait for its end, or for its mutex.  So that is told last, by a
** descriptor of its own: the watch may be gone by then. */
static void *help(void *ctx) {
  egi_watch *watch = ctx;
  help_on(watch);
  pthread_mutex_lock(&watch->mutex);
  note_change(watch);
  int event = watch->own_event;
  watch->own_event = -1;
  watch->helped = true;
  pthread_cond_signal(&watch->ended);
  pthread_mutex_unlock(&watch->mutex);
  if (event >= 0) {
    eventfd_write(event, 1);
    close(event);
  }
  return NULL;
}

/* 0 or an errno. */
static int start_thread(egi_watch *watch) {
  pthread_attr_t attr;
  pthread_t thread;
  sigset_t all, before;
  int err = pthread_attr_init(&attr);
  if (err != 0)
    return err;
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  sigfillset(&all); /* the program's signals are not for this thread */
  pthread_sigmask(SIG_SETMASK, &all, &before);
  err = pthread_create(&thread, &attr, help, watch);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
  return err;
}

static eg_status start_helper(egi_watch *watch, eg_error *error) {
  if (watch->has_helper)
    return EG_OK;
  watch->helped = false;
  if (watch->event >= 0) {
    watch->own_event = fcntl(watch->event, F_DUPFD_CLOEXEC, 3);
    if (watch->own_event < 0)
      return egi_file_fail(error, EG_UNAVAILABLE, errno,
                           "no descriptor to wait with: %s", strerror(errno));
  }
  int err = start_thread(watch);
  watch->has_helper = err == 0;
  if (err == 0)
    return EG_OK;
  if (watch->own_event >= 0)
    close(watch->own_event);
  watch->own_event = -1;
  return egi_file_fail(error, EG_NOMEM, err, "no thread to wait with: %s",
                       strerror(err));
}

static void end_helper(egi_watch *watch) {
  if (!watch->has_helper)
    return;
  pthread_mutex_lock(&watch->mutex);
  watch->cancelled = true;
  while (!watch->helped) { /* a signal just before the call is lost */
    struct timespec until;
    egi_block_bump(watch->dir, watch->shard);
    egi_block_interrupt(watch->tid);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += 1000000;
    if (until.tv_nsec >= 1000000000) {
      until.tv_nsec -= 1000000000;
      until.tv_sec++;
    }
    pthread_cond_timedwait(&watch->ended, &watch->mutex, &until);
  }
  pthread_mutex_unlock(&watch->mutex);
  watch->has_helper = false;
}

/* --------------------------------------------------- making, unmaking -- */

static void link_watch(egi_watch *watch) {
  egi_dir *dir = watch->dir;
  pthread_mutex_lock(&dir->watch_mutex);
  watch->prev = NULL;
  watch->next = dir->watches;
  if (watch->next != NULL)
    watch->next->prev = watch;
  atomic_store(&dir->watches, watch);
  pthread_mutex_unlock(&dir->watch_mutex);
}

static void unlink_watch(egi_watch *watch) {
  egi_dir *dir = watch->dir;
  pthread_mutex_lock(&dir->watch_mutex);
  if (watch->prev != NULL)
    watch->prev->next = watch->next;
  else if (dir->watches == watch)
    dir->watches = watch->next;
  if (watch->next != NULL)
    watch->next->prev = watch->prev;
  pthread_mutex_unlock(&dir->watch_mutex);
}

static void free_watch(egi_watch *watch) {
  eg_env env = watch->file->env;
  if (watch->fd >= 0)
    close(watch->fd);
  if (watch->event >= 0)
    close(watch->event);
  if (watch->own_event >= 0) /* of a helper that a fork left behind */
    close(watch->own_event);
  pthread_cond_destroy(&watch->cond);
  pthread_cond_destroy(&watch->ended);
  pthread_mutex_destroy(&watch->mutex);
  env.alloc(env.alloc_ud, watch, sizeof *watch, 0);
}

static void fill(egi_watch *watch, egi_file *file, eg_bytes key,
                 const egi_seen *seen) {
  egi_at at;
  memset(watch, 0, sizeof *watch);
  watch->file = file;
  watch->dir = file->dir;
  watch->key = (eg_bytes){watch->bytes, key.len};
  memcpy(watch->bytes, key.data, key.len);
  egi_at_begin(file, watch->key, &at);
  watch->hash = at.hash;
  watch->hash2 = at.hash2;
  watch->shard = at.shard;
  watch->version = seen->version;
  watch->held = seen->at.held;
  watch->fd = watch->event = watch->own_event = -1;
}

eg_status egi_file_watch(egi_store *store, eg_bytes key, const egi_seen *seen,
                         egi_watch **out, int *fd, eg_error *error) {
  egi_file *file = (egi_file *)store;
  const eg_env *env = &file->env;
  eg_status status = egi_file_attach(file, error);
  if (status != EG_OK)
    return status;
  egi_watch *watch = env->alloc(env->alloc_ud, NULL, 0, sizeof *watch);
  if (watch == NULL)
    return egi_file_fail(error, EG_NOMEM, ENOMEM, "no memory for a watch");
  fill(watch, file, key, seen);
  pthread_mutex_init(&watch->mutex, NULL);
  if (egi_steady_cond(&watch->cond) != 0 ||
      egi_steady_cond(&watch->ended) != 0)
    status = egi_file_fail(error, EG_NOMEM, 0, "no condition for a watch");
  if (status == EG_OK && fd != NULL) {
    watch->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch->event < 0)
      status = egi_file_fail(error, EG_UNAVAILABLE, errno,
                             "no descriptor for a watch: %s", strerror(errno));
  }
  if (status != EG_OK) {
    free_watch(watch);
    return status;
  }
  link_watch(watch);
  if (fd != NULL) {
    *fd = watch->event;
    status = start_helper(watch, error);
  }
  if (status != EG_OK) {
    unlink_watch(watch);
    free_watch(watch);
    return status;
  }
  *out = watch;
  return EG_OK;
}

/* What was won and not taken is given back. */
static void give_back(egi_watch *watch) {
  egi_at at;
  egi_at_begin(watch->file, watch->key, &at);
  if (egi_shard_lock(watch->file, at.shard, NULL) != EG_OK)
    return;
  egi_entry *entry = egi_lock_entry(&at);
  if (entry != NULL && entry->won == watch) {
    egi_lock_drop(&at, entry);
    egi_file_wake(&at);
  }
  egi_shard_unlock(watch->file, at.shard);
}

void egi_file_unwatch(egi_watch *watch) {
  if (watch == NULL)
    return;
  if (watch->dir->stale) {
    free_watch(watch);
    return;
  }
  end_helper(watch);
  if (watch->won)
    give_back(watch);
  unlink_watch(watch);
  free_watch(watch);
}

/* ------------------------------------------------------------- waiting -- */

static int64_t sooner(int64_t a, int64_t b) { return a < b ? a : b; }

/* Does the handle's clock go with the machine's? */
static bool by_machine(const egi_watch *watch) {
  const eg_clock *clock = watch->file->env.clock;
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  int64_t machine = (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
  int64_t differs = clock->now_us(clock->ctx) - machine;
  return differs > -CLOSE_US && differs < CLOSE_US;
}

/* This thread may make a grant of what the watch has won.  False: somebody
** else has, or it was given back. */
static bool claim(egi_watch *watch) {
  egi_at at;
  egi_at_begin(watch->file, watch->key, &at);
  if (egi_shard_lock(watch->file, at.shard, NULL) != EG_OK)
    return false;
  egi_entry *entry = egi_lock_entry(&at);
  bool ours = entry != NULL && entry->won == watch;
  if (ours) {
    entry->won_by = pthread_self();
    entry->won_is_loose = false;
  }
  egi_shard_unlock(watch->file, at.shard);
  return ours;
}

static bool has_won(egi_watch *watch) {
  pthread_mutex_lock(&watch->mutex);
  bool won = watch->won;
  pthread_mutex_unlock(&watch->mutex);
  return won;
}

/* What the last wait has won and nobody took goes back, and the helper that
** won it begins again. */
static void return_unused(egi_watch *watch) {
  eventfd_t count;
  watch->told = false;
  end_helper(watch);
  give_back(watch);
  pthread_mutex_lock(&watch->mutex);
  watch->won = watch->cancelled = false;
  if (watch->event >= 0)
    eventfd_read(watch->event, &count);
  pthread_mutex_unlock(&watch->mutex);
}

static eg_status wait_here(egi_watch *watch, int64_t deadline_us,
                           eg_error *error) {
  const eg_clock *clock = watch->file->env.clock;
  for (;;) {
    sight s = {0};
    uint32_t seen = egi_block_seen(watch);
    eg_status status = rearm(watch, &s, error);
    if (status != EG_OK)
      return status;
    if (clock->now_us(clock->ctx) >= deadline_us)
      return EG_TIMEOUT;
    int64_t until = sooner(deadline_us, s.lease_us);
    if (!s.held) {
      egi_block_futex(watch, seen, until);
      continue;
    }
    switch (egi_block_flock(watch, until, false, error)) {
    case EGI_WON:
      return EG_OK;
    case EGI_BROKEN:
      return EG_UNAVAILABLE;
    case EGI_AGAIN:
      break;
    }
  }
}

/* Sleeps on the clock of the handle until somebody wakes the watch. */
static int sleep_until(egi_watch *watch, int64_t until_us) {
  const eg_clock *clock = watch->file->env.clock;
  int err = 0;
  pthread_mutex_lock(&watch->mutex);
  while (!watch->changed && !watch->won && err == 0)
    err = clock->wait(clock->ctx, &watch->cond, &watch->mutex, until_us);
  if (watch->changed || watch->won)
    err = 0;
  pthread_mutex_unlock(&watch->mutex);
  return err;
}

static eg_status wait_on_clock(egi_watch *watch, int64_t deadline_us,
                               eg_error *error) {
  const eg_clock *clock = watch->file->env.clock;
  int err = 0;
  for (;;) {
    sight s = {0};
    if (has_won(watch) && claim(watch))
      return EG_OK;
    eg_status status = rearm(watch, &s, error);
    if (status == EG_OK && (s.foreign || watch->event >= 0))
      status = start_helper(watch, error);
    if (status != EG_OK)
      return status;
    if (clock->now_us(clock->ctx) >= deadline_us)
      return EG_TIMEOUT;
    err = sleep_until(watch, sooner(deadline_us, s.lease_us));
    if (err != 0 && err != ETIMEDOUT)
      return egi_file_fail(error, EG_INTERNAL, err, "the clock cannot wait");
  }
}

eg_status egi_file_wait(egi_watch *watch, int64_t deadline_us,
                        eg_error *error) {
  if (watch->told)
    return_unused(watch);
  bool aside = watch->has_helper || watch->event >= 0 || !by_machine(watch);
  eg_status status = aside ? wait_on_clock(watch, deadline_us, error)
                           : wait_here(watch, deadline_us, error);
  watch->told = status == EG_OK;
  return status;
}
