/* SPDX-License-Identifier: MIT
** What the programs have in common that measure a store on a server beside the
** same requests by hand, on the same server (servers.c).
*/
#ifndef BENCH_SERVERS_H
#define BENCH_SERVERS_H

#include <stddef.h>

#include "executionguard.h"

/* The way by hand.  Turns are counted by who calls. */
typedef struct peer {
  const char *name;           /* of the store, for messages */
  void (*lock)(int calls);    /* acquire and release */
  void (*get)(int calls);     /* what a cached run is measured against */
  void (*command)(int calls); /* a slow way to lock; NULL: none */
  const char *command_name;   /* of its figures; NULL: prints its own */
  void (*hold)(void);         /* before a hand-over; NULL: nothing */
  void (*pass)(void);         /* what it begins with */
  void *(*come)(void);        /* who waits, on a thread of its own */
  void (*wait)(void *who);    /* until it has it */
  void (*leave)(void *who);   /* gives it back; NULL: nothing */
} peer;

double now_ns(void);
void die(const char *name, const char *what) __attribute__((noreturn));

/* Measures the store at url beside its peer: "name figure" lines, one of each
** name a round, in nanoseconds a turn; in each round every way is timed,
** forward or backward.  At the end, with `held` locks held, what it takes to
** renew them: CPU in per cent of a core. */
void measure_store(const char *url, const peer *raw, int rounds, int calls,
                   int held);

#endif
