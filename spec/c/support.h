/* SPDX-License-Identifier: MIT
** What the tests of the guard share: a world with one guard, a clock that is
** moved by hand, an allocator that counts, and threads that cannot hang.
*/
#ifndef SPEC_SUPPORT_H
#define SPEC_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "guard/guard.h"

#include <cmocka.h>

#define MS INT64_C(1000)
#define SECOND INT64_C(1000000)

/* ---- the world of one test ---- */

typedef struct spec_world {
  bool by_loop; /* over swap, as a store without `apply` */
  eg_guard *guard;
  char name[64]; /* of its namespace, which no other test uses */
  eg_env env;
  eg_policy policy;
  eg_grant grant;
  eg_reply reply;
  eg_error error;
  eg_record record;
} spec_world;

/* Set-up and tear-down of a test: a guard on a named namespace, by the clock
** that is moved by hand.  The initial state says which way. */
int spec_begin(void **state);
int spec_end(void **state);

extern char spec_apply[], spec_loop[];

#define ONE_WAY(test)                                                         \
  { #test, test, spec_begin, spec_end, spec_apply }
#define BOTH_WAYS(test)                                                       \
  {#test " by apply", test, spec_begin, spec_end, spec_apply}, {              \
#test " by loop", test, spec_begin, spec_end, spec_loop                   \
  }

/* One more guard on the world's namespace; the caller closes it. */
eg_guard *spec_another(spec_world *w, uint32_t state);

/* Opens a guard that goes the world's way. */
eg_status spec_open(const spec_world *w, const eg_options *options,
                    eg_guard **guard, eg_error *error);

/* Divides a count by EXECUTIONGUARD_SPEC_SCALE; at least 1. */
int spec_scaled(int count);

/* ---- verbs, by the world's guard, policy and reply ---- */

eg_status spec_ask(spec_world *w, const char *key, eg_want want);
eg_status spec_wait(spec_world *w, const char *key, eg_want want,
                    int64_t wait_ms);
/* Commits the world's grant. */
eg_status spec_finish(spec_world *w, const char *key, eg_outcome outcome);
/* A whole run: granted and committed as OK. */
void spec_run(spec_world *w, const char *key, eg_outcome outcome);
eg_status spec_fetch(spec_world *w, const char *key);
eg_status spec_release(spec_world *w, const char *key);
eg_status spec_reset(spec_world *w, const char *key);

/* Outcomes. */
eg_outcome spec_done(void); /* with the value 42 */
eg_outcome spec_done_with(eg_bytes value);
eg_outcome spec_failed(const char *text);
eg_outcome spec_late(void);

/* A MessagePack string of n bytes in all (n >= 5), in memory of the test. */
eg_bytes spec_large(size_t n);

bool spec_is(eg_bytes bytes, const char *text);

/* Writes bytes that are no record, past the guard. */
void spec_spoil(spec_world *w, const char *key, const char *bytes, size_t n);

/* ---- the clock: eg_test_clock, which also counts who sleeps ---- */

extern const eg_clock spec_clock;
void spec_advance_ms(int64_t ms);

/* Until so many threads sleep on the clock.  False: they never came. */
bool spec_await_sleepers(int n);

/* ---- threads ---- */

typedef struct spec_thread {
  pthread_t id;
  void (*body)(void *arg);
  void *arg;
} spec_thread;

void spec_start(spec_thread *thread, void (*body)(void *), void *arg);

/* Ends the program if the thread has not ended within two minutes. */
void spec_join(spec_thread *thread);

/* The thread sanitizer loses count of threads ("dup thread with used id") in a
** child that starts some where its parent had others: such tests say that they
** are skipped under it. */
#ifdef __SANITIZE_THREAD__
#define SPEC_FORKS_THREADS() skip()
#else
#define SPEC_FORKS_THREADS() (void)0
#endif

/* Polls a condition that must come.  False: it did not, for a long time. */
bool spec_comes(bool (*holds)(void *), void *ctx);

/* One eg_acquire in a thread of its own.  Fill guard, key, want, policy and
** wait_ms first; `then` (or NULL) is called when it was granted. */
typedef struct spec_caller {
  eg_guard *guard;
  const char *key;
  eg_want want;
  eg_status status;
  eg_policy policy;
  int64_t wait_ms;
  void (*then)(struct spec_caller *caller);
  void *ctx;
  eg_grant grant;
  eg_reply reply;
  spec_thread thread;
} spec_caller;

spec_caller spec_caller_of(eg_guard *guard, const char *key, eg_want want,
                           int64_t wait_ms);
void spec_call(spec_caller *caller);
eg_status spec_called(spec_caller *caller);
/* A `then` that gives the lock back. */
void spec_give_back(spec_caller *caller);

/* ---- the allocator ---- */

typedef struct spec_memory {
  _Atomic long blocks, calls, fail_at; /* fail_at: 0: never */
  _Atomic int failures;
  _Atomic int misused; /* a block came back with another size */
} spec_memory;

/* For eg_env.alloc, with a spec_memory as its ud. */
void *spec_alloc(void *ud, void *ptr, size_t osize, size_t nsize);

#endif
