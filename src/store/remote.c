/* SPDX-License-Identifier: MIT
** Errors, deadlines and pauses of the stores that are reached over a
** connection.
*/
#include "store/remote.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

eg_status egi_remote_fail(eg_error *error, eg_status status, int os_errno,
                          const char *format, ...) {
  if (error == NULL)
    return status;
  va_list args;
  error->status = status;
  error->os_errno = os_errno;
  va_start(args, format);
  vsnprintf(error->message, sizeof error->message, format, args);
  va_end(args);
  return status;
}

void egi_remote_warn(const eg_env *env, const char *format, ...) {
  char message[240];
  va_list args;
  if (env->log == NULL)
    return;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  env->log(env->log_ud, EG_LOG_WARN, message, (eg_bytes){"", 0});
}

int64_t egi_real_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t egi_real_deadline(const eg_env *env, int64_t deadline_us,
                          int64_t limit_us) {
  int64_t left = limit_us;
  if (deadline_us != EG_FOREVER) {
    int64_t given = deadline_us - env->clock->now_us(env->clock->ctx);
    if (given < left)
      left = given > 0 ? given : 0;
  }
  return egi_real_us() + left;
}

int64_t egi_backoff_us(unsigned nth) {
  enum { FIRST_US = 4000, DOUBLINGS = 6 };
  uint32_t dice = 0;
  int64_t us = (int64_t)FIRST_US << (nth < DOUBLINGS ? nth : DOUBLINGS);
  if (getrandom(&dice, sizeof dice, GRND_NONBLOCK) != sizeof dice)
    dice = (uint32_t)egi_real_us();
  return us - (int64_t)(dice % (uint32_t)(us / 2));
}

struct timespec egi_timespec(int64_t us) {
  struct timespec time = {us / 1000000, us % 1000000 * 1000};
  return time;
}

void egi_remote_sleep_us(int64_t us) {
  struct timespec time = egi_timespec(us);
  if (us > 0)
    nanosleep(&time, NULL);
}

void egi_wipe(void *data, size_t size) { explicit_bzero(data, size); }

/* A try that begins with no time left for the answer would turn a clear "not
** applied" into a doubt. */
static eg_status rest(unsigned nth, int64_t until_us) {
  enum { ANSWER_US = 20000 };
  int64_t us = egi_backoff_us(nth);
  if (us + ANSWER_US > until_us - egi_real_us())
    return EG_UNAVAILABLE;
  egi_remote_sleep_us(us);
  return EGI_AGAIN;
}

eg_status egi_remote_ask(eg_status (*once)(void *ctx, unsigned nth), void *ctx,
                         unsigned turns, bool hasty, int64_t until_us) {
  unsigned made = 0, rests = 0;
  eg_status status = EGI_AGAIN;
  while (status == EGI_AGAIN && made < turns + rests) {
    status = once(ctx, made++ - rests);
    if (status == EGI_LATER && hasty && rests > 0)
      status = EG_UNAVAILABLE;
    if (status == EGI_LATER)
      status = rest(rests++, until_us);
  }
  return status;
}
