/* SPDX-License-Identifier: MIT
** A wall clock that is moved by hand, for a real server under test: preloaded
** into it, this answers what time it is from a file.
**
** HANDCLOCK names a file of 8 bytes: microseconds since the epoch.  The steady
** clocks are left alone, so that the server's own timers go on.
*/
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *now_us;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("HANDCLOCK");
  int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (fd < 0)
    return;
  void *at = mmap(NULL, sizeof *now_us, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (at != MAP_FAILED)
    now_us = at;
}

int clock_gettime(clockid_t id, struct timespec *at) {
  if (now_us == NULL || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE))
    return (int)syscall(SYS_clock_gettime, id, at);
  int64_t us = *now_us;
  at->tv_sec = us / 1000000;
  at->tv_nsec = us % 1000000 * 1000;
  return 0;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec time;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &time);
  at->tv_sec = time.tv_sec;
  at->tv_usec = time.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  if (out != NULL)
    *out = at.tv_sec;
  return at.tv_sec;
}
