/* SPDX-License-Identifier: MIT
** What those who wait for a key consist of, and how they stand in line.
*/
#ifndef EG_GUARD_WAIT_H
#define EG_GUARD_WAIT_H

#include "guard/bell.h"

typedef enum egi_phase {
  EGI_FOR_FREE, /* for the key to be free: one after the other */
  EGI_FOR_END,  /* for the end of a run that was joined: all together */
  EGI_PHASES
} egi_phase;

/* Those who wait for one key; lives in one of them. */
typedef struct egi_line {
  struct egi_line *next; /* in the bucket */
  uint64_t hash;
  const eg_pending *whose;
  eg_pending *first[EGI_PHASES], *last[EGI_PHASES];
} egi_line;

struct eg_pending {
  egi_step step; /* its guard is NULL once that was closed */
  eg_policy policy;
  eg_env env;
  egi_buffer buffer; /* of the step */
  unsigned char small[EGI_PEEK_ROOM];
  unsigned char key[EG_KEY_MAX];
  egi_event_type asked;
  bool waits[EGI_PHASES]; /* is there time for that phase? */
  bool began;             /* its caller has gone on meanwhile */
  bool blocks;            /* its thread does nothing else meanwhile */
  int64_t since_us;
  int64_t until_us[EGI_PHASES]; /* deadlines */
  eg_bell *bell;
  eg_call call;
  uint64_t traced;  /* its number in a trace; 0: in none */
  egi_watch *watch; /* the owner's thread's alone; NULL: none (yet) */
  int fd;
  eg_error failure;
  /* From here on: guarded by the line's lock. */
  egi_phase phase;
  bool in_line, done;
  bool adrift;      /* a fork put it out of its line: it stands in again */
  eg_status status; /* the last refusal; done: the outcome */
  int64_t due_us;   /* look again by then */
  const void *space;
  uint64_t hash;
  eg_pending *next, *prev;         /* in line */
  eg_pending *all_next, *all_prev; /* in the bucket */
  egi_line line;
};

/* ---- line.c ---- */

/* The mutex of its bucket, behind the gate. */
void egi_line_lock(const eg_pending *p);
void egi_line_unlock(const eg_pending *p);

/* With that mutex: to the end of its line; out of it; is it the one whose turn
** it is (in a phase for all together, everybody)? */
void egi_line_join(eg_pending *p);
void egi_line_leave(eg_pending *p);
bool egi_line_has_turn(const eg_pending *p);

/* With that mutex: known from here on, in line or not; known no more. */
void egi_line_enter(eg_pending *p);
void egi_line_exit(eg_pending *p);

/* Says who it is that waits: fills space and hash. */
void egi_line_locate(eg_pending *p);

/* The key of p may be free, and whose turn it is has to know.  With the
** mutex. */
void egi_line_serve(const eg_pending *p);

/* ---- wait.c ---- */

/* Looks at the key for a waiter in line, in any thread: true when that was the
** end of its wait.  With the mutex. */
bool egi_wait_look(eg_pending *p);

/* Ends a wait: out of the line, and its owner is told.  With the mutex. */
void egi_wait_finish(eg_pending *p, eg_status status);

/* Its guard is being closed: whatever it waits for or was granted is gone.
** With the mutex. */
void egi_wait_orphan(eg_pending *p);

/* In the child of a fork: it looks again, and whatever it was granted is its
** parent's. */
void egi_wait_forked(eg_pending *p);

#endif
