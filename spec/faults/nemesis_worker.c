/* SPDX-License-Identifier: MIT
** One of the nemesis' processes: random runs and locks, and a history of them.
**
** A line of the history is one write(2), made before a call and after it, so
** that one who is killed has told what it was about to do.
*/
#include "nemesis.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct worker {
  nemesis_board *board;
  const nemesis_store *store;
  int number, life;
  int file;
  unsigned values; /* that it has made */
  uint32_t seed;
  eg_guard *guard;
  eg_policy policy;
  eg_grant grant;
  eg_reply reply;
  char key[32];
  const char *kind;
} worker;

int64_t nemesis_now_us(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

uint32_t nemesis_dice(uint32_t *seed, uint32_t sides) {
  *seed = *seed * 1664525u + 1013904223u;
  return (*seed >> 8) % sides;
}

static uint32_t dice(worker *w, uint32_t sides) {
  return nemesis_dice(&w->seed, sides);
}

/* ------------------------------------------------------------ its clock -- */

/* The machine's, but for the wall time, which somebody sets by an hour. */
static int64_t now_us(void *ctx) {
  (void)ctx;
  return nemesis_now_us();
}

static int64_t offset_us(void *ctx, int64_t now) {
  const eg_clock *machine = eg_system_clock();
  return machine->offset_us(machine->ctx, now) +
         atomic_load((_Atomic int64_t *)ctx);
}

static int wait_for(void *ctx, pthread_cond_t *cond, pthread_mutex_t *mutex,
                    int64_t deadline_us) {
  const eg_clock *machine = eg_system_clock();
  (void)ctx;
  return machine->wait(machine->ctx, cond, mutex, deadline_us);
}

static void wake(void *ctx, pthread_cond_t *cond) {
  const eg_clock *machine = eg_system_clock();
  (void)ctx;
  machine->wake(machine->ctx, cond);
}

/* Of every other worker: the others have the machine's own. */
static void take_clock(nemesis_board *board, int number) {
  static eg_clock clock;
  clock = (eg_clock){(void *)&board->step_us[number],
                     now_us,
                     now_us,
                     offset_us,
                     wait_for,
                     wake};
  if (number % 2 == 1)
    eg_set_clock(&clock);
}

/* ---------------------------------------------------------- the history -- */

__attribute__((format(printf, 3, 4))) static void
tell(worker *w, const char *event, const char *format, ...) {
  char line[512];
  int n = snprintf(line, sizeof line, "%s\t%d.%d\t", event, w->number,
                   w->life);
  va_list args;
  va_start(args, format);
  n += vsnprintf(line + n, sizeof line - (size_t)n, format, args);
  va_end(args);
  line[n++] = '\n';
  if (write(w->file, line, (size_t)n) != n)
    _exit(97);
}

/* A value, as MessagePack has texts: the run's own, with its token. */
static eg_bytes make_value(worker *w, char *room, const char **text) {
  int n = snprintf(room + 2, 100, "%d.%d-%u@%llu", w->number, w->life,
                   w->values++, (unsigned long long)w->grant.token);
  room[0] = (char)0xd9;
  room[1] = (char)n;
  *text = room + 2;
  return (eg_bytes){room, (size_t)n + 2};
}

static void tell_read(worker *w, int64_t asked, eg_kind kind, eg_bytes value) {
  char text[128] = "-";
  if (kind == EG_KIND_VALUE && value.len > 2 && value.len < sizeof text) {
    memcpy(text, (const char *)value.data + 2, value.len - 2);
    text[value.len - 2] = '\0';
  }
  const char *at = strchr(text, '@');
  tell(w, "read", "%s\t%lld\t%lld\t%s\t%s", w->key, (long long)asked,
       (long long)nemesis_now_us(), text, at != NULL ? at + 1 : "-");
}

/* ------------------------------------------------------------- the work -- */

static void read_one(worker *w) {
  eg_record record;
  int64_t asked = nemesis_now_us();
  eg_status status = eg_fetch(w->guard, eg_str(w->key), &record, NULL);
  if (status == EG_OK || status == EG_NOTFOUND)
    tell_read(w, asked, record.kind, record.value);
  eg_record_free(&record);
}

static void close_guard(worker *w) {
  tell(w, "closing", "%lld", (long long)nemesis_now_us());
  eg_close(w->guard);
  w->guard = NULL;
}

/* One try to end the grant. */
static eg_status end_once(worker *w, const char *what,
                          const eg_outcome *outcome, const char *text) {
  int64_t asked = nemesis_now_us();
  unsigned long long token = w->grant.token;
  tell(w, "ending", "%s\t%llu\t%lld\t%s\t%s", w->key, token, (long long)asked,
       what, text);
  eg_status status = outcome == NULL
                         ? eg_release(w->guard, eg_str(w->key), w->grant.token,
                                      NULL)
                         : eg_commit(w->guard, eg_str(w->key), &w->grant,
                                     outcome, &w->policy, NULL);
  tell(w, "ended", "%s\t%llu\t%lld\t%lld\t%s", w->key, token, (long long)asked,
       (long long)nemesis_now_us(), eg_status_word(status));
  return status;
}

/* Until it is known how it ended, or nobody knows for too long: then all that
** is held ends with the guard. */
static void end_grant(worker *w) {
  char room[128];
  const char *text = "-", *what = "release";
  eg_outcome outcome = {.status = EG_OK, .kind = EG_KIND_VALUE};
  if (w->grant.want == EG_WANT_RUN) {
    outcome.value = make_value(w, room, &text);
    what = "commit";
    if (dice(w, 8) == 0) {
      outcome = (eg_outcome){.status = EG_FAILED, .error = eg_str("so be it")};
      text = "-";
      what = "fail";
    }
  }
  for (int i = 0; i < 5; i++) {
    eg_status status = end_once(
        w, what, w->grant.want == EG_WANT_RUN ? &outcome : NULL, text);
    if (status == EG_OK || status == EG_LOST)
      return;
    usleep(20000);
  }
  close_guard(w);
}

/* It is at work, and looks now and then whether the grant is still its own. */
static void hold(worker *w) {
  uint32_t looks = 1 + dice(w, 4), nap_us = dice(w, 8000);
  if (dice(w, 40) == 0) /* long, so that it has to be renewed */
    nap_us = (uint32_t)w->store->lease_ms * 1000 / 2;
  for (uint32_t i = 0; i < looks && !atomic_load(&w->board->stop); i++) {
    const char *event = dice(w, 3) == 0 ? "held" : "believed";
    int64_t asked = nemesis_now_us();
    bool mine = *event == 'h'
                    ? eg_holds(w->guard, eg_str(w->key), w->grant.token)
                    : eg_believes(w->guard, eg_str(w->key), w->grant.token);
    if (mine)
      tell(w, event, "%s\t%llu\t%lld\t%lld", w->key,
           (unsigned long long)w->grant.token, (long long)asked,
           (long long)nemesis_now_us());
    usleep(nap_us);
  }
}

/* A key, and what is to be done with it. */
static eg_want choose(worker *w) {
  uint32_t key = dice(w, NEMESIS_KEYS);
  w->policy = (eg_policy)EG_POLICY_DEFAULT;
  w->policy.max_hold_ms = dice(w, 10) == 0 ? w->store->lease_ms * 5 / 4 : 0;
  if (dice(w, 3) == 0) {
    int64_t us = nemesis_now_us() - w->board->start_us;
    snprintf(w->key, sizeof w->key, "once-%u-%u", key,
             (unsigned)(us / NEMESIS_ONCE_US));
    w->kind = "once";
    return EG_WANT_RUN;
  }
  snprintf(w->key, sizeof w->key, "key-%u", key);
  w->kind = dice(w, 2) == 0 ? "lock" : "rerun";
  w->policy.allow_rerun = true;
  return *w->kind == 'l' ? EG_WANT_LOCK : EG_WANT_RUN;
}

static void turn(worker *w) {
  eg_want want = choose(w);
  if (dice(w, 4) == 0) {
    read_one(w);
    return;
  }
  int64_t asked = nemesis_now_us(), wait_ms = dice(w, 2) * dice(w, 200);
  eg_status status = eg_acquire(w->guard, eg_str(w->key), want, &w->policy,
                                wait_ms, &w->grant, &w->reply);
  if (status == EG_CACHED)
    tell_read(w, asked, w->reply.kind, w->reply.value);
  if (status != EG_OK) {
    usleep(dice(w, 3000));
    return;
  }
  tell(w, "granted", "%s\t%s\t%lld\t%lld\t%llu\t%lld", w->key, w->kind,
       (long long)asked, (long long)nemesis_now_us(),
       (unsigned long long)w->grant.token,
       (long long)w->store->lease_ms * 1000);
  hold(w);
  if (dice(w, 60) == 0)
    close_guard(w); /* with what it holds */
  else
    end_grant(w);
}

static void begin(worker *w, nemesis_board *board, const nemesis_store *store,
                  int number, int life) {
  char path[128];
  memset(w, 0, sizeof *w);
  w->board = board;
  w->store = store;
  w->number = number;
  w->life = life;
  w->seed = (uint32_t)getpid() * 2654435761u;
  eg_reply_init(&w->reply);
  take_clock(board, number);
  snprintf(path, sizeof path, "%s/%d.%d.history", board->dir, number, life);
  w->file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (w->file < 0)
    _exit(96);
}

eg_guard *nemesis_open(nemesis_board *board, const nemesis_store *store,
                       int number, eg_error *error) {
  char url[256];
  eg_guard *guard = NULL;
  snprintf(url, sizeof url, store->url, board->ports[number]);
  size_t n = strlen(url);
  snprintf(url + n, sizeof url - n, "%stimeout=%.3g&lease=%.3g",
           strchr(url, '?') != NULL ? "&" : "?", store->lease_ms * 0.0008,
           store->lease_ms * 0.001);
  eg_options options = {.store = url, .name = "nemesis"};
  return eg_open(&options, &guard, error) == EG_OK ? guard : NULL;
}

void nemesis_work(nemesis_board *board, const nemesis_store *store, int number,
                  int life) {
  static worker w;
  begin(&w, board, store, number, life);
  while (!atomic_load(&board->stop)) {
    eg_error error;
    if (w.guard == NULL)
      w.guard = nemesis_open(board, store, number, &error);
    if (w.guard == NULL)
      usleep(20000);
    else
      turn(&w);
  }
  if (w.guard != NULL)
    close_guard(&w);
  eg_reply_free(&w.reply);
  _exit(0);
}

void nemesis_read_all(nemesis_board *board, const nemesis_store *store) {
  static worker w;
  eg_error error;
  begin(&w, board, store, NEMESIS_READER, 0);
  w.guard = nemesis_open(board, store, NEMESIS_READER, &error);
  if (w.guard == NULL)
    _exit(95);
  int64_t us = nemesis_now_us() - board->start_us;
  for (unsigned key = 0; key < NEMESIS_KEYS; key++) {
    snprintf(w.key, sizeof w.key, "key-%u", key);
    read_one(&w);
    for (unsigned i = 0; i <= us / NEMESIS_ONCE_US; i++) {
      snprintf(w.key, sizeof w.key, "once-%u-%u", key, i);
      read_one(&w);
    }
  }
  eg_close(w.guard);
  _exit(0);
}
