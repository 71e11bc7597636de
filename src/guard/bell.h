/* SPDX-License-Identifier: MIT
** What a bell is made of, for those who keep one on their stack.
*/
#ifndef EG_GUARD_BELL_H
#define EG_GUARD_BELL_H

#include "guard/guard.h"

#include <sys/types.h>

struct eg_bell {
  eg_env env;
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  eg_call *first, **last; /* those that rang, the earliest first */
  bool rung;
  unsigned stirred, stirring;      /* calls, and what marks them as such */
  int poll_fd, event_fd, alarm_fd; /* -1: none was needed yet */
  pid_t pid;                       /* whose they are */
  int watched;                     /* descriptors; the owner's alone */
};

/* 0 or an errno. */
int egi_bell_init(eg_bell *bell, const eg_env *env);
void egi_bell_destroy(eg_bell *bell);

/* eg_bell_ring for who has passed the gate. */
void egi_bell_ring(eg_bell *bell, eg_call *call);

/* The same, where something else may still be about to say more by a
** descriptor: clocks that jump wait for it, until the call is forgotten. */
void egi_bell_stir(eg_bell *bell, eg_call *call);

/* In the child of a fork: whoever is inside of it is gone, and what it watches
** is the parent's. */
void egi_bell_forked(eg_bell *bell);

#endif
