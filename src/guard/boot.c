/* SPDX-License-Identifier: MIT
** Waking up after the machine has slept: conditions wait by a clock that
** stands still then, while leases elsewhere run out.  A thread waits for the
** earliest of them by a timer that counts on, and rings.
*/
#include "guard/guard.h"

#ifdef __linux__

#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* All under attending, but that the thread reads fd. */
static atomic_int fd = -1;
static bool running;
static int64_t set_us = EG_FOREVER;

/* All zero: the timer is off. */
static void set(int64_t us) {
  struct itimerspec at = {{0, 0}, {0, 0}};
  set_us = us;
  if (us != EG_FOREVER) {
    at.it_value.tv_sec = us / 1000000;
    at.it_value.tv_nsec = us % 1000000 * 1000;
  }
  timerfd_settime(fd, TFD_TIMER_ABSTIME, &at, NULL);
}

/* The timer may be set again while this reads it. */
static void *watch(void *arg) {
  (void)arg;
  uint64_t times;
  for (;;) {
    ssize_t n = read(fd, &times, sizeof times);
    if (n < 0 && errno != EINTR)
      return NULL;
    egi_keeper_ring();
    egi_attend_boot();
  }
}

void egi_boot_expect(int64_t boot_us) {
  if (boot_us >= set_us)
    return;
  if (fd < 0)
    fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC);
  if (fd < 0)
    return;
  set(boot_us);
  if (!running)
    running = egi_thread_start(NULL, watch, NULL);
}

void egi_boot_next(int64_t boot_us) { set(boot_us); }

/* The descriptor is the parent's: to set it would be to set his. */
void egi_boot_forked(void) {
  if (fd >= 0)
    close(fd);
  fd = -1;
  running = false;
  set_us = EG_FOREVER;
}

#else

void egi_boot_expect(int64_t boot_us) { (void)boot_us; }

void egi_boot_next(int64_t boot_us) { (void)boot_us; }

void egi_boot_forked(void) {}

#endif
