/* SPDX-License-Identifier: MIT
** Filling the caller's eg_error, for the file store.
*/
#include "store/file.h"

#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

const char *egi_file_named(int dir, const char *name, char text[EGI_NAMED]) {
  char full[PATH_MAX], link[32];
  size_t room = EGI_NAMED - sizeof "..." - strlen("/") - strlen(name);
  if (dir == AT_FDCWD || *name == '/' || strlen(name) > EGI_NAMED / 2)
    return name;
  snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
  ssize_t n = readlink(link, full, sizeof full - 1);
  if (n < 0)
    return name;
  full[n] = '\0';
  size_t cut = (size_t)n > room ? (size_t)n - room : 0;
  snprintf(text, EGI_NAMED, "%s%.*s/%s", cut > 0 ? "..." : "", (int)room,
           full + cut, name);
  return text;
}
