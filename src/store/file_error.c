/* SPDX-License-Identifier: MIT
** Filling the caller's eg_error, for the file store.
*/
#include "store/file.h"

#include <stdarg.h>
#include <stdio.h>

eg_status egi_file_fail(eg_error *error, eg_status status, int os_errno,
                        const char *format, ...) {
  if (error == NULL)
    return status;
  va_list args;
  va_start(args, format);
  error->status = status;
  error->os_errno = os_errno;
  vsnprintf(error->message, sizeof error->message, format, args);
  va_end(args);
  return status;
}
