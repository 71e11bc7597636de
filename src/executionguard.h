/* SPDX-License-Identifier: MIT
** executionguard.h - run this once, and tell me what came of it.
**
** A guard is a handle on a namespace in a store; a namespace maps a key to
** one record: what is known of a piece of work, and who holds it now.
**
** CAVEATS
**
** - A grant is exclusive by the evidence of its store.  A process that was
**   stopped for an hour and wakes may still believe that it holds one; its
**   writes here are refused (LOST), but nothing here can stop it from touching
**   something outside.  Hand eg_grant.token to that something and let it
**   refuse a smaller one: that is what fencing tokens are for.
** - The memory store is for the threads of one process.  What it knows ends
**   with the process, or, without a name, with the guard.
** - On a store across a network a grant is a lease (15 s unless a policy or
**   the URL says otherwise) by the clock of the server.  A plain Redis server
**   can lose a grant: on failover to a replica that had not heard of it
**   (minReplicas narrows that), when it evicts (maxmemory-policy), and at a
**   restart without an append-only file.  A server's clock that jumps forward
**   ends leases early; one that is set back prolongs none, but for keys that
**   had been absent for 10 seconds.  Tokens rise over all of that, unless the
**   clock is set back and the key is lost.
** - INDETERMINATE: the store did not say whether it was done.  The library
**   looks, and knows its own grants and commits again; only when it cannot
**   look either, this is returned.  A grant made that way without anybody
**   knowing ends with its lease.
** - Durations are milliseconds (`_ms`), points in time and measured times are
**   microseconds (`_us`).  Steady times (`now_us`, `deadline_us`) count from
**   an unspecified start and never go back; times in records are microseconds
**   since the epoch.
** - A guard may be used by several threads at once.  A grant, a reply and a
**   record belong to one thread at a time.
** - No function here prints, exits, aborts or installs a signal handler.  (The
**   Lua module installs one, for SIGURG unless it is told otherwise, when the
**   first run begins that it is to interrupt; the old one is called after it.
**   And one for SIGTERM, where that has none, with the first guard on a
**   server: see eg_leave_at in executionguard_host.h.)
** - At exit() what the process holds on servers is given back, also by guards
**   that are still open: a second of that at most for each.
** - Work in C is never interrupted.  Its record is TIMEDOUT at the deadline
**   all the same, kept by one thread of the library with all signals blocked,
**   which is started on first need and calls stores; a late return is told
**   TIMEOUT.
** - Every function may be called with a guard's work in progress in the same
**   thread; none of them calls back into user code but eg_scan, eg_history,
**   eg_run_once, eg_write_metrics, the allocator, the clock and the log
**   function, as said there.
**
** ERRORS
**
** Outcomes (0..15) are what a well-behaved program meets every day; failures
** (16 and up) are not.  A function that takes an eg_error fills it for
** failures: the status, the errno where there was one, and a message that
** names the argument and the way out.  NULL is allowed for it everywhere.
*/
#ifndef EXECUTIONGUARD_H
#define EXECUTIONGUARD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define EG_API __attribute__((visibility("default")))
#else
#define EG_API
#endif

#define EG_VERSION "0.1.0"

/* ------------------------------------------------------------ status -- */

/*
** The one list of status codes: XX(name, number, word, exit status, text).
** The word is what Lua returns as the reason; the exit status is that of the
** command-line tool.
*/
#define EG_STATUS_MAP(XX)                                                     \
  XX(OK, 0, "ok", 0, "done as asked")                                         \
  XX(CACHED, 1, "cached", 0, "ran before; its result is returned")            \
  XX(COMPLETED, 2, "completed", 0, "ran before; no result is kept")           \
  XX(RUNNING, 3, "running", 75, "is running now")                             \
  XX(LOCKED, 4, "locked", 75, "is locked by somebody else")                   \
  XX(DEADLOCK, 5, "deadlock", 75, "is held by the caller, who would wait")    \
  XX(COOLDOWN, 6, "cooldown", 75, "ended a short while ago; too soon")        \
  XX(CRASHED, 7, "crashed", 75, "its last owner died; waits for a reset")     \
  XX(FAILED, 8, "failed", 1, "failed")                                        \
  XX(TIMEOUT, 9, "timeout", 124, "took longer than it was allowed to")        \
  XX(LOST, 10, "lost", 75, "the grant is no longer this holder's")            \
  XX(CANCELED, 11, "canceled", 75, "the wait was given up")                   \
  XX(UNCOMMITTED, 12, "uncommitted", 125, "ran, but could not be recorded")   \
  XX(NOTFOUND, 13, "notfound", 1, "there is no record of it")                 \
  XX(CONFLICT, 14, "conflict", 75, "somebody else changed it first")          \
  XX(CHANGED, 15, "changed", 0, "changed while it was watched")               \
  XX(INVALID, 16, "invalid", 64, "an argument is not valid")                  \
  XX(NOMEM, 17, "nomem", 125, "not enough memory")                            \
  XX(UNSUPPORTED, 18, "unsupported", 125, "this store cannot do that")        \
  XX(UNAVAILABLE, 19, "unavailable", 125, "the store is away; not applied")   \
  XX(INDETERMINATE, 20, "indeterminate", 125, "may or may not be applied")    \
  XX(CORRUPT, 21, "corrupt", 125, "what is stored cannot be read")            \
  XX(DENIED, 22, "denied", 77, "the store refused access")                    \
  XX(INTERNAL, 23, "internal", 70, "a defect of this library")

typedef enum eg_status {
#define XX(name, number, word, exit_status, text) EG_##name = number,
  EG_STATUS_MAP(XX)
#undef XX
} eg_status;

/* Whether a status is a failure rather than an outcome. */
#define EG_IS_FAILURE(status) ((int)(status) >= 16)

/* eg_status_word: the word of a status ("cached"); "unknown" for a number
** that is none.  eg_status_text: a clause that explains it.
** eg_status_exit: the exit status of a command that ends with it.  The strings
** are constants.  Never fails. */
EG_API const char *eg_status_word(eg_status status);
EG_API const char *eg_status_text(eg_status status);
EG_API int eg_status_exit(eg_status status);

/* What is known of the work behind a key: XX(name, number, word). */
#define EG_RUN_MAP(XX)                                                        \
  XX(IDLE, 0, "Idle")                                                         \
  XX(RUNNING, 1, "Running")                                                   \
  XX(COMPLETED, 2, "Completed")                                               \
  XX(TIMEDOUT, 3, "TimedOut")                                                 \
  XX(FAILED, 4, "Failed")

typedef enum eg_run {
#define XX(name, number, word) EG_RUN_##name = number,
  EG_RUN_MAP(XX)
#undef XX
} eg_run;

#define EG_RUN_COUNT 5

/* eg_run_word: "Idle", "Running" ... as a constant string. */
EG_API const char *eg_run_word(eg_run run);

/* Why a call failed; owned by the caller, filled by the library. */
typedef struct eg_error {
  eg_status status;
  int os_errno; /* 0 where no system call failed */
  char message[240];
} eg_error;

/* ------------------------------------------------------------- basics -- */

/* Bytes that somebody else owns.  data may be NULL only when len is 0. */
typedef struct eg_bytes {
  const void *data;
  size_t len;
} eg_bytes;

#define EG_KEY_MAX 512                      /* bytes in a key, at least one */
#define EG_NAME_MAX 200                     /* bytes in a guard's name */
#define EG_OWNER_MAX 120                    /* bytes in an owner's text */
#define EG_RESULT_MAX ((size_t)1024 * 1024) /* default bound of a result */
#define EG_FOREVER INT64_MAX                /* wait without limit */
#define EG_DEPTH_MAX 100                    /* levels of a stored value */

/* The string literal or C string s as bytes. */
EG_API eg_bytes eg_str(const char *s);

/* What is kept of a result. */
typedef enum eg_kind {
  EG_KIND_NONE = 0,  /* nothing (nil is no result to reuse) */
  EG_KIND_VALUE = 1, /* one MessagePack value */
  EG_KIND_OPAQUE = 2 /* the holder keeps the value itself; only the mark */
} eg_kind;

/*
** An injected clock.  now_us is steady; coarse_us is the same clock, may lag
** by some milliseconds and is cheap; offset_us is what to add to a steady time
** near `now` to get microseconds since the epoch.  wait releases the mutex,
** waits for the condition until the steady deadline (EG_FOREVER: without
** one), takes the mutex again and returns 0 when woken (also without cause) or
** ETIMEDOUT.  wake wakes everybody who waits on a condition.  Conditions are
** made by eg_cond_init.
*/
typedef struct eg_clock {
  void *ctx;
  int64_t (*now_us)(void *ctx);
  int64_t (*coarse_us)(void *ctx);
  int64_t (*offset_us)(void *ctx, int64_t now_us);
  int (*wait)(void *ctx, pthread_cond_t *cond, pthread_mutex_t *mutex,
              int64_t deadline_us);
  void (*wake)(void *ctx, pthread_cond_t *cond);
} eg_clock;

/* eg_cond_init: a condition that the system clock's wait can use (it counts on
** CLOCK_MONOTONIC).  Returns 0 or an errno. */
EG_API int eg_cond_init(pthread_cond_t *cond);

/* eg_system_clock: the machine's clock (CLOCK_MONOTONIC). */
EG_API const eg_clock *eg_system_clock(void);

/* eg_set_clock: the clock of all guards that were opened without one of their
** own, from now on; NULL puts the system's back.  Times that were measured by
** the old one make no sense to the new one: set it before the first guard. */
EG_API void eg_set_clock(const eg_clock *clock);

/*
** eg_test_clock: a clock that is moved by hand, one for the process.  It
** starts at 2026-01-01T00:00:00Z.  advance moves it and lets every wait whose
** deadline has come return; set_wall moves the wall time alone, as an
** administrator would.  With auto_advance, waiting itself moves the clock to
** the deadline of the wait, at once: what a program with one thread needs.
** reset puts all of that back to the start.
*/
EG_API const eg_clock *eg_test_clock(void);
EG_API void eg_test_clock_reset(bool auto_advance);
EG_API void eg_test_clock_advance(int64_t us);
EG_API void eg_test_clock_set_wall(int64_t epoch_us);

/* By the clock in force: eg_now_us is steady, eg_wall_us counts from the
** epoch.  eg_sleep_us blocks the thread that long; a test clock lets it go
** when it is moved. */
EG_API int64_t eg_now_us(void);
EG_API int64_t eg_wall_us(void);
EG_API void eg_sleep_us(int64_t us);

typedef enum eg_log_level { EG_LOG_INFO, EG_LOG_WARN } eg_log_level;

/*
** The world that a guard lives in.  alloc works like realloc with sizes
** (nsize 0 frees, and never fails); it and log may be called from any thread
** that uses the guard, and must not call back into it.  Zeroes mean: the
** process's allocator, the clock in force, no log.
*/
typedef struct eg_env {
  void *(*alloc)(void *ud, void *ptr, size_t osize, size_t nsize);
  void *alloc_ud;
  const eg_clock *clock;
  void (*log)(void *ud, eg_log_level level, const char *message, eg_bytes key);
  void *log_ud;
} eg_env;

/* Memory that an answer owns, and who takes it back: it may outlive its
** guard.  The library's own. */
typedef struct eg_memory {
  void *heap;
  size_t size;
  void *(*alloc)(void *ud, void *ptr, size_t osize, size_t nsize);
  void *alloc_ud;
} eg_memory;

/* ----------------------------------------------------- guards, policy -- */

typedef struct eg_guard eg_guard;

typedef struct eg_options {
  const char *store; /* URL; NULL: "memory" */
  const char *name;  /* NULL: a private namespace in memory; "default" in a
                        store that outlives the process */
  const char *owner; /* free text for people; NULL: the process's name */
  uint32_t state;    /* who cannot go on while it waits (a Lua state); 0: none.
                        See eg_next_state. */
  uint32_t history;  /* memory store: how many ended runs to remember */
  eg_env env;
} eg_options;

/*
** eg_open: opens a guard.  A named namespace of the memory store is shared by
** all guards of the process and lives as long as it; one without a name is
** this guard's own.  options may be NULL.  Errors: INVALID (the URL, the
** name), UNSUPPORTED, NOMEM, UNAVAILABLE, DENIED.  A failed open leaves
** nothing to close.  May block where the store is remote.
*/
EG_API eg_status eg_open(const eg_options *options, eg_guard **guard,
                         eg_error *error);

/*
** eg_close: gives back every grant that this guard holds (a run that is still
** going on is then "owner died"), and frees it.  NULL is ignored.  No other
** thread may be using it.
*/
EG_API void eg_close(eg_guard *guard);

/* eg_is_shared: can anybody but this guard see what it stores?  False only for
** a memory store without a name. */
EG_API bool eg_is_shared(const eg_guard *guard);

/* eg_next_state: a number for eg_options.state that nobody else has. */
EG_API uint32_t eg_next_state(void);

/*
** eg_lock_file: the name of a key's file in the lock folder of a file store,
** with that of its namespace before it where name is not NULL: "<key>.lock",
** "<name>@/<key>.lock".  Looks at nothing but its arguments.  Returns its
** length; 0 for what is no key or no name.
*/
#define EG_LOCK_FILE_MAX 432
EG_API size_t eg_lock_file(const char *name, eg_bytes key,
                           char out[EG_LOCK_FILE_MAX]);

/* eg_schemes: the store URL schemes of this build, NULL at the end. */
EG_API const char *const *eg_schemes(void);

/*
** How a call is to be treated.  Start from EG_POLICY_DEFAULT.  All durations
** are milliseconds, 0 for none.
*/
typedef struct eg_policy {
  bool allow_rerun;         /* run also when it is Completed */
  bool cache_result;        /* keep the result, return one that is kept */
  bool block_after_crash;   /* a dead owner's work waits for a reset */
  int64_t result_ttl_ms;    /* how long Completed counts */
  int64_t error_ttl_ms;     /* how long Failed is answered from memory */
  int64_t cooldown_ms;      /* no new grant that long after the end of a run */
  int64_t lock_at_least_ms; /* no new grant that long after a grant */
  int64_t record_ttl_ms;    /* an ended record is forgotten that long after */
  int64_t join_ms;          /* wait that long for a run that is going on */
  int64_t lease_ms;         /* the grant ends unless it is renewed, as it is
                               while its guard is open */
  int64_t max_hold_ms;      /* and no longer than that */
  size_t max_result;        /* bytes of a stored value */
  const char *owner;        /* text for people; NULL: the guard's */
} eg_policy;

#define EG_POLICY_DEFAULT                                                     \
  { false, true, false, 0, 0, 0, 0, 0, 0, 0, 0, EG_RESULT_MAX, NULL }

/* -------------------------------------------------------------- verbs -- */

typedef enum eg_want { EG_WANT_RUN, EG_WANT_LOCK } eg_want;

/* What eg_acquire grants.  The token fits 53 bits and rises with every grant
** on a key.  Plain data, may be copied. */
typedef struct eg_grant {
  uint64_t token;
  int64_t start_us;    /* steady; 0 for a lock */
  int64_t deadline_us; /* steady; EG_FOREVER unless the holder sets it: a run
                          that is committed at or after it has timed out */
  eg_want want;
} eg_grant;

/*
** What a verb answers beside its status.  value and error point into memory of
** the reply and are valid until eg_reply_free or the next verb with it.
** Start with eg_reply_init; a reply may be used again and again.
*/
typedef struct eg_reply {
  uint64_t token;   /* of the grant that was met or made; 0: none */
  int64_t left_us;  /* COOLDOWN, FAILED: how long still; -1: not known */
  eg_kind kind;     /* CACHED: what is kept */
  eg_bytes value;   /* CACHED and kind VALUE: one MessagePack value */
  eg_bytes error;   /* FAILED: the error's text, without its traceback */
  eg_error failure; /* filled only where the status is a failure */
  /* the library's own */
  eg_memory memory;
  unsigned char small[64];
} eg_reply;

EG_API void eg_reply_init(eg_reply *reply);
EG_API void eg_reply_free(eg_reply *reply);

/*
** WHO COMES FIRST.  Those who wait for a key in this process, in any thread,
** through any guard, stand in one line, and are served in order of arrival.
** A newcomer may take a key that is free at that moment.  A lock that ends
** while somebody waits for a lock is handed over: it is the first one's before
** the call that ended it returns.  Who gave up, was cancelled or whose guard
** was closed never holds the key, and the next one is served at once.
*/

/*
** eg_acquire: asks for a run or a lock on a key.  Returns OK with *grant
** filled, or why not:
**   run:  CACHED, COMPLETED, RUNNING, LOCKED, DEADLOCK, COOLDOWN, CRASHED,
**         FAILED (its error is still good, policy error_ttl_ms, or the run
**         that was joined), TIMEOUT (the run that was joined)
**   lock: LOCKED (also while a run is going on), DEADLOCK, COOLDOWN
** or a failure: INVALID, NOMEM, UNAVAILABLE, INDETERMINATE, CORRUPT, DENIED,
** and then nothing was granted.  It waits at most wait_ms (0: not at all) for
** a lock to become free, a lock also for a cooldown; a run that is going on is
** waited for only by policy->join_ms.  policy may be NULL (the default).
** Waiting never polls in the memory store; see WHO COMES FIRST above.  A wait
** that cannot end, because the caller's own state holds the key, ends at once
** with DEADLOCK.
*/
EG_API eg_status eg_acquire(eg_guard *guard, eg_bytes key, eg_want want,
                            const eg_policy *policy, int64_t wait_ms,
                            eg_grant *grant, eg_reply *reply);

/*
** While the store is away (UNAVAILABLE, INDETERMINATE):
** eg_begin_unguarded: a grant of nobody's, with token 0: work may go on
** without a guard, and is counted.  Committed, it is judged by its deadline
** and counted, and nothing is stored.
** eg_recall: CACHED, with the result that was last seen of the key from here,
** as eg_acquire answers it; it may be outdated.  Stores across a network
** remember the latest few hundred keys, results of up to 2 KiB.  NOTFOUND,
** NOMEM.
*/
EG_API void eg_begin_unguarded(eg_guard *guard, eg_grant *grant);
EG_API eg_status eg_recall(eg_guard *guard, eg_bytes key, eg_reply *reply);

/* How a run ended. */
typedef struct eg_outcome {
  eg_status status; /* OK, FAILED or TIMEOUT */
  eg_kind kind;     /* OK: what there is of a result */
  eg_bytes value;   /* kind VALUE: one MessagePack value */
  eg_bytes error;   /* FAILED, TIMEOUT: text */
  eg_bytes trace;   /* FAILED: traceback, or empty */
  bool exited;      /* it was a process; for the history: */
  int exit_status;
} eg_outcome;

/*
** eg_commit: stores how a run ended and ends its grant, in one step.  Reads
** the clock: what comes at or after grant->deadline_us is stored as TIMEOUT,
** whatever the outcome says.  Returns OK (stored as it is); TIMEOUT (stored
** as that); LOST (reset, lease over: nothing was stored); INVALID (the value
** is malformed, nested too deep, or larger than policy->max_result: nothing
** was done, the grant still stands, commit something else); UNCOMMITTED (the
** store is away: the grant still stands, commit again); NOMEM (the same);
** INDETERMINATE (the store's answer was lost, and somebody else had been
** granted the key before it could be asked again: it may be stored, and the
** grant is over).  Blocks as long as the store does.
*/
EG_API eg_status eg_commit(eg_guard *guard, eg_bytes key, eg_grant *grant,
                           const eg_outcome *outcome, const eg_policy *policy,
                           eg_error *error);

/*
** eg_release: ends a lock of this guard.  token 0: whichever lock this guard
** has on the key.  Returns OK; LOST where there is none (never taken, taken by
** somebody else, reset, a run): nothing was changed; INDETERMINATE as
** eg_commit, or another failure: it may be held still.
*/
EG_API eg_status eg_release(eg_guard *guard, eg_bytes key, uint64_t token,
                            eg_error *error);

/*
** eg_release_here: ends the lock on a key, whichever guard of this process has
** it; who took it is told LOST when it releases.  Returns OK; LOST where this
** process holds no lock on it (a run is none): nothing was changed.
*/
EG_API eg_status eg_release_here(eg_guard *guard, eg_bytes key,
                                 eg_error *error);

/* eg_reset: back to Idle from anything; revokes whatever runs or is locked
** there.  Counts and the time of the last run stay.  Of an absent key it
** leaves none.  Returns OK or a failure. */
EG_API eg_status eg_reset(eg_guard *guard, eg_bytes key, eg_error *error);

/*
** eg_revoke: takes the grant with this token from its holder, whose writes are
** refused from then on.  A run is then Failed with `why` as its error (say who
** did it), in the history too; a lock leaves the record alone.  OK; LOST where
** that token does not hold; or a failure.  In store file its holder lets go.
*/
EG_API eg_status eg_revoke(eg_guard *guard, eg_bytes key, uint64_t token,
                           const char *why, eg_error *error);

/*
** eg_share_grant: a descriptor, close-on-exec and the caller's, that keeps the
** key held until every copy of it is closed: for a forked child that looks
** after the work.  Close them before commit or release.  OK; LOST; UNSUPPORTED
** (other stores); a failure.
*/
EG_API eg_status eg_share_grant(eg_guard *guard, eg_bytes key,
                                const eg_grant *grant, int *fd,
                                eg_error *error);

/* eg_report: tells others how far the work of a grant of this guard is, 0 to
** 1; below 0: that is not known any more.  They see it in eg_record.progress
** as long as the grant lasts.  Returns OK; LOST (that token does not hold);
** UNSUPPORTED where the store tells nobody (all but those in files); or a
** failure.  In files it costs about as much as a lock of a mutex. */
EG_API eg_status eg_report(eg_guard *guard, eg_bytes key, uint64_t token,
                           double progress, eg_error *error);

/* eg_clear_result: forgets the result and its time to live; the status
** stays.  Returns OK, NOTFOUND or a failure. */
EG_API eg_status eg_clear_result(eg_guard *guard, eg_bytes key,
                                 eg_error *error);

/* Who holds a key.  The memory store knows host and pid to be its own. */
typedef struct eg_owner {
  char host[64];
  int64_t pid;
  char text[EG_OWNER_MAX + 1];
  int64_t since_us;      /* epoch */
  uint32_t state, guard; /* numbers within that process */
  bool mine;             /* this very guard */
  bool here;             /* a guard of this process */
} eg_owner;

/*
** A record as a reader sees it: a run whose owner is gone reads as Failed with
** the error "owner died"; a result whose time is over reads as absent.  Times
** are 0 where there is none.  key is the caller's, or eg_scan's; the rest
** points into memory of its own.
*/
typedef struct eg_record {
  eg_bytes key;
  eg_run status;
  bool locked;      /* held, by a run or a lock */
  bool crashed;     /* its owner died */
  bool corrupt;     /* cannot be read: only eg_scan shows such a one */
  bool only_locked; /* by a lock, and there is no record */
  uint64_t token, version;
  uint32_t count; /* executions; of these: */
  uint32_t failed, timed_out;
  uint32_t lost;            /* owner died, or reset while they ran */
  uint64_t blocked, cached; /* calls that were refused, answered: see below */
  int64_t start_us, end_us, last_us; /* epoch */
  int64_t duration_us;
  int64_t cooldown_left_us; /* 0: none */
  int64_t fresh_left_us;    /* of result or error; -1: no limit, 0: over */
  eg_kind kind;
  eg_bytes value, error, trace;
  eg_owner owner;  /* filled only where locked */
  double progress; /* 0 to 1, as the holder reports it; below 0: it does not */
  /* the library's own */
  eg_bytes tally, waits;
  eg_memory memory;
} eg_record;

/* eg_fetch: reads a record.  Returns OK; NOTFOUND (no record; locked, token,
** owner and what is counted are filled all the same); or a failure.  Free it
** with eg_record_free whatever was returned. */
EG_API eg_status eg_fetch(eg_guard *guard, eg_bytes key, eg_record *record,
                          eg_error *error);
EG_API void eg_record_free(eg_record *record);

/*
** eg_record_times: how long the runs of a record took, those that failed or
** timed out among them; of the last one and, through every process, all that
** came before.  Percentiles are by the nearest rank and at most 1.6 per cent
** off, unless the times of one key spread over many powers of two.
*/
typedef struct eg_times {
  uint64_t runs;    /* that ended; 0: the rest is 0 too */
  int64_t total_us; /* all of them together */
  int64_t p50_us, p95_us, p99_us;
} eg_times;
EG_API void eg_record_times(const eg_record *record, eg_times *times);

/*
** COUNTED BESIDE THE RECORD.  blocked: calls for a run that got neither it nor
** a result; cached: those that got one; eg_record_waits: how long callers
** waited for the key, for a run or a lock, whatever came of it; who need not
** wait is not among them.  All processes' together.  This one's are up to
** date; on a store that other processes share theirs come once a second, when
** their guards are closed and when they exit, and one that is killed loses its
** last second.  A reset leaves them; they go when the record is forgotten.  A
** key that only ever was locked has them too (eg_fetch), though the store may
** forget those.
*/
EG_API void eg_record_waits(const eg_record *record, eg_times *times);

/* eg_look: eg_fetch without blocked, cached and waits, which are 0: where the
** store is elsewhere, a request less. */
EG_API eg_status eg_look(eg_guard *guard, eg_bytes key, eg_record *record,
                         eg_error *error);

/* eg_holds: does the grant with this token still hold the key?  False also
** where the store cannot be asked. */
EG_API bool eg_holds(eg_guard *guard, eg_bytes key, uint64_t token);

/* eg_believes: the same as far as is known here: where grants are leases, as
** of the last renewal and without asking the store. */
EG_API bool eg_believes(eg_guard *guard, eg_bytes key, uint64_t token);

/* eg_token: the token under which this guard holds the key, for a run or a
** lock, as far as is known here (see eg_believes); 0: it holds none.  It is
** what to hand on to whatever can refuse an older one. */
EG_API uint64_t eg_token(eg_guard *guard, eg_bytes key);

/*
** FENCES.  Ready-made checks for what a grant protects outside of its store.
** In SQL: eg_check_token(namespace, key, token), which the store's database
** has.
**
** eg_fence_write: makes contents those of a file, unless a newer token has
** written it.  The latest one's token stands in "<path>.token", as 20 digits;
** a flock(1) on that keeps other writers away.  Readers see the old or the new
** contents, whole, and what is returned as OK is on the disk.  OK; LOST: a
** newer token has written; LOCKED: others were writing for wait_ms; INVALID,
** DENIED, CORRUPT (what stands in the file of the token is none), UNAVAILABLE
** (disk full ...): the file is as it was.  Blocks.  A symbolic link is
** replaced.
**
** eg_fence_redis_script: does a command on a Redis server if the token holds
** the guard's key there, and says an error that begins with STALE if not:
**   EVAL script 2 GUARD-KEY DATA-KEY token command DATA-KEY argument...
** eg_fence_redis_key: GUARD-KEY, of a guard with that name (NULL: without
** one); its length, 0 for what is none.  In a cluster DATA-KEY has to be in
** the same slot: "{<name>:<key>}..." is, if neither has a : % or } in it.
*/
#define EG_FENCE_REDIS_KEY_MAX (EG_KEY_MAX + 3 * EG_NAME_MAX + 8)
EG_API eg_status eg_fence_write(const char *path, uint64_t token,
                                eg_bytes contents, int64_t wait_ms,
                                eg_error *error);
EG_API const char *eg_fence_redis_script(void);
EG_API size_t eg_fence_redis_key(const char *name, eg_bytes key,
                                 char out[EG_FENCE_REDIS_KEY_MAX]);

/*
** eg_scan: visits every record whose key begins with prefix, in no order, each
** at most once; records that come or go meanwhile may or may not be seen.
** visit is called with no lock held and may use the guard; it returns false to
** stop.  The record is the library's and valid for that call.  Returns OK or a
** failure.
*/
typedef bool (*eg_visit)(void *ctx, const eg_record *record);
EG_API eg_status eg_scan(eg_guard *guard, eg_bytes prefix, eg_visit visit,
                         void *ctx, eg_error *error);

/* eg_scan_held: the same, and the keys that are locked without having a record
** (only_locked; of these key, token, owner and what is counted are filled). */
EG_API eg_status eg_scan_held(eg_guard *guard, eg_bytes prefix, eg_visit visit,
                              void *ctx, eg_error *error);

/*
** eg_watch_open: starts to watch a key.  eg_watch_wait waits until a grant on
** it ended, it was reset or its result cleared, since eg_watch_open or the
** last eg_watch_wait, at most wait_ms: CHANGED or TIMEOUT, or a failure.  May
** say CHANGED for less, so look.  eg_unwatch ends it; NULL is ignored.
*/
typedef struct eg_watch eg_watch;
EG_API eg_status eg_watch_open(eg_guard *guard, eg_bytes key, eg_watch **watch,
                               eg_error *error);
EG_API eg_status eg_watch_wait(eg_watch *watch, int64_t wait_ms,
                               eg_error *error);
EG_API void eg_unwatch(eg_watch *watch);

/*
** eg_history: the ended runs of a key (an empty key: of all), newest first, at
** most n.  Returns OK, UNSUPPORTED where none is kept (memory store: unless
** eg_options.history said how many, and then those that ended through this
** guard), or a failure.  visit is called with no lock held.
*/
typedef struct eg_past {
  eg_bytes key;
  uint64_t token;
  eg_status status; /* OK, FAILED or TIMEOUT */
  int64_t start_us, duration_us;
  eg_bytes error; /* text, cut to what the store keeps */
  eg_bytes owner; /* the text of who ran it, where it is kept */
  bool exited;
  int exit_status; /* where it exited */
} eg_past;
typedef bool (*eg_visit_past)(void *ctx, const eg_past *past);
EG_API eg_status eg_history(eg_guard *guard, eg_bytes key, size_t n,
                            eg_visit_past visit, void *ctx, eg_error *error);

/*
** eg_rebuild: what can still be read of the database of a store of files
** (`store`: its URL) becomes a new one; processes that have it open go on with
** that.  A key whose record could not be read answers CORRUPT until it is
** reset: its work may have been done.  So does every key that is known from
** its lock file or the history and has no record, unless the store knows that
** it never had one.  env may be NULL.  OK; UNSUPPORTED (other stores); a
** failure, and then nothing was changed.
*/
typedef struct eg_rebuilt {
  bool whole;       /* nothing is wrong with it: nothing was done */
  uint64_t records; /* that were read */
  uint64_t history; /* ended runs that were read */
  uint64_t blocked; /* keys that answer CORRUPT */
  uint64_t unnamed; /* lock files of keys too long for their names to tell */
  char kept[48];    /* the old database, in the same folder */
} eg_rebuilt;

EG_API eg_status eg_rebuild(const char *store, const eg_env *env,
                            eg_rebuilt *rebuilt, eg_error *error);

/* What all guards of this process have done since it started. */
typedef struct eg_stats {
  uint64_t executions, blocked, cached, timed_out, failed;
} eg_stats;
EG_API void eg_stats_read(eg_stats *stats);

/* How many records there are by status, and in all, and what their runs came
** to; reads every one. */
typedef struct eg_census {
  uint64_t total, by_run[EG_RUN_COUNT];
  uint64_t corrupt;     /* in total, and of no status */
  uint64_t held;        /* by runs and locks */
  uint64_t only_locked; /* of these; they have no record, so not in total */
  uint64_t executions, failed, timed_out, lost;
  eg_times times;
  uint64_t blocked, cached;
  eg_times waits;
} eg_census;
EG_API eg_status eg_take_census(eg_guard *guard, eg_census *census,
                                eg_error *error);

/*
** METRICS, for Prometheus and its kin.
**
** eg_write_metrics: the records of a guard's namespace in numbers, as text:
** records by status, keys that are held, executions, failures and run times,
** in all and of the `top` keys that were asked for most often; what is left of
** the keys is one, "other".  guard NULL: of all guards of the process that are
** open, each namespace once, and the process's own counts.  Every record is
** read; memory is bounded by top (about 1 KiB each).
**
** write is called with no lock held, with at most 4 KiB at a time, after all
** was read; it returns false to stop.  OK; CANCELED (write said so); NOMEM; of
** one guard also a failure of its store, and then nothing was written.  May
** block as long as the stores do; eg_close of a guard that is read by another
** thread waits for that.
**
** EG_METRICS_TEXT is what Prometheus takes whatever it asks for, and promtool
** checks.  EG_METRICS_OPENMETRICS is OpenMetrics 1.0 to the letter: the same,
** but that the lines that describe a counter name it without its _total.
** eg_metrics_type: for the Content-Type of an answer.
*/
#define EG_METRICS_TOP ((size_t)50) /* where nobody says */

typedef enum eg_metrics_format {
  EG_METRICS_TEXT,
  EG_METRICS_OPENMETRICS
} eg_metrics_format;

typedef bool (*eg_write)(void *ctx, const void *data, size_t n);
EG_API eg_status eg_write_metrics(eg_guard *guard, size_t top,
                                  eg_metrics_format format, eg_write write,
                                  void *ctx, eg_error *error);
EG_API const char *eg_metrics_type(eg_metrics_format format);

/*
** eg_next_forgotten: takes one key whose opaque result was dropped because its
** record's time was over, so that its keeper can drop the value too: copies at
** most EG_KEY_MAX bytes to key, returns their number, 0 when there is none.
** Only a private namespace keeps that list.
*/
EG_API size_t eg_next_forgotten(eg_guard *guard, void *key);

/*
** eg_run_once: acquire, work, commit.  work is called at most once, with no
** lock of the library held, and fills *outcome (what it points to must live
** until work's ctx does); deadline of the work is timeout_ms after its start
** (0: none): a later return is recorded and returned as TIMEOUT.  Returns what
** eg_acquire returns where work did not run (reply filled), else OK, FAILED,
** TIMEOUT, LOST or a failure of eg_commit.
*/
typedef void (*eg_work)(void *ctx, const eg_grant *grant, eg_outcome *outcome);
EG_API eg_status eg_run_once(eg_guard *guard, eg_bytes key, eg_work work,
                             void *ctx, const eg_policy *policy,
                             int64_t timeout_ms, int64_t wait_ms,
                             eg_reply *reply);

#ifdef __cplusplus
}
#endif
#endif
