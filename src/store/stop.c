/* SPDX-License-Identifier: MIT
** When this process may be stopped; stop.h has the picture.
*/
#include "store/stop.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

#define STOPPING 0x80000000u
#define WANTED 0x40000000u

bool egi_stops_wait;

static _Atomic unsigned word;
static void (*_Atomic wanted)(int);
static _Atomic int wanted_value;

/* The word says STOPPING, by this thread. */
static void stop_now(void) {
  void (*call)(int) = atomic_load(&wanted);
  call(atomic_load(&wanted_value));
  atomic_store(&word, 0);
}

void egi_step_entered(void) {
  unsigned seen = atomic_load(&word);
  for (;;) {
    if (seen & STOPPING) { /* another thread; and so is this one, soon */
      struct timespec pause = {0, 100000};
      int kept = errno;
      nanosleep(&pause, NULL);
      errno = kept;
      seen = atomic_load(&word);
    } else if (atomic_compare_exchange_weak(&word, &seen, seen + 1)) {
      return;
    }
  }
}

/* A signal may come between the two, and find nobody inside. */
void egi_step_left(void) {
  unsigned last = WANTED;
  if (atomic_fetch_sub(&word, 1) != (WANTED | 1))
    return;
  int kept = errno;
  if (atomic_compare_exchange_strong(&word, &last, STOPPING))
    stop_now();
  errno = kept;
}

void egi_stop_between(void (*call)(int), int value) {
  unsigned seen = atomic_load(&word);
  if (seen & STOPPING)
    return; /* it is being stopped */
  atomic_store(&wanted, call);
  atomic_store(&wanted_value, value);
  for (;;) {
    bool nobody = (seen & ~WANTED) == 0;
    unsigned next = nobody ? STOPPING : seen | WANTED;
    if (seen & STOPPING)
      return;
    if (!atomic_compare_exchange_weak(&word, &seen, next))
      continue;
    if (nobody)
      stop_now();
    return;
  }
}

void egi_stop_forked(void) { atomic_store(&word, 0); }
