/* SPDX-License-Identifier: MIT
** Calls of one guard in memory, in nanoseconds: cycle CALLS
**
** Compiled twice, with the library as it is and with one from which something
** is left out; prints "lock" and "cached".
*/
#include "executionguard.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static eg_guard *guard;
static eg_reply reply;

static double now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void must(eg_status status, eg_status wanted) {
  if (status == wanted)
    return;
  fprintf(stderr, "cycle: %s\n", eg_status_word(status));
  exit(1);
}

static void lock(eg_bytes key) {
  eg_grant grant;
  must(eg_acquire(guard, key, EG_WANT_LOCK, NULL, 0, &grant, &reply), EG_OK);
  must(eg_release(guard, key, grant.token, NULL), EG_OK);
}

static void cached(eg_bytes key) {
  eg_grant grant;
  must(eg_acquire(guard, key, EG_WANT_RUN, NULL, 0, &grant, &reply),
       EG_CACHED);
}

static void run(eg_bytes key) {
  eg_outcome outcome = {.status = EG_OK, .kind = EG_KIND_OPAQUE};
  eg_grant grant;
  must(eg_acquire(guard, key, EG_WANT_RUN, NULL, 0, &grant, &reply), EG_OK);
  must(eg_commit(guard, key, &grant, &outcome, NULL, NULL), EG_OK);
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The median of turns that are short against a time slice. */
static void measure(const char *name, void (*call)(eg_bytes), const char *key,
                    long calls) {
  enum { TURNS = 101 };
  double turns[TURNS];
  long each = calls / TURNS;
  eg_bytes bytes = eg_str(key);
  for (int t = 0; t < TURNS; t++) {
    double start = now_ns();
    for (long i = 0; i < each; i++)
      call(bytes);
    turns[t] = (now_ns() - start) / (double)each;
  }
  qsort(turns, TURNS, sizeof *turns, by_size);
  printf("%s %.3f\n", name, turns[TURNS / 2]);
}

int main(int argc, char **argv) {
  long calls = argc > 1 ? atol(argv[1]) : 0;
  if (calls < 1000)
    return 2;
  must(eg_open(NULL, &guard, NULL), EG_OK);
  eg_reply_init(&reply);
  run(eg_str("done"));
  measure("lock", lock, "lock", calls);
  measure("cached", cached, "done", calls);
  eg_reply_free(&reply);
  eg_close(guard);
  return 0;
}
