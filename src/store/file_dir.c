/* SPDX-License-Identifier: MIT
** The directories that this process has open: one opening each, whatever the
** number of guards, states and threads; and what a fork does to them.
**
** flock belongs to an open file, and SQLite's locks to the process, so there
** must not be two openings of one folder side by side.
**
** FORK.  Before it, all mutexes of this process are taken and its connections
** to databases closed (SQLite's locks would not come along, its notes of them
** would); afterwards they are opened again on need.  The child closes the
** descriptors of lock files, never unlocks, and forgets the opening: its
** handles make a new one at their next use (egi_file_attach).
*/
#include "store/file.h"
#include "store/stop.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static egi_dir *registry;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* ---------------------------------------------------------------- fork -- */

static void before_fork(void) {
  pthread_mutex_lock(&registry_mutex);
  for (egi_dir *dir = registry; dir != NULL; dir = dir->next) {
    pthread_mutex_lock(&dir->db_mutex);
    egi_db_close(dir);
    pthread_mutex_lock(&dir->cache_mutex);
    pthread_mutex_lock(&dir->watch_mutex);
  }
}

static void after_fork_in_parent(void) {
  for (egi_dir *dir = registry; dir != NULL; dir = dir->next) {
    pthread_mutex_unlock(&dir->watch_mutex);
    pthread_mutex_unlock(&dir->cache_mutex);
    pthread_mutex_unlock(&dir->db_mutex);
  }
  pthread_mutex_unlock(&registry_mutex);
}

/* The list of entries of a shard may be in the midst of a change by a thread
** that is not here: descriptors are closed as far as it can be followed. */
static void after_fork_in_child(void) {
  egi_stop_forked();
  for (egi_dir *dir = registry; dir != NULL; dir = dir->next) {
    dir->stale = true;
    egi_lock_forget_all(dir);
    close(dir->side.fd);
    close(dir->fd);
    if (dir->locks_fd >= 0)
      close(dir->locks_fd);
    dir->locks_fd = -1;
    egi_side_close(&dir->side);
    dir->watches = NULL;
    pthread_mutex_unlock(&dir->watch_mutex); /* this thread has them */
    pthread_mutex_unlock(&dir->cache_mutex);
    pthread_mutex_unlock(&dir->db_mutex);
  }
  registry = NULL;
  pthread_mutex_unlock(&registry_mutex);
}

static void prepare(void) {
  pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* ------------------------------------------------------------- opening -- */

static egi_dir *find(const struct stat *st, bool only_locks) {
  egi_dir *dir = registry;
  while (dir != NULL && (dir->dev != st->st_dev || dir->ino != st->st_ino ||
                         dir->options.only_locks != only_locks))
    dir = dir->next;
  return dir;
}

static void init(egi_dir *dir, const egi_file_options *options, int fd,
                 const struct stat *st, const char *path) {
  memset(dir, 0, sizeof *dir);
  dir->options = *options;
  dir->fd = fd;
  dir->locks_fd = -1;
  dir->dev = st->st_dev;
  dir->ino = st->st_ino;
  dir->generation = 1;
  dir->pid = (long)getpid();
  pthread_mutex_init(&dir->db_mutex, NULL);
  pthread_mutex_init(&dir->cache_mutex, NULL);
  pthread_mutex_init(&dir->watch_mutex, NULL);
  if (getrandom(&dir->nonce, sizeof dir->nonce, 0) < 0 || dir->nonce == 0)
    dir->nonce = (uint64_t)getpid() << 32 | (uint64_t)(uintptr_t)dir;
  memcpy(dir->path, path, strlen(path) + 1);
}

static void discard(egi_dir *dir) {
  if (dir->locks_fd >= 0)
    close(dir->locks_fd);
  pthread_mutex_destroy(&dir->db_mutex);
  pthread_mutex_destroy(&dir->cache_mutex);
  pthread_mutex_destroy(&dir->watch_mutex);
  free(dir->cache);
  free(dir);
}

/* Opens what is in a folder that is open. */
static eg_status open_dir(egi_dir *dir, const eg_clock *clock,
                          eg_error *error) {
  eg_status status = EG_OK;
  if (!dir->options.only_locks)
    status = egi_file_subfolder(dir->fd, "locks", &dir->options,
                                &dir->locks_fd, error);
  else if ((dir->locks_fd = fcntl(dir->fd, F_DUPFD_CLOEXEC, 0)) < 0)
    status = egi_file_fail(error, EG_UNAVAILABLE, errno, "cannot open %s: %s",
                           dir->path, strerror(errno));
  if (status == EG_OK)
    status = egi_side_open(dir, clock, error);
  if (status == EG_UNSUPPORTED && !dir->options.only_locks)
    unlinkat(dir->fd, "locks", AT_REMOVEDIR); /* it is empty, or stays */
  return status;
}

static eg_status add(const char *path, const egi_file_options *options,
                     const eg_clock *clock, int fd, const struct stat *st,
                     egi_dir **out, eg_error *error) {
  egi_dir *dir = malloc(sizeof *dir + strlen(path) + 1);
  if (dir == NULL)
    return egi_file_fail(error, EG_NOMEM, ENOMEM,
                         "not enough memory for a folder");
  init(dir, options, fd, st, path);
  eg_status status = open_dir(dir, clock, error);
  if (status != EG_OK) {
    discard(dir);
    return status;
  }
  dir->next = registry;
  registry = dir;
  *out = dir;
  return EG_OK;
}

eg_status egi_dir_get(const char *path, const egi_file_options *options,
                      const eg_clock *clock, egi_dir **out, eg_error *error) {
  char absolute[PATH_MAX];
  struct stat st;
  int fd = -1;
  bool made;
  pthread_once(&once, prepare);
  eg_status status = egi_file_folder(path, options, &fd, absolute, &made,
                                     error);
  if (status != EG_OK)
    return status;
  if (fstat(fd, &st) != 0) {
    close(fd);
    return egi_file_fail(error, EG_UNAVAILABLE, errno, "cannot look at %s: %s",
                         path, strerror(errno));
  }
  pthread_mutex_lock(&registry_mutex);
  egi_dir *dir = find(&st, options->only_locks);
  bool ours = dir == NULL;
  if (ours)
    status = add(absolute, options, clock, fd, &st, &dir, error);
  if (status == EG_OK && dir != NULL) {
    dir->handles++;
    *out = dir;
  }
  pthread_mutex_unlock(&registry_mutex);
  if (!ours || status != EG_OK)
    close(fd);
  if (status == EG_UNSUPPORTED && made)
    rmdir(absolute);
  return status;
}

void egi_dir_put(egi_dir *dir) {
  if (dir->stale) { /* of the parent; what it was made of is shared */
    if (--dir->handles == 0)
      discard(dir);
    return;
  }
  pthread_mutex_lock(&registry_mutex);
  bool last = --dir->handles == 0;
  if (last) {
    egi_dir **link = &registry;
    while (*link != dir)
      link = &(*link)->next;
    *link = dir->next;
    pthread_mutex_lock(&dir->db_mutex);
    egi_db_shorten(dir);
    egi_db_close(dir);
    pthread_mutex_unlock(&dir->db_mutex);
    egi_lock_forget_all(dir);
    egi_side_close(&dir->side);
    close(dir->side.fd);
    close(dir->fd);
    discard(dir);
  }
  pthread_mutex_unlock(&registry_mutex);
}

/* -------------------------------------------------------------- spaces -- */

static egi_space *make_space(egi_dir *dir, const char *name, size_t name_len) {
  egi_space *space = malloc(sizeof *space + name_len);
  if (space == NULL)
    return NULL;
  space->next = dir->spaces;
  space->handles = 0;
  space->name_len = name_len;
  if (name_len > 0)
    memcpy(space->name, name, name_len);
  dir->spaces = space;
  return space;
}

egi_space *egi_space_get(egi_dir *dir, const char *name, size_t name_len) {
  pthread_mutex_lock(&registry_mutex);
  egi_space *space = dir->spaces;
  while (space != NULL && (space->name_len != name_len ||
                           memcmp(space->name, name, name_len) != 0))
    space = space->next;
  if (space == NULL)
    space = make_space(dir, name, name_len);
  if (space != NULL)
    space->handles++;
  pthread_mutex_unlock(&registry_mutex);
  return space;
}

void egi_space_put(egi_dir *dir, const egi_space *space) {
  pthread_mutex_lock(&registry_mutex);
  egi_space **link = &dir->spaces;
  while (*link != NULL && *link != space)
    link = &(*link)->next;
  if (*link != NULL && --(*link)->handles == 0) {
    egi_space *gone = *link;
    *link = gone->next;
    free(gone);
  }
  pthread_mutex_unlock(&registry_mutex);
}

bool egi_dir_stands(const egi_dir *dir) {
  struct stat st;
  return stat(dir->path, &st) == 0 && st.st_dev == dir->dev &&
         st.st_ino == dir->ino;
}
