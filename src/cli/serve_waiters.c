/* SPDX-License-Identifier: MIT
** How many processes wait for a key of a store in files: they wait in flock,
** and the kernel lists who does.
*/
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/serve.h"

void ec_waiters_open(ec_waiters *waiters, const ec_options *options) {
  char dir[4200], path[4300];
  const char *url = ec_store_url(options);
  *waiters = (ec_waiters){.dir = -1, .name = options->name};
  if (url == NULL || !ec_file_dir(url, dir, sizeof dir))
    return;
  snprintf(path, sizeof path, "%s/locks", dir);
  waiters->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static bool note(ec_waiters *waiters, uint64_t inode) {
  if (waiters->count == waiters->room) {
    size_t room = waiters->room > 0 ? waiters->room * 2 : 16;
    uint64_t *inodes = realloc(waiters->inodes, room * sizeof *inodes);
    if (inodes == NULL)
      return false;
    waiters->inodes = inodes;
    waiters->room = room;
  }
  waiters->inodes[waiters->count++] = inode;
  return true;
}

void ec_waiters_look(ec_waiters *waiters) {
  char line[256];
  uint64_t inode;
  bool waits;
  waiters->count = 0;
  FILE *locks = waiters->dir >= 0 ? fopen("/proc/locks", "re") : NULL;
  if (locks == NULL)
    return;
  while (fgets(line, sizeof line, locks) != NULL)
    if (ec_read_flock(line, &inode, &waits) && waits && !note(waiters, inode))
      break;
  fclose(locks);
}

uint32_t ec_waiters_of(const ec_waiters *waiters, eg_bytes key) {
  char file[EG_LOCK_FILE_MAX];
  struct stat st;
  uint32_t n = 0;
  if (waiters->count == 0 || eg_lock_file(waiters->name, key, file) == 0 ||
      fstatat(waiters->dir, file, &st, 0) != 0)
    return 0;
  for (size_t i = 0; i < waiters->count; i++)
    n += waiters->inodes[i] == (uint64_t)st.st_ino;
  return n;
}

void ec_waiters_close(ec_waiters *waiters) {
  if (waiters->dir >= 0)
    close(waiters->dir);
  free(waiters->inodes);
  *waiters = (ec_waiters){.dir = -1};
}
