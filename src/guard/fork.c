/* SPDX-License-Identifier: MIT
** Forking: all locks are taken first, in their order, so that the child finds
** everything whole; there its guards hold nothing of what their parents hold.
**
** THE GATE.  Some locks are too many to be taken, or nobody knows all of them:
** those of lines and bells, and of stores that are just opened or closed.  Who
** takes one of those has passed the gate before, and fork closes it.  Nobody
** passes twice, since one who waits to close it goes first.
*/
#include "guard/guard.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_rwlock_t gate =
    PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

void egi_gate_enter(void) { pthread_rwlock_rdlock(&gate); }

void egi_gate_leave(void) { pthread_rwlock_unlock(&gate); }

/* Those who stood before it are not in the child. */
static void open_anew(void) {
  const pthread_rwlock_t fresh =
      PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
  pthread_rwlock_unlock(&gate);
  gate = fresh;
}

static void before(void) {
  egi_keeper_fork(EGI_FORKING);
  pthread_rwlock_wrlock(&gate);
  egi_attend_fork(EGI_FORKING);
  egi_counting_fork(EGI_FORKING);
  egi_owner_fork(EGI_FORKING);
  egi_sleep_fork(EGI_FORKING);
  egi_test_clock_fork(EGI_FORKING);
  egi_leave_fork(EGI_FORKING);
  egi_trace_fork(EGI_FORKING);
}

static void in_parent(void) {
  egi_trace_fork(EGI_FORKED_PARENT);
  egi_leave_fork(EGI_FORKED_PARENT);
  egi_test_clock_fork(EGI_FORKED_PARENT);
  egi_sleep_fork(EGI_FORKED_PARENT);
  egi_owner_fork(EGI_FORKED_PARENT);
  egi_counting_fork(EGI_FORKED_PARENT);
  egi_attend_fork(EGI_FORKED_PARENT);
  pthread_rwlock_unlock(&gate);
  egi_keeper_fork(EGI_FORKED_PARENT);
}

static void in_child(void) {
  egi_trace_fork(EGI_FORKED_CHILD);
  egi_leave_fork(EGI_FORKED_CHILD);
  egi_test_clock_fork(EGI_FORKED_CHILD);
  egi_sleep_fork(EGI_FORKED_CHILD);
  egi_attend_fork(EGI_FORKED_CHILD);
  open_anew();
  egi_keeper_fork(EGI_FORKED_CHILD);
  egi_counting_fork(EGI_FORKED_CHILD);
  egi_owner_fork(EGI_FORKED_CHILD);
  egi_line_forked();
  egi_timer_forked();
}

static void register_all(void) { pthread_atfork(before, in_parent, in_child); }

void egi_fork_init(void) { pthread_once(&once, register_all); }
