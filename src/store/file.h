/* SPDX-License-Identifier: MIT
** What the files of the file store share: directories, handles, places.
**
** A key's exclusion is a flock on its lock file.  What is known of it is in
** two places: a slot of the side file (file_side.h) while it is held, and for
** as long as the slot knows more than the database; else a row of guard.db.
**
**   version   the larger of slot's and row's; one counter makes all of them,
**             so whatever was written last wins, also when its writer was
**             killed between the two
**   bytes     the slot's, if it has them (`in_slot`): a run that has just
**             begun; else the row's
**   held      the slot says so, its token is not older than the row's, and
**             the flock stands: by our own descriptor, or by a look at it
**
** LOCKING
**
**   1. Keys are spread over shards.  All of a key, its slot, its row and its
**      descriptors (egi_entry), is read and changed with the mutex of its
**      shard held.  That mutex is in the side file, robust, and shared by
**      all threads of all processes.
**   2. dir->db_mutex guards this process's connection to the database.
**      db->writer, robust and shared, lets one process write at a time.
**   3. dir->cache_mutex guards the cache of rows, and the wal-index header.
**   4. dir->watch_mutex guards the list of watches; a watch has a mutex.
**   5. registry_mutex (file_dir.c) guards the list of directories and their
**      counts of handles; a handle's mutex its list of history.
**   6. Order: registry, shard, db_mutex, writer, cache, watch_mutex, watch.
**   7. Nobody waits for a flock with one of these held, and none is held while
**      a visitor is called.  With a shard's, decide, the allocator and the
**      clock are called.
**
** TIME
**
** All times that are kept count on the directory's clock: the machine's steady
** one plus a number that is set when the machine starts (file_side.c).  It
** runs evenly whatever is done to the wall clock, and over a restart it does
** not go back.
*/
#ifndef EG_STORE_FILE_H
#define EG_STORE_FILE_H

#include "store/file_side.h"

#include <sys/stat.h>

typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;
typedef struct egi_dir egi_dir;
typedef struct egi_file egi_file;

/* What the URL says. */
typedef struct egi_file_options {
  bool only_locks;   /* locks=.: the lock folder is DIR itself, no records */
  bool full;         /* sync=full */
  unsigned mode;     /* of DIR: 0700 */
  long history_rows; /* history=N: how many ended runs are kept */
} egi_file_options;

/* A lock file that this process has open. */
typedef struct egi_entry {
  struct egi_entry *next;
  uint64_t hash, hash2;
  uint64_t token; /* of the grant, while held */
  egi_file *file; /* whose grant */
  int fd;
  int spare; /* the one before, to be closed when there is time; -1: none */
  bool held;
  egi_watch *won;      /* waited for it and got it; no grant yet */
  pthread_t won_by;    /* the thread that may make a grant of it */
  bool won_is_loose;   /* any thread may: wait() has not returned yet */
  atomic_bool leaving; /* its grant has ended, its flock is about to */
  size_t key_len;
  unsigned char key[];
} egi_entry;

enum { EGI_CACHE_ROWS = 4096, EGI_CACHE_BYTES = 240 };

/* A row that was read, as long as the wal-index header is what it was. */
typedef struct egi_cached {
  uint64_t hash, hash2, generation; /* 0: none */
  uint64_t version, token;
  int64_t stamp;
  uint32_t len;
  unsigned char bytes[EGI_CACHE_BYTES];
} egi_cached;

enum {
  EGI_SQL_GET,
  EGI_SQL_LOOK,
  EGI_SQL_PUT,
  EGI_SQL_TOUCH,
  EGI_SQL_DELETE,
  EGI_SQL_PAGE,
  EGI_SQL_COUNT
};

typedef struct egi_db {
  sqlite3 *handle;
  sqlite3_stmt *statements[EGI_SQL_COUNT];
  dev_t dev;
  ino_t ino;       /* of guard.db when it was opened */
  bool synced;     /* synchronous is FULL now */
  uint32_t number; /* of `database` in the side file, when it was opened */
} egi_db;

/* One ended run that is not written yet. */
typedef struct egi_ended {
  struct egi_ended *next;
  size_t size;
  uint64_t token;
  int64_t start_us, duration_us;
  eg_run status;
  bool exited;
  int exit_status;
  eg_bytes key, owner, error; /* in what follows */
} egi_ended;

/* The handles of one name on a directory show the same keys. */
typedef struct egi_space {
  struct egi_space *next;
  unsigned handles;
  size_t name_len;
  char name[];
} egi_space;

struct egi_dir {
  egi_dir *next; /* in the registry */
  unsigned handles;
  egi_space *spaces; /* the registry's mutex guards it */
  bool stale;        /* of before a fork: nothing of it is ours */
  dev_t dev;
  ino_t ino;
  egi_file_options options;
  int fd, locks_fd;
  uint64_t nonce; /* of this opening: who wrote a slot */
  long pid;
  egi_side side;
  egi_entry *entries[EGI_SHARDS];
  pthread_mutex_t db_mutex;
  egi_db db;
  pthread_mutex_t cache_mutex;
  const volatile unsigned char *header; /* wal-index, 48 bytes; or NULL */
  uint64_t generation;                  /* of the header that is in `mark` */
  uint64_t mark[6];
  egi_cached *cache;
  pthread_mutex_t watch_mutex;
  egi_watch *_Atomic watches;
  char path[]; /* absolute */
};

struct egi_file {
  egi_store base;
  eg_env env;
  egi_dir *dir;
  egi_file_options options;
  size_t size; /* of the block that begins here */
  pthread_mutex_t mutex;
  egi_ended *ended, **ended_end;
  _Atomic unsigned ended_count;
  _Atomic uint32_t holds;
  size_t name_len; /* of the namespace; 0: none */
  const char *name;
  const char *path; /* as it was given */
  unsigned added;   /* to what is counted; under db_mutex, as these: */
  size_t swept_len; /* how far the counts have been looked through */
  unsigned char swept[EG_KEY_MAX];
};

/* Of a time that is not set. */
#define EGI_UNSET INT64_MAX

/* A key, and what was found there. */
typedef struct egi_at {
  egi_file *file;
  egi_dir *dir;
  eg_bytes name, key;
  uint64_t hash, hash2;
  unsigned shard;
  int64_t now;    /* steady, of the handle's clock */
  egi_slot *slot; /* NULL: none */
  unsigned row;   /* its number in the shard */
  /* what there is: */
  uint64_t base; /* version of the row; 0: there is none */
  uint64_t version, token;
  size_t len; /* of the bytes */
  bool in_slot;
  bool held;
  bool ours;    /* and by this process */
  bool unknown; /* held, but not by a grant: flock(1), or revoked */
  int64_t stamp, lease, not_before, fresh, life;
  unsigned progress;      /* as in egi_sight */
  eg_bytes bytes, holder; /* bytes only if they were wanted */
  bool marked;            /* mark is of the row that was read */
  uint64_t mark[6];
  egi_entry *leaving; /* to be let go of after the mutex */
  void *heap;
  size_t heap_size;
  unsigned char small[512];
} egi_at;

enum { EGI_WANT_BYTES = 1, EGI_WANT_PROBE = 2 };

/* What is to be written down of a key. */
typedef struct egi_after {
  uint64_t version, token;
  int64_t stamp, not_before, fresh, life;
  eg_bytes bytes;
  bool leave; /* the bytes of the row stay */
  bool durable;
} egi_after;

/* ------------------------------------------------------- file_error.c -- */

eg_status egi_file_fail(eg_error *error, eg_status status, int os_errno,
                        const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* For messages: what is opened in a folder is named with it, by its end where
** that is long, since a message has 240 bytes and its reason comes last. */
#define EGI_NAMED 121
const char *egi_file_named(int dir, const char *name, char text[EGI_NAMED]);

/* ------------------------------------------------------ file_blame.c -- */

/* "process 4711 (eguard) has it", and what to do if that was stopped. */
enum { EGI_BLAME = 160 };
void egi_blame_mutex(const pthread_mutex_t *mutex, char text[EGI_BLAME]);

/* egi_blame_file: who has a lock of that kind ("POSIX", "FLOCK") to write a
** file.  False: nobody is known. */
bool egi_blame_file(int dir, const char *name, const char *kind,
                    char text[EGI_BLAME]);

/* --------------------------------------------------- file_path.c, _key -- */

/* egi_file_folder: opens DIR, made with its parents if need be, and checks
** it.  absolute: room for PATH_MAX. */
eg_status egi_file_folder(const char *path, const egi_file_options *options,
                          int *fd, char *absolute, bool *made,
                          eg_error *error);

/* egi_file_system: what an open file is on, for people: "ext4". */
enum { EGI_SYSTEM_NAME = 32 };
void egi_file_system(int fd, char name[EGI_SYSTEM_NAME]);

/* egi_file_subfolder: the same of a folder inside. */
void egi_file_close_fd(int fd);
eg_status egi_file_subfolder(int dir, const char *name,
                             const egi_file_options *options, int *fd,
                             eg_error *error);

/* egi_file_open: opens a file of ours, made if `flags` has O_CREAT, and checks
** it. */
eg_status egi_file_open(int dir, const char *name, int flags,
                        const egi_file_options *options, int *fd,
                        eg_error *error);

/* egi_file_open_bare: the same, to be checked by the caller. */
eg_status egi_file_open_bare(int dir, const char *name, int flags,
                             const egi_file_options *options, int *fd,
                             eg_error *error);

/* egi_file_check: is it ours, and nobody else's to write? */
eg_status egi_file_check(int dir, const char *name, const struct stat *st,
                         bool folder, const egi_file_options *options,
                         eg_error *error);

/* egi_file_name: the name of a key's file in the lock folder, in that of its
** namespace where there is one; egi_file_part: of a namespace's folder. */
enum { EGI_PART_ROOM = 216, EGI_NAME_ROOM = 2 * EGI_PART_ROOM };
void egi_file_name(eg_bytes name, eg_bytes key, char *out);
size_t egi_file_part(eg_bytes text, const char *suffix, char *out);

/* egi_file_sum: by which a row knows the bytes that were written to it. */
int64_t egi_file_sum(eg_bytes name, eg_bytes key, eg_bytes bytes);

/* No MessagePack begins so. */
#define EGI_UNREADABLE 0xc1

/* egi_file_hash: what a key is known by in the side file. */
void egi_file_hash(uint64_t seed, eg_bytes name, eg_bytes key,
                   uint64_t hash[2]);

/* -------------------------------------------------------- file_url.c -- */

eg_status egi_file_url(const egi_url *url, egi_file_options *options,
                       char *path, size_t size, eg_error *error);

/* -------------------------------------------------------- file_dir.c -- */

/* egi_dir_get: this process's opening of a directory, one handle more. */
eg_status egi_dir_get(const char *path, const egi_file_options *options,
                      const eg_clock *clock, egi_dir **dir, eg_error *error);
void egi_dir_put(egi_dir *dir);

/* egi_space_get: what the handles of a name have in common.  NULL: no memory.
*/
egi_space *egi_space_get(egi_dir *dir, const char *name, size_t name_len);
void egi_space_put(egi_dir *dir, const egi_space *space);

/* egi_dir_stands: is DIR still where it was?  By path. */
bool egi_dir_stands(const egi_dir *dir);

/* ------------------------------------------------------- file_lock.c -- */

/* egi_lock_take: the flock of a key for this process.  OK: it has it;
** CONFLICT: somebody else does. */
eg_status egi_lock_take(egi_at *at, egi_entry **entry, eg_error *error);
void egi_lock_drop(egi_at *at, egi_entry *entry);

/* egi_lock_leave: the same, but for the flock: that is let go of by
** egi_lock_let_go, without the shard's mutex. */
void egi_lock_leave(egi_at *at, egi_entry *entry);
void egi_lock_let_go(egi_at *at);
egi_entry *egi_lock_entry(const egi_at *at);
void egi_lock_forget_all(egi_dir *dir);

/* egi_lock_give: the flock that fd has is the entry's from now on, for a grant
** to come.  False: no memory. */
bool egi_lock_give(egi_at *at, int fd, egi_watch *watch, bool loose);

/* egi_lock_busy: does anybody have the flock? */
bool egi_lock_busy(egi_at *at);

/* egi_lock_open: one more descriptor of the key's file, close-on-exec. */
eg_status egi_lock_open(const egi_at *at, int *fd, eg_error *error);

/* egi_lock_removed: has that file no name any more? */
bool egi_lock_removed(int fd);

/* egi_lock_replaced: is that no longer the file that the name leads to? */
bool egi_lock_replaced(const egi_at *at, int fd);

/* The line for people: written where it is not, blanked where it is.  After
** that long, by the holder's keeper, or by who meets the grant. */
enum { EGI_LATE_US = 10000 };
void egi_lock_line(egi_at *at, int fd);
void egi_lock_tell(egi_at *at);
void egi_lock_blank(egi_slot *slot, int fd);

/* ------------------------------------------------------- file_line.c -- */

/* egi_lock_holder: who may have a lock that another process has, as an owner
** line; room is for EGI_HOLDER_MAX. */
eg_bytes egi_lock_holder(const egi_at *at, unsigned char *room);

/* --------------------------------------------------------- file_db.c -- */

extern const char egi_db_schema[];
int egi_db_set_up(egi_dir *dir, int *version); /* a code of SQLite */
eg_status egi_db_get(egi_at *at, bool bytes, eg_error *error);
/* CONFLICT: the row has another version than at->base. */
int egi_db_statement(egi_dir *dir, int which, sqlite3_stmt **s); /* code */
eg_status egi_db_put(egi_at *at, const egi_after *after, eg_error *error);
eg_status egi_db_delete(egi_at *at, eg_error *error);
void egi_db_shorten(egi_dir *dir);                     /* before a close */
void egi_db_close(egi_dir *dir);                       /* under db_mutex */
eg_status egi_db_ready(egi_dir *dir, eg_error *error); /* under db_mutex */
bool egi_db_is_open(egi_dir *dir);
eg_status egi_db_fail(egi_dir *dir, int rc, const char *what, eg_error *error);
/* egi_db_write_begin: opens it, and keeps other writers out until write_end;
** waits at most that long for those who write; both under db_mutex. */
eg_status egi_db_write_begin(egi_dir *dir, int patience_ms, eg_error *error);
void egi_db_write_end(egi_dir *dir);
/* egi_db_confirm: opens it; UNAVAILABLE where it was removed or replaced, and
** who reads on would see what nobody else does; under db_mutex.  A writer who
** is just rebuilding it is waited for. */
eg_status egi_db_confirm(egi_dir *dir, eg_error *error);
bool egi_db_read_header(const egi_dir *dir, uint64_t mark[6]);

/* ------------------------------------------------------ file_cache.c -- */

void egi_cache_put(egi_at *at);

/* egi_cache_get: the row of a key without a slot, with the shard's mutex held.
** False: it has to be read. */
bool egi_cache_get(egi_at *at);

/* egi_cache_wrote: this process has committed, by itself (else a commit of
** somebody's might be taken for ours); before: the header when it began to.
** at: whose row that was; NULL: nobody's.  after: what is in it now; NULL:
** nothing, or not all of it is known. */
void egi_cache_wrote(egi_dir *dir, const egi_at *at, const egi_after *after,
                     const uint64_t before[6]);
bool egi_file_peek(egi_store *store, eg_bytes key, unsigned char *room,
                   eg_bytes *bytes, uint64_t *token, uint64_t *tag);
bool egi_file_unchanged(egi_store *store, eg_bytes key,
                        const uint64_t mark[6]);

/* ------------------------------------------------------ file_count.c -- */

eg_status egi_file_add(egi_store *store, eg_bytes key, const egi_counts *more,
                       int64_t deadline_us, eg_error *error);
eg_status egi_file_counts(egi_store *store, eg_bytes prefix, bool exact,
                          int64_t deadline_us, egi_counts_fn visit, void *ctx,
                          eg_error *error);

/* ------------------------------------------------------- file_look.c -- */

/* egi_at_begin: the place of a key; egi_at_of_slot: of what a slot is of. */
void egi_at_begin(egi_file *file, eg_bytes key, egi_at *at);
void egi_at_of_slot(egi_file *file, unsigned shard, unsigned row, egi_at *at);
void egi_at_end(egi_at *at);
eg_status egi_shard_lock(egi_file *file, unsigned shard, eg_error *error);
void egi_shard_unlock(egi_file *file, unsigned shard);

/* egi_at_look: what is there, with the shard's mutex held. */
eg_status egi_at_look(egi_at *at, int want, eg_error *error);

/* egi_at_see: what that means, lent. */
void egi_at_see(const egi_at *at, egi_seen *seen);

/* egi_file_attach: opens the directory anew in a forked child. */
eg_status egi_file_attach(egi_file *file, eg_error *error);

static inline int64_t egi_at_now(const egi_at *at) {
  return at->now + at->dir->side.head->base_us;
}

/* ------------------------------------------------------- file_swap.c -- */

/* egi_at_swap: performs a swap on what was just looked at; expect is the
** caller's business.  CONFLICT: held by somebody else (at->held is set), or
** the row is not what the slot says (look again). */
eg_status egi_at_swap(egi_at *at, const egi_swap *swap, uint64_t *version,
                      uint64_t *token, eg_error *error);

/* egi_at_evict: what a slot knows is written to its row, and the slot is
** free; of what nobody holds. */
eg_status egi_at_evict(egi_at *at, eg_error *error);

/* ------------------------------------------------------ file_watch.c -- */

eg_status egi_file_watch(egi_store *store, eg_bytes key, const egi_seen *seen,
                         egi_watch **watch, int *fd, eg_error *error);
eg_status egi_file_wait(egi_watch *watch, int64_t deadline_us,
                        eg_error *error);
void egi_file_unwatch(egi_watch *watch);
void egi_file_wake(egi_at *at);

/* A watch.  Its mutex guards what follows it; the rest does not change, or is
** the waiting thread's. */
struct egi_watch {
  egi_watch *next, *prev;
  egi_file *file;
  egi_dir *dir;
  eg_bytes key;
  uint64_t hash, hash2;
  unsigned shard;
  int fd; /* of the lock file, of whoever blocks in it; -1: none */
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  uint64_t version;
  bool held;    /* then */
  bool changed; /* since */
  bool won;     /* the entry has the flock for this watch */
  bool cancelled, has_helper;
  int event;     /* eventfd, or -1 */
  long tid;      /* of the thread that is blocked in flock; 0: none */
  int own_event; /* the helper's copy of event, or -1 */
  bool helped;   /* the helper does no more */
  pthread_cond_t ended;
  bool told; /* that it has won; the waiting thread's */
  unsigned char bytes[EG_KEY_MAX];
};

/* --------------------------------------------------- file_block.c -- */

typedef enum egi_blocked { EGI_AGAIN, EGI_WON, EGI_BROKEN } egi_blocked;

/* egi_block_flock: waits in flock until that time (steady; EG_FOREVER), or
** somebody interrupts.  EGI_WON: the entry has it for this watch. */
egi_blocked egi_block_flock(egi_watch *watch, int64_t until_us, bool loose,
                            eg_error *error);

/* egi_block_futex: waits until the word of the shard is no longer `seen`. */
void egi_block_futex(egi_watch *watch, uint32_t seen, int64_t until_us);
void egi_block_bump(egi_dir *dir, unsigned shard);
void egi_block_interrupt(long tid);

/* egi_wait_signal: sees to it that a signal interrupts waits in flock: the
** usual one, unless another was chosen.  0 or an errno. */
int egi_wait_signal(void);

static inline uint32_t egi_block_seen(const egi_watch *watch) {
  return atomic_load(&watch->dir->side.head->shards[watch->shard].wakes);
}

/* ------------------------------------- file_scan.c, _history.c, _tend.c -- */

eg_status egi_file_scan(egi_store *store, eg_bytes prefix, egi_visit_fn visit,
                        void *ctx, eg_error *error);
void egi_file_ended(egi_at *at, const egi_swap *swap, uint64_t token,
                    eg_bytes owner);
eg_status egi_file_flush(egi_file *file, eg_error *error);
void egi_file_flush_many(egi_file *file); /* if nobody tends the store */
void egi_file_discard_ended(egi_file *file);
eg_status egi_file_history(egi_store *store, eg_bytes key, size_t n,
                           eg_visit_past visit, void *ctx, eg_error *error);
eg_status egi_file_share(egi_store *store, eg_bytes key, uint64_t token,
                         int *fd, eg_error *error);
eg_status egi_file_report(egi_store *store, eg_bytes key, uint64_t token,
                          int thousandths, eg_error *error);
eg_status egi_file_rebuild(const egi_url *url, const eg_env *env,
                           eg_rebuilt *out, eg_error *error);
int64_t egi_file_tend(egi_store *store, int64_t now_us, egi_lost_fn lost,
                      void *ctx);

#endif
