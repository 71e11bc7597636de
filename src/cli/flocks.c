/* SPDX-License-Identifier: MIT
** The kernel's list of flocks, /proc/locks: who has one, and who waits.
*/
#include <inttypes.h>
#include <string.h>

#include "cli/cli.h"

/* 12: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF
** 12: -> FLOCK  ADVISORY  WRITE 4712 08:01:1234 0 EOF
** 12:  -> FLOCK  ADVISORY  WRITE 4713 08:01:1234 0 EOF      behind that one
** The device is not compared: on some file systems it is another one there
** than stat says. */
bool ec_read_flock(const char *line, uint64_t *inode, bool *waits) {
  const char *at = strchr(line, ':');
  if (at == NULL)
    return false;
  at += 1 + strspn(at + 1, " ");
  *waits = strncmp(at, "->", 2) == 0;
  return sscanf(at + (*waits ? 2 : 0), " FLOCK %*s %*s %*d %*x:%*x:%" SCNu64,
                inode) == 1;
}

int ec_count_waiters(FILE *locks, uint64_t inode) {
  char line[256];
  uint64_t number;
  bool waits;
  int n = -1;
  rewind(locks);
  while (fgets(line, sizeof line, locks) != NULL)
    if (ec_read_flock(line, &number, &waits) && number == inode)
      n = (n < 0 ? 0 : n) + waits;
  return n;
}
