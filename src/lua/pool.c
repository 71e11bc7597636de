/* SPDX-License-Identifier: MIT
** Works, the queue and the threads: see pool.h.
**
** A thread is started when there is work, none is idle and there are fewer
** than the limit.  One that was idle for IDLE_S seconds ends, so a program
** that is done with its jobs has none.  A thread that is lost counts no more:
** another may take its place; it ends when it comes back.
*/
#include "lua/pool.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define IDLE_S 10

/* Who is woken by another thread finds it held for some instructions more: he
** spins, and does not sleep a second time. */
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
#define ADAPTIVE PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
#else
#define ADAPTIVE PTHREAD_MUTEX_INITIALIZER
#endif

static pthread_mutex_t mutex = ADAPTIVE;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_cond_t wanted, gone;
static eb_work *first, **last = &first;
/* Threads but those that leave or are lost; those of them that wait, that are
** at a work; works that wait; threads that leave, that are lost. */
static int limit, threads, idle, running, queued, leaving, lost;
static _Atomic size_t most_result = (size_t)64 * 1024 * 1024;
static size_t memory; /* of each Lua state; 0: its share of the machine's */
static uintptr_t drains;

/* --------------------------------------------------------------- works -- */

bool eb_blob_set(eb_blob *blob, const void *data, size_t len) {
  unsigned char *copy = malloc(len > 0 ? len : 1);
  if (copy == NULL)
    return false;
  if (len > 0)
    memcpy(copy, data, len);
  free(blob->data);
  blob->data = copy;
  blob->len = len;
  return true;
}

void eb_blob_free(eb_blob *blob) {
  free(blob->data);
  blob->data = NULL;
  blob->len = 0;
}

void eb_code_release(eb_code *code) {
  if (code == NULL || atomic_fetch_sub(&code->refs, 1) > 1)
    return;
  eb_blob_free(&code->text);
  eb_blob_free(&code->path);
  eb_blob_free(&code->cpath);
  free(code);
}

eb_work *eb_work_new(eb_code *code) {
  eb_work *work = calloc(1, sizeof *work);
  if (work == NULL)
    return NULL;
  atomic_store(&work->refs, 1);
  atomic_fetch_add(&code->refs, 1);
  work->code = code;
  work->call.tag = work;
  work->last_line = &work->lines;
  return work;
}

void eb_lines_free(eb_line **lines) {
  while (*lines != NULL) {
    eb_line *line = *lines;
    *lines = line->next;
    eb_blob_free(&line->text);
    free(line);
  }
}

void eb_work_release(eb_work *work) {
  if (atomic_fetch_sub(&work->refs, 1) > 1)
    return;
  eb_code_release(work->code);
  eb_blob_free(&work->args);
  eb_blob_free(&work->value);
  eb_blob_free(&work->trace);
  eb_blob_free(&work->text);
  eb_blob_free(&work->kept);
  eb_lines_free(&work->lines);
  free(work);
}

/* With the mutex held. */
static void ring(eb_work *work) {
  if (work->bell != NULL)
    eg_bell_ring(work->bell, &work->call);
}

/* ------------------------------------------------------------- threads -- */

static eb_work *take(void) {
  eb_work *work = first;
  if (work == NULL)
    return NULL;
  first = work->next;
  if (first == NULL)
    last = &first;
  queued--;
  running++;
  work->stage = EB_RUNNING;
  pthread_cond_broadcast(&gone); /* a drain does not wait for this one */
  return work;
}

/* The next work; NULL: there was none for long, or since `seen` all were told
** to go. */
static eb_work *await(uintptr_t seen) {
  struct timespec until;
  int err = 0;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += IDLE_S;
  idle++;
  while (first == NULL && err == 0 && seen == drains && threads <= limit)
    err = pthread_cond_timedwait(&wanted, &mutex, &until);
  idle--;
  return threads <= limit ? take() : NULL;
}

/* With the mutex held.  False: the thread was lost meanwhile. */
static bool end_work(eb_work *work) {
  bool kept = work->stage == EB_RUNNING;
  if (kept) {
    running--;
    work->stage = EB_ENDED;
    ring(work);
  } else {
    lost--;
  }
  return kept;
}

static void *serve(void *arg) {
  uintptr_t seen = (uintptr_t)arg;
  eb_worker *worker = NULL;
  eb_work *work;
  bool kept = true;
  pthread_mutex_lock(&mutex);
  while (kept && (work = await(seen)) != NULL) {
    seen = drains;
    pthread_mutex_unlock(&mutex);
    if (worker == NULL)
      worker = eb_worker_open();
    eb_worker_run(worker, work);
    if (work->dirty || work->end == EB_NO_MEMORY) {
      eb_worker_close(worker);
      worker = NULL;
    }
    pthread_mutex_lock(&mutex);
    kept = end_work(work);
    pthread_mutex_unlock(&mutex);
    eb_work_release(work);
    pthread_mutex_lock(&mutex);
  }
  threads -= kept; /* from now on nobody counts on this one */
  leaving++;
  pthread_mutex_unlock(&mutex);
  eb_worker_close(worker);
  pthread_mutex_lock(&mutex);
  leaving--;
  pthread_cond_broadcast(&gone);
  pthread_mutex_unlock(&mutex);
  return NULL;
}

/* Signals are for the threads of the program, but for ours (interrupt.c). */
static bool start_thread(void) {
  pthread_attr_t attr;
  pthread_t thread;
  sigset_t most, before;
  if (pthread_attr_init(&attr) != 0)
    return false;
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  sigfillset(&most);
  int ours[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGURG};
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    sigdelset(&most, ours[i]);
  pthread_sigmask(SIG_SETMASK, &most, &before);
  bool started = pthread_create(&thread, &attr, serve, (void *)drains) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
  threads += started;
  return started;
}

static void before_fork(void) { pthread_mutex_lock(&mutex); }

static void after_fork(void) { pthread_mutex_unlock(&mutex); }

/* The child has none of the threads, and nobody works on what was asked. */
static void in_child(void) {
  mutex = (pthread_mutex_t)ADAPTIVE;
  eg_cond_init(&wanted);
  eg_cond_init(&gone);
  threads = idle = running = queued = leaving = lost = 0;
  first = NULL;
  last = &first;
}

static void set_up(void) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  eg_cond_init(&wanted);
  eg_cond_init(&gone);
  eg_thread_anchor(); /* the keeper's handlers come first: its locks are taken
                         after ours */
  pthread_atfork(before_fork, after_fork, in_child);
  if (limit == 0)
    limit = cores > 0 ? (int)cores : 1;
}

/* -------------------------------------------------------- for the owner -- */

bool eb_pool_submit(eb_work *work, eg_error *error) {
  pthread_once(&once, set_up);
  pthread_mutex_lock(&mutex);
  bool served = idle > queued || (threads < limit && start_thread()) ||
                threads > 0;
  if (served) {
    work->stage = EB_QUEUED;
    work->next = NULL;
    *last = work;
    last = &work->next;
    queued++;
    atomic_fetch_add(&work->refs, 1);
  }
  pthread_mutex_unlock(&mutex);
  if (served) /* now, as who is woken wants the mutex */
    pthread_cond_signal(&wanted);
  if (!served && error != NULL) {
    error->status = EG_UNAVAILABLE;
    strcpy(error->message, "no thread could be started");
  }
  return served;
}

static bool unqueue(eb_work *work) {
  eb_work **link = &first;
  while (*link != NULL && *link != work)
    link = &(*link)->next;
  if (*link == NULL)
    return false;
  *link = work->next;
  if (last == &work->next)
    last = link;
  queued--;
  work->stage = EB_ENDED;
  return true;
}

/* With the mutex held. */
static void hasten(eb_work *work) {
  int why = atomic_load(&work->why);
  if (why == EB_GOES_ON)
    return;
  int64_t until_us = eg_now_us() + atomic_load(&work->grace_us);
  if (until_us < atomic_load(&work->until_us))
    atomic_store(&work->until_us, until_us);
  if (work->timer != NULL)
    eg_timer_hasten(work->timer, until_us);
  if (work->sleeper != NULL)
    eg_bell_ring(work->sleeper, &work->nudge);
}

bool eb_pool_cancel(eb_work *work, int why) {
  pthread_mutex_lock(&mutex);
  if (why > atomic_load(&work->why))
    atomic_store(&work->why, why);
  bool never = work->stage == EB_QUEUED && unqueue(work);
  if (!never)
    hasten(work);
  pthread_mutex_unlock(&mutex);
  if (never)
    eb_work_release(work);
  return never;
}

bool eb_pool_abandon(eb_work *work) {
  pthread_mutex_lock(&mutex);
  bool stuck = work->stage == EB_RUNNING;
  if (stuck) {
    work->stage = EB_LOST;
    work->bell = NULL;
    threads--;
    running--;
    lost++;
    if (queued > 0 && idle == 0 && threads < limit)
      start_thread();
  }
  pthread_mutex_unlock(&mutex);
  return stuck;
}

void eb_pool_disown(eb_work *work) {
  pthread_mutex_lock(&mutex);
  work->bell = NULL;
  atomic_store(&work->grace_us, 0);
  bool goes_on = work->stage == EB_QUEUED || work->stage == EB_RUNNING;
  pthread_mutex_unlock(&mutex);
  if (goes_on)
    eb_pool_cancel(work, EB_CANCELED);
}

eb_stage eb_pool_look(eb_work *work, eb_line **lines) {
  while (*lines != NULL)
    lines = &(*lines)->next;
  pthread_mutex_lock(&mutex);
  eb_stage stage = work->stage;
  *lines = work->lines;
  work->lines = NULL;
  work->last_line = &work->lines;
  pthread_mutex_unlock(&mutex);
  return stage;
}

/* ------------------------------------------------------- for the worker -- */

void eb_pool_tell(eb_work *work, eb_line *line) {
  pthread_mutex_lock(&mutex);
  if (line != NULL) {
    line->next = NULL;
    *work->last_line = line;
    work->last_line = &line->next;
  }
  ring(work);
  pthread_mutex_unlock(&mutex);
}

void eb_pool_arm(eb_work *work, eg_timer *timer, eg_bell *sleeper) {
  pthread_mutex_lock(&mutex);
  work->timer = timer;
  work->sleeper = sleeper;
  hasten(work);
  pthread_mutex_unlock(&mutex);
}

void eb_pool_disarm(eb_work *work) {
  pthread_mutex_lock(&mutex);
  work->timer = NULL;
  work->sleeper = NULL;
  pthread_mutex_unlock(&mutex);
}

/* ------------------------------------------------------------- settings -- */

void eb_pool_stats_read(eb_pool_stats *stats) {
  pthread_once(&once, set_up);
  pthread_mutex_lock(&mutex);
  stats->limit = limit;
  stats->threads = threads;
  stats->busy = running;
  stats->queued = queued;
  stats->lost = lost;
  pthread_mutex_unlock(&mutex);
}

void eb_pool_limit(int n) {
  pthread_once(&once, set_up);
  pthread_mutex_lock(&mutex);
  limit = n;
  pthread_cond_broadcast(&wanted);
  pthread_mutex_unlock(&mutex);
}

void eb_pool_memory(size_t bytes) {
  pthread_mutex_lock(&mutex);
  memory = bytes;
  pthread_mutex_unlock(&mutex);
}

void eb_pool_result(size_t bytes) { atomic_store(&most_result, bytes); }

size_t eb_pool_result_most(void) { return atomic_load(&most_result); }

size_t eb_pool_memory_each(void) {
  pthread_mutex_lock(&mutex);
  size_t each = memory;
  if (each == 0) {
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    each = (size_t)pages * (size_t)size / 4 * 3 / (size_t)limit;
  }
  pthread_mutex_unlock(&mutex);
  return each;
}

void eb_pool_drain(void) {
  pthread_once(&once, set_up);
  pthread_mutex_lock(&mutex);
  drains++;
  pthread_cond_broadcast(&wanted);
  while (threads > running || leaving > 0) {
    pthread_cond_wait(&gone, &mutex);
    drains++; /* those too that have ended a work of meanwhile */
    pthread_cond_broadcast(&wanted);
  }
  pthread_mutex_unlock(&mutex);
}
