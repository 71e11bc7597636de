/* SPDX-License-Identifier: MIT
** SIGKILL at random moments: processes contend for ten keys, and whoever holds
** one is killed again and again.  Never two at once, the next start comes at
** once, the database stays whole, and no record that was committed is lost.
**
** Real processes and real time: nothing else can be killed.  The short form
** kills 60 times; TORTURE=1000 is the long one (make torture).
*/
#include "faults.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KEYS = 10, WORKERS = 5, LATE_US = 50000 };

/* What all of them write to. */
typedef struct board {
  _Atomic int flags[16];
  _Atomic int stop;
  _Atomic pid_t inside[KEYS]; /* who is at work; 0: nobody */
  _Atomic pid_t doomed;       /* is being killed */
  _Atomic int two, errors, starts;
  _Atomic uint32_t committed[KEYS];
  _Atomic uint64_t token[KEYS];
  char why[240];
} board;

static uint32_t dice(uint32_t *seed, uint32_t sides) {
  *seed = *seed * 1664525u + 1013904223u;
  return (*seed >> 8) % sides;
}

static void fault(board *b, const char *what) {
  if (atomic_fetch_add(&b->errors, 1) == 0)
    snprintf(b->why, sizeof b->why, "%s", what);
}

/* The dead cannot sign off. */
static bool alive(board *b, pid_t pid) {
  return pid != atomic_load(&b->doomed) && kill(pid, 0) == 0;
}

static void work(board *b, trouble *t, int key, uint32_t us) {
  pid_t me = getpid();
  pid_t before = atomic_exchange(&b->inside[key], me);
  if (before != 0 && before != me && alive(b, before))
    atomic_fetch_add(&b->two, 1);
  if (t->grant.token <= atomic_load(&b->token[key]))
    fault(b, "a token did not rise");
  atomic_store(&b->token[key], t->grant.token);
  atomic_fetch_add(&b->starts, 1);
  usleep(us);
  pid_t mine = me;
  if (!atomic_compare_exchange_strong(&b->inside[key], &mine, 0))
    atomic_fetch_add(&b->two, 1);
}

/* Says what became of a grant that could not be ended. */
static void lost(board *b, trouble *t, const char *name, bool lock,
                 eg_status status) {
  char text[200];
  uint64_t token = t->grant.token;
  if (EG_IS_FAILURE(status) || status == EG_UNCOMMITTED) {
    fault(b, t->error.message);
    return;
  }
  trouble_fetch(t, name);
  snprintf(text, sizeof text,
           "the %s of %s is %s: %s, status %d, token %lld (%lld was granted), "
           "of pid %ld (me: %ld)",
           lock ? "lock" : "run", name, eg_status_word(status),
           t->record.locked ? "held" : "free", (int)t->record.status,
           (long long)t->record.token, (long long)token,
           (long)t->record.owner.pid, (long)getpid());
  fault(b, text);
}

static int contend(trouble *t) {
  board *b = t->shared;
  uint32_t seed = (uint32_t)getpid() * 2654435761u;
  t->policy.allow_rerun = true;
  while (!atomic_load(&b->stop)) {
    char name[16];
    int key = (int)dice(&seed, KEYS);
    snprintf(name, sizeof name, "key %d", key);
    bool lock = dice(&seed, 3) == 0;
    eg_status status = trouble_ask(t, t->guard, name,
                                   lock ? EG_WANT_LOCK : EG_WANT_RUN, 50);
    if (EG_IS_FAILURE(status))
      fault(b, t->reply.failure.message);
    if (status != EG_OK)
      continue;
    work(b, t, key, dice(&seed, 800));
    status = lock ? eg_release(t->guard, eg_str(name), 0, &t->error)
                  : trouble_finish(t, t->guard, name);
    if (status != EG_OK)
      lost(b, t, name, lock, status);
    else if (!lock)
      atomic_fetch_add(&b->committed[key], 1);
  }
  return 0;
}

/* Somebody who is at work, or anybody. */
static int victim(board *b, const pid_t *workers, uint32_t *seed) {
  for (int i = 0; i < 200; i++) {
    pid_t pid = atomic_load(&b->inside[dice(seed, KEYS)]);
    for (int w = 0; w < WORKERS; w++)
      if (workers[w] == pid)
        return w;
  }
  return (int)dice(seed, WORKERS);
}

/* How long until somebody else starts on the key that was held. */
static int64_t next_start(trouble *t, int key) {
  char name[16];
  int64_t from = trouble_now_us();
  snprintf(name, sizeof name, "key %d", key);
  while (trouble_ask(t, t->guard, name, EG_WANT_LOCK, 1000) != EG_OK)
    if (trouble_now_us() - from > 60000000)
      return -1;
  int64_t took = trouble_now_us() - from;
  eg_release(t->guard, eg_str(name), 0, NULL);
  return took;
}

static void holders_that_are_killed_free_their_keys(void **state) {
  trouble *t = *state;
  board *b = t->shared;
  pid_t workers[WORKERS];
  uint32_t seed = 20260101;
  const char *text = getenv("TORTURE");
  int kills = text != NULL ? atoi(text) : trouble_scaled(60), late = 0;
  for (int i = 0; i < WORKERS; i++)
    workers[i] = trouble_child(t, contend);
  for (int i = 0; i < kills; i++) {
    usleep(2000 + dice(&seed, 8000));
    int w = victim(b, workers, &seed);
    atomic_store(&b->doomed, workers[w]);
    kill(workers[w], SIGKILL);
    trouble_wait(workers[w]);
    for (int key = 0; key < KEYS; key++)
      if (atomic_load(&b->inside[key]) == workers[w]) {
        pid_t dead = workers[w];
        atomic_compare_exchange_strong(&b->inside[key], &dead, 0);
        int64_t took = next_start(t, key);
        assert_true(took >= 0);
        late += took > LATE_US;
      }
    workers[w] = trouble_child(t, contend);
  }
  atomic_store(&b->stop, 1);
  for (int i = 0; i < WORKERS; i++)
    assert_int_equal(trouble_wait(workers[i]), 0);
  if (b->errors > 0)
    fail_msg("%d errors, the first: %s", b->errors, b->why);
  assert_int_equal(b->two, 0);
  /* Being quick is asked for where somebody looks: others share a machine. */
  assert_true(text == NULL || late <= kills / 20 + 1);
  assert_true(b->starts > 0);
}

static void records_survive_the_killing(void **state) {
  trouble *t = *state;
  board *b = t->shared;
  pid_t workers[WORKERS];
  uint32_t seed = 7;
  for (int i = 0; i < WORKERS; i++)
    workers[i] = trouble_child(t, contend);
  for (int i = 0; i < trouble_scaled(30); i++) {
    usleep(2000 + dice(&seed, 5000));
    int w = (int)dice(&seed, WORKERS);
    kill(workers[w], SIGKILL);
    trouble_wait(workers[w]);
    workers[w] = trouble_child(t, contend);
  }
  for (int i = 0; i < WORKERS; i++) {
    kill(workers[i], SIGKILL); /* all, and nobody closes the database */
    trouble_wait(workers[i]);
  }
  for (int key = 0; key < KEYS; key++) {
    char name[16];
    snprintf(name, sizeof name, "key %d", key);
    eg_status status = trouble_fetch(t, name);
    assert_true(status == EG_OK || status == EG_NOTFOUND);
    assert_false(t->record.locked);
    assert_true(t->record.count >= atomic_load(&b->committed[key]));
  }
  assert_int_equal(trouble_shell(t, "test \"$(sqlite3 guard.db 'pragma "
                                    "integrity_check')\" = ok"),
                   0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TROUBLE(holders_that_are_killed_free_their_keys),
      TROUBLE(records_survive_the_killing),
  };
  alarm(600);
  return cmocka_run_group_tests_name("torture", tests, NULL, NULL);
}
