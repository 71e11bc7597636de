/* SPDX-License-Identifier: MIT
** The contract of a store: bytes with a version, and one exclusion a key.
**
** A store has no opinion.  It keeps what it is given, says what it sees, and
** swaps when nobody else has been there first.  spec/conformance runs every
** rule of this file against a store's URL; a rule there has the number that it
** has here.
**
** RULES
**
**  1. The version of a key changes with every swap that lands, and no version
**     is ever used twice for a key.  0 is the version of an absent key: one
**     that has no bytes, no hold and no notBefore, or whose life is over.
**  2. The token is made by TAKE and by BREAK: larger than any before it on
**     that key, also when the key was absent in between; at most 2^53 - 1.
**     KEEP, DROP and renew leave it.  It is kept as long as the version is.
**  3. A swap lands only if `expect` is the version of the key.  If it names a
**     token, it lands only if the exclusion is held, now and by the store's
**     own evidence, under that token.  Else: CONFLICT, nothing changed, and
**     seen filled as by load.
**  4. TAKE lands only if the exclusion is free.
**  5. A lease that is over, or whose owner is gone, leaves the exclusion free;
**     the bytes stay as they are.
**  6. Durations (lease, notBefore, fresh, life) count from the swap that set
**     them, by the store's own clock.  What is left of them never grows, and a
**     clock that is set back prolongs none.  EGI_LEAVE_TIME leaves them; TAKE
**     sets the lease, DROP and BREAK end it.
**  7. When its life is over, a record that nobody holds is absent.
**  8. FORGET leaves no bytes.  The token still does not fall.
**  9. renew changes no version; it prolongs a lease that still runs, counted
**     from now, and never shortens it; a hold without a lease stays without.
**     LOST for a token that does not hold.
** 10. A swap with `wake` that lands wakes every watch of its key (over a wire:
**     as soon as the news is there).  A watch that was made from `seen`
**     returns at once if the version had moved until then; in a store that is
**     `inside`, if it has moved until now.  The end of the holder's lease
**     wakes too.
** 11. scan visits every key that has bytes or is held, each at most once, with
**     no lock held; keys that come or go meanwhile may or may not be visited.
** 12. close drops every hold of this handle, and wakes their watchers.
** 13. NOMEM, UNAVAILABLE: nothing was changed.  A DROP needs no memory.
** 14. tend changes nothing that load shows, but for a hold that is gone: for
**     that it calls lost, once.
** 15. What is added to a key's counts stands beside the record: it changes no
**     version, token or time, and wakes nobody.  Additions of all handles sum
**     up, none is lost to another.  A record that is forgotten, or whose life
**     is over, takes its counts along, then or some time later; keys without a
**     record may lose theirs.
** 16. What a holder reports is seen beside its hold until that ends; it
**     changes no version, token or time, and wakes nobody.  LOST for a token
**     that does not hold through this handle.
*/
#ifndef EG_STORE_STORE_H
#define EG_STORE_STORE_H

#include "core/counters.h"
#include "core/transition.h"

#define EGI_STORE_ABI 1
#define EGI_TOKEN_MAX ((UINT64_C(1) << 53) - 1)
#define EGI_HOLDER_MAX 256
#define EGI_NO_TIME INT64_MIN /* the clock was not read */

typedef struct egi_store egi_store;
typedef struct egi_watch egi_watch;

/* What a store knows about a key.  What load, a conflict and scan show is
** always `clocked`; apply reads the clock only on demand.  bytes and holder
** are lent by apply and scan until the callback returns; load and swap put
** them into buf, which egi_seen_free frees. */
typedef struct egi_seen {
  egi_sight at;
  uint64_t version;     /* 0: absent */
  eg_bytes bytes;       /* the record as it was written; empty: none */
  eg_bytes holder;      /* owner line of the exclusion, if held */
  int64_t life_left_us; /* of the record; -1: no limit */
  uint64_t mark[6];     /* for unchanged() */
  void *buf;            /* the library's own */
  size_t buf_size;
} egi_seen;

typedef struct egi_swap {
  uint64_t expect; /* version */
  uint64_t token;  /* a holder names its own; 0: none is named */
  egi_write write;
  egi_hold hold;
  bool wake;
  bool durable;     /* what is put is on the disk when the swap returns */
  eg_bytes bytes;   /* write is PUT */
  eg_bytes holder;  /* hold is TAKE: at most EGI_HOLDER_MAX */
  int64_t lease_ms; /* TAKE; 0: until dropped */
  int64_t not_before_ms, fresh_ms; /* 0: none; EGI_LEAVE_TIME */
  int64_t life_ms;                 /* 0: for ever; EGI_LEAVE_TIME */
  /* for a history: */
  eg_run ended;   /* how the run did that it ends; IDLE: it ends none */
  uint32_t count; /* which run of its key it was */
  int64_t start_us, duration_us;
  eg_bytes error;
  bool exited; /* the run was a process */
  int exit_status;
} egi_swap;

/*
** A step in the place where the record is: looks at what is there and says
** what to do.  NONE ends it; SWAP is done at once (expect is not looked at);
** NOW: is called again with the clock read; GROW: apply returns CHANGED, so
** that the caller enlarges its buffer.  Must not block, free, or call back.
** It may be called on a copy that is already outdated; only an answer that
** held at one moment, or one given under the store's lock, counts.
*/
typedef egi_verdict (*egi_decide_fn)(void *ctx, const egi_seen *seen,
                                     egi_swap *swap);

/* Bytes of room that peek may fill: as many as a reply has of its own. */
enum { EGI_PEEK_ROOM = 64 };

typedef bool (*egi_visit_fn)(void *ctx, eg_bytes key, const egi_seen *seen);

/* What is counted of a key, as it is written (egi_decode_counts).  Called with
** locks held: it must not call back.  False: it is enough. */
typedef bool (*egi_counts_fn)(void *ctx, eg_bytes key, eg_bytes counts);

typedef void (*egi_lost_fn)(void *ctx, eg_bytes key, uint64_t token);

typedef struct egi_hold_ref {
  eg_bytes key;
  uint64_t token;
} egi_hold_ref;

/* A parsed store URL: scheme, what follows it up to `?`, the parameters. */
typedef struct egi_url {
  char scheme[16];
  const char *rest;
  const char *query; /* behind `?`, or NULL */
  const char *name;  /* of the namespace; NULL: private */
} egi_url;

/* What makes a store.  Every function that may block takes a steady deadline;
** the clock of env decides. */
typedef struct egi_store_ops {
  uint32_t abi;
  bool blocks; /* a call may take long: it is never made under a lock, nor by
                  the keeper */
  const char *scheme;
  eg_status (*open)(const egi_url *url, const eg_env *env, egi_store **store,
                    eg_error *error);
  void (*close)(egi_store *store);
  eg_status (*load)(egi_store *store, eg_bytes key, int64_t deadline_us,
                    egi_seen *seen, eg_error *error);
  /* OK: seen has the new version and token, and no bytes; or CONFLICT. */
  eg_status (*swap)(egi_store *store, eg_bytes key, const egi_swap *swap,
                    int64_t deadline_us, egi_seen *seen, eg_error *error);
  /* OK, and each is OK or LOST.  NULL: the store has no leases. */
  eg_status (*renew)(egi_store *store, const egi_hold_ref *holds, size_t n,
                     int64_t lease_ms, eg_status *each, eg_error *error);
  /* Is the key as it was when mark was made?  Without a round trip; may say
  ** no though it is.  NULL: always ask. */
  bool (*unchanged)(egi_store *store, eg_bytes key, const uint64_t mark[6]);
  /* fd NULL: the caller blocks in wait, on this thread.  Else it polls: *fd is
  ** readable when wait would not block, until wait is called; -1: there is
  ** none, and a wait that may not block looks every 20 ms.  NULL: every wait
  ** does so.  A watch belongs to the thread that waits. */
  eg_status (*watch)(egi_store *store, eg_bytes key, const egi_seen *seen,
                     egi_watch **watch, int *fd, eg_error *error);
  /* CHANGED, TIMEOUT; OK: the exclusion was won by waiting, and is this
  ** handle's: the next TAKE of the key by this thread finds it free; another
  ** wait, and unwatch, give it back unless that came. */
  eg_status (*wait)(egi_watch *watch, int64_t deadline_us, eg_error *error);
  void (*unwatch)(egi_watch *watch);
  eg_status (*scan)(egi_store *store, eg_bytes prefix, egi_visit_fn visit,
                    void *ctx, eg_error *error);
  /* decide, and swap, under the store's own lock.  now_us may be EGI_NO_TIME.
  ** writes: decide will most likely want to swap (a hint, no promise).
  ** OK: decided (and what was to be written is); CHANGED: decide said GROW.
  ** *token: of the latest grant on the key now.  NULL: the guard loops. */
  eg_status (*apply)(egi_store *store, eg_bytes key, egi_decide_fn decide,
                     void *ctx, bool writes, int64_t now_us, uint64_t *token,
                     eg_error *error);
  /* Copies the record of a key that nobody holds and that has no times, as it
  ** was at one moment, to room, or the start of it, where it is longer; of an
  ** absent key, no bytes.  *token: of its latest grant; *tag: 64 bits that are
  ** the same for each look at the key and most likely no other's.  Takes no
  ** lock, reads no clock.  False: held, timed, large, being written: ask
  ** apply.  NULL: nothing is told this way. */
  bool (*peek)(egi_store *store, eg_bytes key, unsigned char *room,
               eg_bytes *bytes, uint64_t *token, uint64_t *tag);
  /* What was last seen of the key from here, in seen's own buffer: a guess to
  ** swap from, never an answer; it may be long outdated.  False: nothing.
  ** NULL: the store is so near that guesses are not worth it. */
  bool (*recall)(egi_store *store, eg_bytes key, egi_seen *seen);
  /* Takes one key whose opaque result was swept with its record; bytes
  ** written to key, 0: none.  NULL: the store sweeps nothing by itself. */
  size_t (*next_forgotten)(egi_store *store, void *key);
  /* The ended runs of a key (empty: of all), newest first, at most n, with no
  ** lock held.  NULL: the store remembers none. */
  eg_status (*history)(egi_store *store, eg_bytes key, size_t n,
                       eg_visit_past visit, void *ctx, eg_error *error);
  /* What is better done off the callers' path (batches of history, late holder
  ** lines, a look whether holds still stand).  Called by the keeper's thread,
  ** never by two threads at once for a store, with no lock held.  Calls lost()
  ** for each hold that turned out to be gone.  Returns when it wants to be
  ** called next (steady us), EG_FOREVER: not before something is granted or
  ** written again.  NULL: none. */
  int64_t (*tend)(egi_store *store, int64_t now_us, egi_lost_fn lost,
                  void *ctx);
  /* Adds to what is counted of a key.  CONFLICT: others were always faster.
  ** NULL: it keeps none, and the guard does for itself. */
  eg_status (*add)(egi_store *store, eg_bytes key, const egi_counts *more,
                   int64_t deadline_us, eg_error *error);
  /* Shows what is counted of every key that begins with prefix, or of this one
  ** key alone (`exact`), of others may too; where it is not one key alone, in
  ** parts, which add up.  NULL where add is. */
  eg_status (*counts)(egi_store *store, eg_bytes prefix, bool exact,
                      int64_t deadline_us, egi_counts_fn visit, void *ctx,
                      eg_error *error);
  /* A descriptor, close-on-exec and the caller's, that keeps the exclusion of
  ** the hold with this token: it ends when that hold has ended, or its process
  ** is gone, and all copies of the descriptor are closed.  LOST where there is
  ** no such hold of this handle.  NULL: no descriptor stands for a hold. */
  eg_status (*share)(egi_store *store, eg_bytes key, uint64_t token, int *fd,
                     eg_error *error);
  /* How far the work of the hold with this token is, in thousandths; below 0:
  ** that is not known any more.  NULL: nobody is told. */
  eg_status (*report)(egi_store *store, eg_bytes key, uint64_t token,
                      int thousandths, eg_error *error);
  /* Makes what can still be read of a store's database into a new one; not of
  ** an open handle.  NULL: it has none. */
  eg_status (*rebuild)(const egi_url *url, const eg_env *env, eg_rebuilt *out,
                       eg_error *error);
  /* In the child of a fork: hold nothing, touch nothing shared. */
  void (*forked)(egi_store *store);
  /* The calling thread is about to fork: no other is in the middle of anything
  ** that the child has to find whole, until after_fork in the parent, forked
  ** in the child.  NULL, any of the three: there is no such thing. */
  void (*before_fork)(egi_store *store);
  void (*after_fork)(egi_store *store);
} egi_store_ops;

/* Every store begins with this; open fills it.
** space: an address that is the same for the handles of this process that show
** the same keys, and only for them, as long as one is open; so that those who
** wait for a key through any of them stand in one line.  NULL: the handle's.
** inside: nobody outside of this process can change a key (so what is waited
** for is announced by the guards themselves, and watch is not used for it). */
struct egi_store {
  const egi_store_ops *ops;
  const void *space;
  bool inside;
  int64_t lease_ms; /* of a grant that names none; 0: it needs none */
};

/* egi_is_scheme: is there a store for it, here or in an object of its own?
** egi_load_store: the store for a scheme; one in an object of its own is
** loaded.  UNSUPPORTED: it, or something that it needs, is not installed.
** egi_find_store: the same, NULL on any failure. */
bool egi_is_scheme(const char *scheme);
eg_status egi_load_store(const char *scheme, const egi_store_ops **ops,
                         eg_error *error);
const egi_store_ops *egi_find_store(const char *scheme);

/* egi_seen_init: before the first use; egi_seen_free: after the last. */
void egi_seen_init(egi_seen *seen);
void egi_seen_free(egi_seen *seen, const eg_env *env);

/* egi_seen_keep: makes `seen` what `from` is, with bytes and holder in its own
** buffer.  False: no memory, and nothing has changed. */
bool egi_seen_keep(egi_seen *seen, const egi_seen *from, const eg_env *env);

extern const egi_store_ops egi_memory_ops;
extern const egi_store_ops egi_file_ops;

/* steady.c: a condition on CLOCK_MONOTONIC, as the system clock's wait wants
** it.  0 or an errno. */
int egi_steady_cond(pthread_cond_t *cond);

#endif
