/* SPDX-License-Identifier: MIT
** The meaning of the guard, written out by hand from the design: the rows.
**
** A condition is a set of bits; 0 stands for any.  An expectation is a set of
** what is allowed; 0 stands for: it does not matter.  The first row whose
** conditions all hold is the one that counts.
*/
#ifndef SPEC_TRANSITION_ROWS_H
#define SPEC_TRANSITION_ROWS_H

#include <stddef.h>

enum { NO = 1, YES = 2 };

/* What is written of the work. */
enum {
  ABSENT = 1,
  IDLE = 2,
  RUNNING = 4,
  COMPLETED = 8,
  TIMEDOUT = 16,
  FAILED = 32,
  CRASHED = 64 /* Failed, and marked so */
};

/* The result that is kept. */
enum { K_NONE = 1, K_VALUE = 2, K_OPAQUE = 4, KEPT = K_VALUE | K_OPAQUE };

enum {
  RUN = 1,
  LOCK = 2,
  JOIN = 4,
  DONE = 8,   /* commit of a success */
  ERROR = 16, /* commit of a failure */
  LATE = 32,  /* commit of a run that took too long */
  RELEASE = 64,
  RESET = 128,
  CLEAR = 256,
  FETCH = 512,
  REVOKE = 1024,
  COMMIT = DONE | ERROR | LATE
};

/* The token that the event names, against that of the latest grant. */
enum { SAME = 1, OLDER = 2, ANY_MINE = 4 };

/* fresh and notBefore. */
enum { UNSET = 1, LEFT = 2, OVER = 4 };

/* Verdicts, writes and holds, as sets. */
enum { V_NONE = 1, V_SWAP = 2, V_NOW = 4 };
enum { W_LEAVE = 1, W_FORGET = 2, W_PUT = 4 };
enum { H_KEEP = 1, H_TAKE = 2, H_DROP = 4, H_BREAK = 8 };

/* How long a COOLDOWN or FAILED still lasts. */
enum { L_UNKNOWN = 1, L_BEFORE = 2, L_FRESH = 4 };

/* The kind of result that stays. */
enum { STAYS = 1, GONE = 2, OF_EVENT = 4 };

/* Durations of the swap. */
enum {
  LEAVE = 1,
  ZERO = 2,
  LEASE = 4,
  LOCK_AT_LEAST = 8,
  RESULT_TTL = 16,
  ERROR_TTL = 32,
  RECORD_TTL = 64,
  LONGER = 128 /* the cooldown, if what is left of notBefore is shorter */
};

typedef struct row {
  const char *name;
  /* conditions */
  unsigned event, status, kind, held, token, mine, timed, clocked, fresh,
      before, rerun, cache, block;
  /* expectations */
  unsigned verdict;
  int outcome;
  unsigned left;
  unsigned write, hold, names, wake, new_result, to, result;
  unsigned not_before, fresh_for, lease, life;
} row;

extern const row transition_rows[];
extern const size_t transition_row_count;

#endif
