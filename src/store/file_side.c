/* SPDX-License-Identifier: MIT
** The side file: opening it, its clock and counter, its slots.
**
** Who opens it holds its flock meanwhile, so it is made once; that flock is
** also how the file system shows that it can keep two descriptors apart.
*/
#include "store/file.h"
#include "store/stop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static const char magic[8] = "EGside\r\n";
static const char side_name[] = "guard.shm";

enum { SLOTS_AT = (sizeof(egi_side_head) + 4095) / 4096 * 4096 };

#ifdef __GLIBC__
#define LIBC 1
#else
#define LIBC 2
#endif
/* The mutexes are those of the C library. */
#define LAYOUT                                                                \
  (1u | (unsigned)sizeof(pthread_mutex_t) << 8 | (unsigned)LIBC << 24)

static size_t bytes_for(unsigned rows) {
  return SLOTS_AT + (size_t)rows * EGI_SHARDS * sizeof(egi_slot);
}

/* -------------------------------------------------------------- mutexes -- */

static int init_robust(pthread_mutex_t *mutex) {
  pthread_mutexattr_t attr;
  int err = pthread_mutexattr_init(&attr);
  if (err != 0)
    return err;
  pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
  err = pthread_mutex_init(mutex, &attr);
  pthread_mutexattr_destroy(&attr);
  return err;
}

/* ------------------------------------------------------------- numbers -- */

void egi_side_at_least(egi_side_head *head, uint64_t number) {
  uint64_t seen = atomic_load(&head->counter);
  while (seen < number &&
         !atomic_compare_exchange_weak(&head->counter, &seen, number))
    continue;
}

uint64_t egi_side_number(egi_side_head *head, int64_t now_us) {
  uint64_t seen = atomic_load_explicit(&head->counter, memory_order_relaxed);
  uint64_t next;
  do {
    next = seen + 1;
    if (now_us > 0 && (uint64_t)now_us > next &&
        (uint64_t)now_us < EGI_TOKEN_MAX)
      next = (uint64_t)now_us;
  } while (!atomic_compare_exchange_weak(&head->counter, &seen, next));
  return next;
}

/* --------------------------------------------------------------- slots -- */

egi_slot *egi_slot_find(const egi_side *side, unsigned shard, uint64_t hash,
                        uint64_t hash2, unsigned *row) {
  egi_side_head *head = side->head;
  egi_slot *found = NULL;
  unsigned rows = atomic_load_explicit(&head->rows, memory_order_acquire);
  for (unsigned i = 0; i < rows; i++) {
    if (atomic_load_explicit(&head->tags[shard][i], memory_order_relaxed) !=
        hash)
      continue;
    egi_slot *slot = egi_slot_at(side, shard, i);
    if (slot->hash2 != hash2 ||
        (found != NULL && found->version > slot->version))
      continue;
    found = slot;
    *row = i;
  }
  return found;
}

/* A row of slots more for every shard. */
static bool grow(egi_side *side, unsigned rows) {
  egi_side_head *head = side->head;
  bool died;
  if (egi_mutex_lock(&head->grow, &died, NULL) != EG_OK)
    return false;
  unsigned now = atomic_load(&head->rows), more = now + EGI_SLOT_STEP;
  bool ok = now > rows; /* somebody else was faster */
  if (!ok && more <= EGI_SHARD_SLOTS) {
    off_t from = (off_t)bytes_for(now);
    ok = posix_fallocate(side->fd, from, (off_t)bytes_for(more) - from) == 0;
    if (ok)
      atomic_store(&head->rows, more);
  }
  egi_mutex_unlock(&head->grow);
  return ok;
}

int egi_slot_free_row(egi_side *side, unsigned shard) {
  egi_side_head *head = side->head;
  for (;;) {
    unsigned rows = atomic_load(&head->rows);
    for (unsigned i = 0; i < rows; i++)
      if (atomic_load_explicit(&head->tags[shard][i], memory_order_relaxed) ==
          0)
        return (int)i;
    if (!grow(side, rows))
      return -1;
  }
}

uint64_t egi_slot_sum(const egi_slot *slot) {
  uint64_t part[10] = {
      slot->hash2,
      slot->version,
      slot->token,
      slot->base,
      (uint64_t)slot->not_before,
      (uint64_t)slot->fresh,
      (uint64_t)slot->life,
      slot->len,
      (uint64_t)slot->name_len << 32 | slot->key_len,
      XXH3_64bits(slot->bytes, slot->len < EGI_SLOT_BYTES ? slot->len : 0)};
  return XXH3_64bits(part, sizeof part) ^
         XXH3_64bits(slot->text, (size_t)slot->name_len + slot->key_len);
}

/* ------------------------------------------------------------- opening -- */

/* What tells one start of the machine from another.  Where there is no /proc,
** only a clock that went back does.  0 or an errno: a failure is no new start,
** or everybody's grants would end. */
static int read_boot(char boot[40]) {
  memset(boot, 0, 40);
  int fd;
  ssize_t n;
  do
    fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  while (fd < 0 && errno == EINTR);
  if (fd < 0)
    return errno == ENOENT || errno == EACCES ? 0 : errno;
  do
    n = read(fd, boot, 36);
  while (n < 0 && errno == EINTR);
  int err = n < 0 ? errno : n < 36 ? EIO : 0;
  close(fd);
  return err;
}

/* Has the machine started since that was noted? */
static bool is_other_boot(const egi_side_head *head, const char *boot,
                          int64_t steady) {
  if (head->boot[0] != '\0' && boot[0] != '\0')
    return memcmp(head->boot, boot, sizeof head->boot) != 0;
  return steady + head->base_us < atomic_load(&head->last_us);
}

/* The wall time of the last write to the database: the clock of the directory
** never shows less. */
static int64_t last_write(const egi_dir *dir) {
  static const char *const names[] = {"guard.db", "guard.db-wal"};
  int64_t last = 0;
  for (int i = 0; i < 2; i++) {
    struct stat st;
    if (fstatat(dir->fd, names[i], &st, AT_SYMLINK_NOFOLLOW) != 0)
      continue;
    int64_t us = (int64_t)st.st_mtim.tv_sec * 1000000 +
                 st.st_mtim.tv_nsec / 1000 + 1000;
    last = us > last ? us : last;
  }
  return last;
}

/* The machine has started since: nobody holds anything.  A slot that knows
** more than its row, and is whole, stays. */
static void after_boot(egi_dir *dir) {
  egi_side_head *head = dir->side.head;
  unsigned rows = atomic_load(&head->rows);
  for (unsigned shard = 0; shard < EGI_SHARDS; shard++)
    for (unsigned i = 0; i < rows; i++) {
      egi_slot *slot = egi_slot_at(&dir->side, shard, i);
      if (head->tags[shard][i] == 0)
        continue;
      slot->held = 0;
      if (!slot->in_slot || slot->len == 0 || slot->len > EGI_SLOT_BYTES ||
          slot->name_len > EG_NAME_MAX || slot->key_len > EG_KEY_MAX ||
          slot->check != egi_slot_sum(slot))
        egi_slot_publish(&dir->side, shard, i, 0);
      head->shards[shard].suspect = 1;
    }
}

/* Sets up what a start of the machine, or of the directory, begins with. */
static void start(egi_dir *dir, const char *boot, bool fresh, int64_t steady,
                  int64_t wall) {
  egi_side_head *head = dir->side.head;
  int64_t last = last_write(dir), before = atomic_load(&head->last_us);
  bool there = last > 0;
  init_robust(&head->grow);
  init_robust(&head->writer);
  for (int i = 0; i < EGI_SHARDS; i++) {
    init_robust(&head->shards[i].mutex);
    atomic_store(&head->shards[i].waiters, 0);
  }
  if (!fresh)
    after_boot(dir);
  if (fresh || before < 0 || before > INT64_MAX / 4)
    before = 0;
  wall = wall > last ? wall : last;
  wall = wall > before ? wall : before;
  head->base_us = wall - steady;
  if (fresh && getrandom(&head->seed, sizeof head->seed, 0) < 0)
    head->seed = (uint64_t)wall * 0x9E3779B97F4A7C15u;
  atomic_store(&head->has_db, there);
  atomic_store(&head->filtered, !there);
  memset((void *)head->filter, 0, sizeof head->filter);
  egi_side_at_least(head, wall > 0 ? (uint64_t)wall : 1);
  memcpy(head->boot, boot, sizeof head->boot);
}

static eg_status no_room(const egi_dir *dir, int err, eg_error *error) {
  return egi_file_fail(error, EG_UNAVAILABLE, err,
                       "cannot make %s/%s: %s; make room on the disk",
                       dir->path, side_name, strerror(err));
}

/* Makes or checks the file, under its flock. */
static eg_status prepare(egi_dir *dir, const eg_clock *clock,
                         eg_error *error) {
  egi_side *side = &dir->side;
  egi_side_head *head = side->head;
  struct stat st;
  char boot[40];
  int err = read_boot(boot);
  if (err != 0)
    return egi_file_fail(error, EG_UNAVAILABLE, err,
                         "cannot ask when the machine was started: %s",
                         strerror(err));
  if (fstat(side->fd, &st) != 0)
    return no_room(dir, errno, error);
  side->dev = st.st_dev;
  side->ino = st.st_ino;
  int64_t steady = clock->now_us(clock->ctx);
  int64_t wall = steady + clock->offset_us(clock->ctx, steady);
  bool fresh = st.st_size < SLOTS_AT;
  if (!fresh && memcmp(head->magic, magic, sizeof magic) == 0) {
    unsigned rows = atomic_load(&head->rows);
    if (head->layout != LAYOUT)
      return egi_file_fail(error, EG_UNSUPPORTED, 0,
                           "%s/%s was made by another version of this "
                           "library; use one version, or remove it while "
                           "nobody uses the folder",
                           dir->path, side_name);
    fresh = rows == 0 || rows > EGI_SHARD_SLOTS ||
            (size_t)st.st_size < bytes_for(rows);
    if (!fresh && !is_other_boot(head, boot, steady))
      return EG_OK;
  } else {
    fresh = true;
  }
  if (fresh) {
    err = posix_fallocate(side->fd, 0, (off_t)bytes_for(EGI_SLOT_STEP));
    if (err != 0)
      return no_room(dir, err, error);
    memset((void *)head, 0, sizeof *head);
    atomic_store(&head->rows, EGI_SLOT_STEP);
    head->layout = LAYOUT;
  }
  start(dir, boot, fresh, steady, wall);
  memcpy(head->magic, magic, sizeof magic);
  return EG_OK;
}

static eg_status no_flock(const egi_dir *dir, int err, eg_error *error) {
  char system[EGI_SYSTEM_NAME];
  egi_file_system(dir->fd, system);
  return egi_file_fail(error, EG_UNSUPPORTED, err,
                       "flock does not work on %s, where %s is (%s): use a "
                       "folder on a local disk",
                       system, dir->path, strerror(err));
}

/* Has the flock of fd; can a second descriptor have it too? */
static eg_status try_flock(egi_dir *dir, eg_error *error) {
  int second;
  eg_status status = egi_file_open(dir->fd, side_name, O_RDWR, &dir->options,
                                   &second, error);
  if (status != EG_OK)
    return status;
  bool kept_apart = flock(second, LOCK_EX | LOCK_NB) != 0 &&
                    errno == EWOULDBLOCK;
  close(second);
  if (kept_apart)
    return EG_OK;
  char system[EGI_SYSTEM_NAME];
  egi_file_system(dir->fd, system);
  return egi_file_fail(error, EG_UNSUPPORTED, 0,
                       "flock does not keep two descriptors apart on %s, "
                       "where %s is: use a folder on a local disk",
                       system, dir->path);
}

static eg_status map(egi_dir *dir, const eg_clock *clock, eg_error *error) {
  egi_side *side = &dir->side;
  side->size = bytes_for(EGI_SHARD_SLOTS);
  void *at = mmap(NULL, side->size, PROT_READ | PROT_WRITE, MAP_SHARED,
                  side->fd, 0);
  if (at == MAP_FAILED)
    return egi_file_fail(error, EG_NOMEM, errno, "cannot map %s/%s: %s",
                         dir->path, side_name, strerror(errno));
  side->head = at;
  side->slots = (egi_slot *)(void *)((char *)at + SLOTS_AT);
  eg_status status = prepare(dir, clock, error);
  if (status != EG_OK)
    egi_side_close(side);
  return status;
}

static void nap(int ms) {
  struct timespec pause = {0, ms * 1000000L};
  nanosleep(&pause, NULL);
}

/* Takes the flock of who opens.  It is had for some microseconds, once for
** milliseconds: no need to be woken, but for an end of the waiting. */
static eg_status begin(egi_dir *dir, eg_error *error) {
  char who[EGI_BLAME];
  for (int waited_ms = 0, ms = 1; waited_ms < EGI_PATIENCE_MS;
       waited_ms += ms, ms = ms < 16 ? 2 * ms : 16) {
    egi_unstoppable_begin();
    if (flock(dir->side.fd, LOCK_EX | LOCK_NB) == 0)
      return EG_OK;
    int err = errno;
    egi_unstoppable_end();
    if (err != EWOULDBLOCK && err != EINTR)
      return no_flock(dir, err, error);
    nap(ms);
  }
  if (!egi_blame_file(dir->fd, side_name, "FLOCK", who))
    snprintf(who, sizeof who, "another program keeps it locked");
  return egi_file_fail(error, EG_UNAVAILABLE, EWOULDBLOCK,
                       "%s/%s was not to be had for %d seconds: %s", dir->path,
                       side_name, EGI_PATIENCE_MS / 1000, who);
}

eg_status egi_side_open(egi_dir *dir, const eg_clock *clock, eg_error *error) {
  egi_side *side = &dir->side;
  struct stat st;
  eg_status status = egi_file_open(dir->fd, side_name, O_RDWR | O_CREAT,
                                   &dir->options, &side->fd, error);
  if (status != EG_OK)
    return status;
  status = begin(dir, error);
  if (status == EG_OK) {
    status = try_flock(dir, error);
    if (status == EG_OK)
      status = map(dir, clock, error);
    flock(side->fd, LOCK_UN);
    egi_unstoppable_end();
  }
  if (status == EG_UNSUPPORTED && fstat(side->fd, &st) == 0 &&
      st.st_size == 0) /* of no use to anybody here */
    unlinkat(dir->fd, side_name, 0);
  if (status != EG_OK)
    close(side->fd);
  return status;
}

void egi_side_close(egi_side *side) {
  if (side->head != NULL)
    munmap((void *)side->head, side->size);
  side->head = NULL;
}
