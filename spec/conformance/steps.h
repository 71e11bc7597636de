/* SPDX-License-Identifier: MIT
** A step on a key in both of the guard's ways: by apply, and by a loop over
** load and swap, with one decide callback for both.
*/
#ifndef SPEC_STEPS_H
#define SPEC_STEPS_H

#include "world.h"

/* BY_APPLY: decide at once under the lock; BY_GLANCE: look without it first
** (the hint `writes`). */
typedef enum way { BY_LOOP, BY_APPLY, BY_GLANCE } way;

/* OK: decided, and done; CHANGED: decide said GROW; or a failure.  now_us may
** be EGI_NO_TIME.  UNSUPPORTED: the store has no apply. */
eg_status step_run(world *w, way by, const char *key, egi_decide_fn decide,
                   void *ctx, int64_t now_us, uint64_t *token);

/* An event of the core, done on a key. */
typedef struct job {
  egi_event event;
  eg_policy policy;
  eg_status outcome;
  int64_t left_us;
  uint64_t token; /* of the latest grant, after it */
  egi_sight sight;
  eg_run run;
  bool crashed, absent;
  eg_kind kind;
  uint32_t count;
  char error[64];
  unsigned char buf[512];
  bool corrupt;
} job;

/* Does an event and returns its outcome; EG_INTERNAL where a store or the
** bytes in it failed. */
eg_status job_run(world *w, way by, const char *key, job *j);

/* The usual ones. */
eg_status job_acquire(world *w, way by, egi_event_type type, job *j);
eg_status job_commit(world *w, way by, uint64_t token, eg_status status,
                     job *j);
eg_status job_do(world *w, way by, egi_event_type type, job *j);

#endif
