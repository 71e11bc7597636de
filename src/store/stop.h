/* SPDX-License-Identifier: MIT
** Stopping this process (SIGTSTP) between steps, and not in the midst of one
** that others wait for: who is stopped with a shared mutex, or with SQLite's
** lock, keeps all other processes from theirs.
**
** One word says how many threads are in such a step.  Who wants to stop does
** so where nobody is, or leaves it to the one who leaves last:
**
**   n in a step ---- wants to stop ----> n in a step, WANTED
**        |                                    | the last one leaves
**   nobody ----- wants to stop ----> STOPPING, by whoever it is that calls
**        ^-------------------------------- goes on
**
** Steps nest, and while it is STOPPING none begins.  All of it may be called
** in a signal handler.
*/
#ifndef EG_STORE_STOP_H
#define EG_STORE_STOP_H

#include <stdbool.h>

/* Set once, before any store is opened; else nothing is counted. */
extern bool egi_stops_wait;

void egi_step_entered(void);
void egi_step_left(void);

static inline void egi_unstoppable_begin(void) {
  if (egi_stops_wait)
    egi_step_entered();
}

static inline void egi_unstoppable_end(void) {
  if (egi_stops_wait)
    egi_step_left();
}

/* egi_stop_between: calls `call` now, or at the end of a step. */
void egi_stop_between(void (*call)(int), int value);

/* egi_stop_forked: the threads that were in a step are not in the child. */
void egi_stop_forked(void);

#endif
