/* SPDX-License-Identifier: MIT
** Filling the caller's eg_error.
*/
#include "guard/guard.h"

#include <stdarg.h>
#include <stdio.h>

static void fill(eg_error *error, eg_status status, int os_errno,
                 const char *format, va_list args) {
  error->status = status;
  error->os_errno = os_errno;
  vsnprintf(error->message, sizeof error->message, format, args);
}

eg_status egi_fail(eg_error *error, eg_status status, const char *format,
                   ...) {
  if (error != NULL) {
    va_list args;
    va_start(args, format);
    fill(error, status, 0, format, args);
    va_end(args);
  }
  return status;
}

eg_status egi_fail_errno(eg_error *error, eg_status status, int os_errno,
                         const char *format, ...) {
  if (error != NULL) {
    va_list args;
    va_start(args, format);
    fill(error, status, os_errno, format, args);
    va_end(args);
  }
  return status;
}
