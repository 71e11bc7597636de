/* SPDX-License-Identifier: MIT
** The mutexes of the side file, which all processes share: taken within a
** time, and never kept by a process that stops itself.
*/
#include "store/file.h"
#include "store/stop.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* Who wants to stop may do so after each slice of waiting. */
enum { SPINS = 16, SLICE_MS = 100 };

static void pause_a_moment(void) {
  for (int i = 0; i < 32; i++) {
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
  }
}

/* By the clock that mutexes without a name for theirs go by. */
static struct timespec in_ms(int ms) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  at.tv_sec += ms / 1000;
  at.tv_nsec += ms % 1000 * 1000000L;
  at.tv_sec += at.tv_nsec / 1000000000;
  at.tv_nsec %= 1000000000;
  return at;
}

/* ms 0: if nobody has it. */
static int take(pthread_mutex_t *mutex, int ms, bool *died) {
  int err;
  egi_unstoppable_begin();
  if (ms == 0) {
    err = pthread_mutex_trylock(mutex);
  } else {
    struct timespec until = in_ms(ms);
    err = pthread_mutex_timedlock(mutex, &until);
  }
  *died = err == EOWNERDEAD;
  if (err == EOWNERDEAD)
    err = pthread_mutex_consistent(mutex);
  if (err != 0)
    egi_unstoppable_end();
  return err;
}

int egi_mutex_try(pthread_mutex_t *mutex, bool *died) {
  return take(mutex, 0, died);
}

eg_status egi_mutex_lock_within(pthread_mutex_t *mutex, int ms, bool *died,
                                eg_error *error) {
  int err = take(mutex, 0, died);
  /* Who has it, has it for a microsecond or a statement: the one that drops a
  ** lock has it while the kernel already wakes the one that waited. */
  for (int i = 0; err == EBUSY && i < SPINS; i++) {
    pause_a_moment();
    err = take(mutex, 0, died);
  }
  for (int left = ms; left > 0 && (err == EBUSY || err == ETIMEDOUT);
       left -= SLICE_MS)
    err = take(mutex, left < SLICE_MS ? left : SLICE_MS, died);
  if (err == 0)
    return EG_OK;
  if (err != EBUSY && err != ETIMEDOUT)
    return egi_file_fail(error, EG_UNAVAILABLE, err,
                         "guard.shm is damaged: remove it while nobody uses "
                         "the folder (%s)",
                         strerror(err));
  char who[EGI_BLAME];
  egi_blame_mutex(mutex, who);
  return egi_file_fail(error, EG_UNAVAILABLE, err,
                       "the side file was not to be had for %g seconds: %s",
                       ms / 1000.0, who);
}

eg_status egi_mutex_lock(pthread_mutex_t *mutex, bool *died, eg_error *error) {
  return egi_mutex_lock_within(mutex, EGI_PATIENCE_MS, died, error);
}

void egi_mutex_unlock(pthread_mutex_t *mutex) {
  pthread_mutex_unlock(mutex);
  egi_unstoppable_end();
}
