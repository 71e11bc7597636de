/* SPDX-License-Identifier: MIT
** Lock files: a descriptor a key, its flock, and the line for people.
**
** A descriptor is kept after its lock ended, so that the same key again costs
** two system calls; a few a shard.  Files are never unlinked: who waits for
** one would wait for nothing.  If somebody else unlinks or replaces one, its
** link count says so at the next flock.
*/
#include "store/file.h"
#include "store/holder.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

enum { KEPT_IDLE = 4, TRIES = 5, TRY_NS = 25000 };

/* ------------------------------------------------------------- entries -- */

static bool is_of(const egi_entry *entry, const egi_at *at) {
  return entry->hash == at->hash && entry->hash2 == at->hash2;
}

egi_entry *egi_lock_entry(const egi_at *at) {
  egi_entry *entry = at->dir->entries[at->shard];
  while (entry != NULL && !is_of(entry, at))
    entry = entry->next;
  return entry;
}

static bool idle(const egi_entry *entry) {
  return !entry->held && entry->won == NULL && !entry->leaving;
}

static void close_entry(egi_entry *entry) {
  close(entry->fd);
  if (entry->spare >= 0)
    close(entry->spare);
  free(entry);
}

/* The idle ones that came first go. */
static void trim(egi_dir *dir, unsigned shard) {
  egi_entry **link = &dir->entries[shard];
  for (int n = 0; *link != NULL;) {
    egi_entry *entry = *link;
    if (idle(entry) && ++n > KEPT_IDLE) {
      *link = entry->next;
      close_entry(entry);
    } else {
      link = &entry->next;
    }
  }
}

static eg_status removed(const egi_dir *dir, eg_error *error) {
  return egi_file_fail(error, EG_UNAVAILABLE, ENOENT,
                       "%s was removed or replaced while it was in use: close "
                       "the guard and open it again",
                       dir->path);
}

static eg_status new_entry(egi_at *at, egi_entry **out, eg_error *error) {
  egi_entry *entry = malloc(sizeof *entry + at->key.len);
  if (entry == NULL)
    return egi_file_fail(error, EG_NOMEM, ENOMEM,
                         "not enough memory for a lock");
  memset(entry, 0, sizeof *entry);
  entry->spare = -1;
  char name[EGI_NAME_ROOM];
  egi_file_name(at->name, at->key, name);
  eg_status status = egi_file_open_bare(at->dir->locks_fd, name,
                                        O_RDWR | O_CREAT, &at->dir->options,
                                        &entry->fd, error);
  if (status != EG_OK) {
    free(entry);
    return egi_dir_stands(at->dir) ? status : removed(at->dir, error);
  }
  entry->hash = at->hash;
  entry->hash2 = at->hash2;
  entry->key_len = at->key.len;
  memcpy(entry->key, at->key.data, at->key.len);
  trim(at->dir, at->shard);
  entry->next = at->dir->entries[at->shard];
  at->dir->entries[at->shard] = entry;
  *out = entry;
  return EG_OK;
}

void egi_lock_forget_all(egi_dir *dir) {
  for (int i = 0; i < EGI_SHARDS; i++) {
    egi_entry *entry = dir->entries[i];
    dir->entries[i] = NULL;
    while (entry != NULL) {
      egi_entry *next = entry->next;
      close_entry(entry);
      entry = next;
    }
  }
}

/* --------------------------------------------------------------- files -- */

eg_status egi_lock_open(const egi_at *at, int *fd, eg_error *error) {
  char name[EGI_NAME_ROOM];
  egi_file_name(at->name, at->key, name);
  return egi_file_open(at->dir->locks_fd, name, O_RDWR | O_CREAT,
                       &at->dir->options, fd, error);
}

bool egi_lock_removed(int fd) {
  struct stat st;
  return fstat(fd, &st) != 0 || st.st_nlink == 0;
}

bool egi_lock_replaced(const egi_at *at, int fd) {
  char name[EGI_NAME_ROOM];
  struct stat ours, there;
  egi_file_name(at->name, at->key, name);
  return fstat(fd, &ours) != 0 || ours.st_nlink == 0 ||
         fstatat(at->dir->locks_fd, name, &there, AT_SYMLINK_NOFOLLOW) != 0 ||
         ours.st_dev != there.st_dev || ours.st_ino != there.st_ino;
}

static int try_flock(int fd, int how) {
  int rc;
  do
    rc = flock(fd, how | LOCK_NB);
  while (rc != 0 && errno == EINTR);
  return rc == 0 ? 0 : errno;
}

/* -------------------------------------------------------------- taking -- */

/* What another thread of this process is letting go of is still locked, though
** not for this descriptor. */
static int try_entry(const egi_entry *entry) {
  return entry->leaving ? EWOULDBLOCK : try_flock(entry->fd, LOCK_EX);
}

/* Whoever only looks has a shared lock for a moment, and who has ended a grant
** has his for a moment longer: where no slot names a holder, one refusal is
** not believed. */
static int flock_patiently(const egi_at *at, const egi_entry *entry) {
  int err = try_entry(entry);
  bool named = at->slot != NULL && at->slot->held;
  for (int i = 0; err == EWOULDBLOCK && !named && i < TRIES; i++) {
    struct timespec pause = {0, TRY_NS};
    nanosleep(&pause, NULL);
    err = try_entry(entry);
  }
  return err;
}

static eg_status cannot_lock(eg_error *error, int err) {
  if (err == EWOULDBLOCK)
    return EG_CONFLICT;
  return egi_file_fail(error, err == ENOLCK ? EG_UNAVAILABLE : EG_UNSUPPORTED,
                       err, "cannot lock the key's file: %s", strerror(err));
}

/* The entry leaves its list. */
static void drop_entry(egi_at *at, egi_entry *entry) {
  egi_entry **link = &at->dir->entries[at->shard];
  while (*link != entry)
    link = &(*link)->next;
  *link = entry->next;
  close_entry(entry);
}

/* Ours by a wait, and this thread's to use? */
static bool may_use(const egi_entry *entry) {
  return entry->won_is_loose || pthread_equal(entry->won_by, pthread_self());
}

/* A file that was just opened is looked at once, when its flock is had. */
static eg_status check_fresh(egi_at *at, egi_entry *entry,
                             const struct stat *st, eg_error *error) {
  char name[EGI_NAME_ROOM];
  egi_file_name(at->name, at->key, name);
  eg_status status = egi_file_check(at->dir->locks_fd, name, st, false,
                                    &at->dir->options, error);
  if (status != EG_OK)
    drop_entry(at, entry);
  return status;
}

/* A grant of ours that is over, whose file was replaced: who has the new one
** may hold the key.  The entry stays until the keeper has told of the loss. */
static bool held_in_vain(const egi_at *at, const egi_entry *entry) {
  return entry->held && egi_lock_replaced(at, entry->fd);
}

eg_status egi_lock_take(egi_at *at, egi_entry **out, eg_error *error) {
  for (int i = 0; i < TRIES; i++) {
    struct stat st;
    egi_entry *entry = egi_lock_entry(at);
    eg_status status = EG_OK;
    bool fresh = entry == NULL || held_in_vain(at, entry);
    if (fresh)
      status = new_entry(at, &entry, error);
    if (status != EG_OK)
      return status;
    assert(entry != NULL);
    *out = entry;
    if (entry->won != NULL && !may_use(entry))
      return EG_CONFLICT;
    if (entry->won != NULL || entry->held) /* revoked, but locked still */
      return EG_OK;
    int err = flock_patiently(at, entry);
    if (err != 0)
      return cannot_lock(error, err);
    if (fstat(entry->fd, &st) == 0 && st.st_nlink > 0) {
      if (fresh)
        status = check_fresh(at, entry, &st, error);
      return status;
    }
    drop_entry(at, entry); /* that file is gone: the name leads to another */
  }
  return egi_file_fail(error, EG_UNAVAILABLE, ENOENT,
                       "the key's lock file is removed again and again");
}

static void end_hold(egi_entry *entry) {
  if (entry->held && entry->file != NULL)
    atomic_fetch_sub(&entry->file->holds, 1);
  entry->held = false;
  entry->file = NULL;
  entry->won = NULL;
}

static void unlock(int fd) {
  int rc;
  do
    rc = flock(fd, LOCK_UN);
  while (rc != 0 && errno == EINTR);
}

void egi_lock_drop(egi_at *at, egi_entry *entry) {
  end_hold(entry);
  unlock(entry->fd);
  trim(at->dir, at->shard);
}

/* The kernel may let the one who waits run at once, in our place: he needs the
** shard's mutex first, and would sleep for it. */
void egi_lock_leave(egi_at *at, egi_entry *entry) {
  end_hold(entry);
  entry->leaving = true;
  at->leaving = entry;
  trim(at->dir, at->shard);
}

void egi_lock_let_go(egi_at *at) {
  egi_entry *entry = at->leaving;
  if (entry == NULL)
    return;
  int spare = entry->spare;
  entry->spare = -1;
  unlock(entry->fd);
  atomic_store_explicit(&entry->leaving, false, memory_order_release);
  if (spare >= 0)
    close(spare);
}

/* Another thread has a system call to go until the descriptor is free. */
static void await_leaver(const egi_entry *entry) {
  while (entry->leaving)
    sched_yield();
}

/* A grant of ours whose lock file was replaced: its lock excludes nobody. */
static void lose(egi_at *at, egi_entry *entry) {
  if (entry->file != NULL)
    atomic_fetch_sub(&entry->file->holds, 1);
  entry->held = false;
  entry->file = NULL;
  unsigned row;
  egi_slot *slot = egi_slot_find(&at->dir->side, at->shard, at->hash,
                                 at->hash2, &row);
  if (slot != NULL && slot->process == at->dir->nonce)
    slot->held = 0;
}

bool egi_lock_give(egi_at *at, int fd, egi_watch *watch, bool loose) {
  egi_entry *entry = egi_lock_entry(at);
  if (entry == NULL) {
    entry = malloc(sizeof *entry + at->key.len);
    if (entry == NULL)
      return false;
    memset(entry, 0, sizeof *entry);
    entry->spare = -1;
    entry->hash = at->hash;
    entry->hash2 = at->hash2;
    entry->key_len = at->key.len;
    memcpy(entry->key, at->key.data, at->key.len);
    entry->next = at->dir->entries[at->shard];
    at->dir->entries[at->shard] = entry;
  } else {
    bool locked = entry->held;
    if (locked)
      lose(at, entry);
    await_leaver(entry);
    if (entry->spare >= 0)
      close(entry->spare);
    entry->spare = locked ? -1 : entry->fd; /* who has waited is in a hurry */
    if (locked)
      close(entry->fd);
  }
  entry->fd = fd;
  entry->won = watch;
  entry->won_by = pthread_self();
  entry->won_is_loose = loose;
  return true;
}

/* ------------------------------------------------------------- looking -- */

/* A key's file that need not be there, to look at. */
static int open_to_look(const egi_at *at) {
  char name[EGI_NAME_ROOM];
  int fd;
  egi_file_name(at->name, at->key, name);
  do
    fd = openat(at->dir->locks_fd, name,
                O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  while (fd < 0 && errno == EINTR);
  return fd;
}

bool egi_lock_busy(egi_at *at) {
  egi_entry *entry = egi_lock_entry(at);
  bool kept = entry != NULL;
  if (kept && entry->won != NULL)
    return !may_use(entry);
  if (kept && entry->leaving)
    return false;
  if (kept && entry->held) { /* ours, and over */
    if (!held_in_vain(at, entry))
      return false;
    kept = false;
  }
  if (kept && egi_lock_removed(entry->fd)) {
    drop_entry(at, entry);
    kept = false;
  }
  int fd = kept ? entry->fd : open_to_look(at);
  if (fd < 0)
    return errno != ENOENT; /* who knows? it cannot be taken either */
  int err = try_flock(fd, LOCK_SH);
  if (err == 0 && kept)
    try_flock(fd, LOCK_UN);
  if (!kept)
    close(fd);
  return err == EWOULDBLOCK;
}

/* ---------------------------------------------------------------- line -- */

/* As JSON wants it: quotes and control characters escaped. */
static size_t quote(char *out, size_t room, eg_bytes text) {
  const unsigned char *bytes = text.data;
  size_t n = 0;
  for (size_t i = 0; i < text.len && n + 7 < room; i++)
    if (bytes[i] == '"' || bytes[i] == '\\')
      n += (size_t)snprintf(out + n, room - n, "\\%c", bytes[i]);
    else if (bytes[i] < 0x20)
      n += (size_t)snprintf(out + n, room - n, "\\u%04x", bytes[i]);
    else
      out[n++] = (char)bytes[i];
  out[n] = '\0';
  return n;
}

/* {"pid":1,"host":"a","since":"2026-01-01T00:00:00.000Z","token":1,...} */
static void describe(const egi_slot *slot, char line[EGI_LINE_MAX]) {
  egi_holder holder = {.host = {"", 0}, .text = {"", 0}};
  char since[40], host[140], text[140];
  struct tm tm;
  egi_holder_read((eg_bytes){slot->holder, slot->holder_len}, &holder);
  int64_t us = holder.since_us > 0 ? holder.since_us : slot->since;
  time_t seconds = (time_t)(us / 1000000);
  gmtime_r(&seconds, &tm);
  size_t n = strftime(since, sizeof since, "%Y-%m-%dT%H:%M:%S", &tm);
  snprintf(since + n, sizeof since - n, ".%03dZ", (int)(us / 1000 % 1000));
  quote(host, sizeof host, holder.host);
  quote(text, sizeof text, holder.text);
  int len = snprintf(line, EGI_LINE_MAX,
                     "{\"pid\":%lu,\"host\":\"%s\",\"since\":\"%s\","
                     "\"token\":%llu,\"owner\":\"%s\"}",
                     (unsigned long)slot->pid, host, since,
                     (unsigned long long)slot->token, text);
  size_t used = len < EGI_LINE_MAX - 1 ? (size_t)len : EGI_LINE_MAX - 1;
  memset(line + used, ' ', EGI_LINE_MAX - used);
  line[EGI_LINE_MAX - 1] = '\n';
}

void egi_lock_line(egi_at *at, int fd) {
  char line[EGI_LINE_MAX];
  describe(at->slot, line);
  if (pwrite(fd, line, sizeof line, 0) > 0) /* for people: may fail */
    at->slot->line = 1;
}

/* Of a short hold nobody reads it, and to write and blank it is most of what a
** hand-over would cost. */
void egi_lock_tell(egi_at *at) {
  char name[EGI_NAME_ROOM];
  if (!at->held || at->ours || at->slot == NULL || at->slot->line == 1 ||
      egi_at_now(at) - at->slot->since < EGI_LATE_US)
    return;
  egi_file_name(at->name, at->key, name);
  int fd = openat(at->dir->locks_fd, name,
                  O_WRONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0)
    return;
  egi_lock_line(at, fd);
  close(fd);
}

void egi_lock_blank(egi_slot *slot, int fd) {
  if (slot->line != 0 && pwrite(fd, "\n", 1, 0) == 1)
    slot->line = 0;
}
