/* SPDX-License-Identifier: MIT
** What the files of the guard share.
**
** LOCKS, in the order in which they are taken: the keeper's work lock; the
** lines of waiters (line.c); that of the attendants (attend.h); those of
** counting (counting.h); a store's own; a bell's, or that of the keeper's
** sleep; then the test clock's; then the list of guards (owner.c).  No lock of
** this layer is held while a store is called but the first, where the store
** cannot block, that of a line where egi_is_quick, and those of counting where
** it is in memory.  A fork takes all of them, but for lines and bells the gate
** before them (fork.c).
*/
#ifndef EG_GUARD_GUARD_H
#define EG_GUARD_GUARD_H

#include "core/counters.h"
#include "core/histogram.h"
#include "core/tally.h"
#include "guard/attend.h"
#include "guard/counting.h"

#include <stdatomic.h>

typedef struct egi_history egi_history;

enum { EGI_DOUBTS = 16 };

struct eg_guard {
  const egi_store_ops *ops;
  egi_store *store;
  bool by_apply; /* else by the loop over swap */
  bool named;
  eg_env env;
  uint32_t state, number; /* who this is within the process */
  char owner[EG_OWNER_MAX + 1];
  char name[EG_NAME_MAX + 1]; /* "": it has none */
  uint64_t url_sum;           /* of its store's URL; see metrics.c */
  unsigned pins;              /* who reads it in other threads; owner.c */
  bool closing;               /* the same: nobody may begin to */
  egi_history *history;       /* NULL: none is kept */
  /* Tokens of commits that may have landed, the latest few; loop.c. */
  _Atomic uint64_t doubts[EGI_DOUBTS], doubt_sums[EGI_DOUBTS];
  atomic_uint doubted;
  eg_guard *next; /* in the list of guards */
  egi_attendant attendant;
  egi_counting counting;
};

/* May a line of waiters look at a key with its lock held, and for another
** thread?  Where others can change it, it waits by the store. */
static inline bool egi_is_quick(const eg_guard *guard) {
  return guard->by_apply && guard->store->inside;
}

/* ---- error.c: filling an eg_error; both return the status ---- */

eg_status egi_fail(eg_error *error, eg_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
eg_status egi_fail_errno(eg_error *error, eg_status status, int os_errno,
                         const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- env.c: the injected world ---- */

/* Fills what is NULL. */
void egi_env_complete(eg_env *env);
void *egi_alloc(const eg_env *env, size_t size);
void egi_free(const eg_env *env, void *ptr, size_t size);

/* A steady deadline in wait_ms from now; EG_FOREVER stays. */
int64_t egi_deadline(int64_t now_us, int64_t wait_ms);

/* ---- clock.c ---- */

/* The clock in force, whichever eg_set_clock set last. */
const eg_clock *egi_process_clock(void);

/* Blocks the thread that long by a clock. */
void egi_sleep(const eg_clock *clock, int64_t us);

static inline int64_t egi_now(const eg_env *env) {
  return env->clock->now_us(env->clock->ctx);
}

/* What that is now. */
const eg_clock *egi_clock_in_force(void);

/* Is that one for tests, which waiting moves? */
bool egi_clock_jumps(void);

/* ---- keeper.c: threads, deadlines ---- */

/* What each thread of the process has; never freed, used again. */
typedef struct egi_thread {
  _Atomic uint64_t counts[EGI_COUNTERS];
  struct egi_thread *next;
  _Atomic(egi_count_table *) table; /* by key; NULL: none was needed yet */
} egi_thread;

/* The one thread-local word of the library: there is little room for those
** that need no allocation, and a signal handler may make none.  NULL: this
** thread has none yet. */
extern _Thread_local egi_thread *egi_here
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* Makes one for the calling thread; NULL: no memory.  Takes no lock. */
egi_thread *egi_thread_take(void);
egi_thread *egi_threads(void); /* the first of all */

/* Its work lock, which guards the parked timers and what of the others the
** keeper and threads other than the owner may touch. */
void egi_work_lock(void);
void egi_work_unlock(void);

/* The clock was moved or exchanged: the keeper looks again, soon. */
void egi_keeper_ring(void);

/* Something is due at that time: the keeper is woken if it would sleep longer,
** and started if it is not there. */
void egi_keeper_expect(int64_t due_us);

/* The same as egi_keeper_ring, and it has looked on return, and so have the
** attendants, so that a test can rely on it.  To be called without any lock.
** Nothing under the machine's clock. */
void egi_keeper_settle(void);

/* ---- timer.c: what the owners of timers do, and what is done to them ---- */

/* The grant of a timer is gone.  Under work and the attendants' lock; the
** keeper is to be told after them to look at once. */
void egi_timer_lose(eg_timer *timer);

/* Stores a run as timed out. */
eg_status egi_timer_commit(eg_timer *timer);

/* Does the guard hold anything that may be lost? */
static inline bool egi_holds_any(const eg_guard *guard) {
  return atomic_load_explicit(&guard->attendant.holds.n,
                              memory_order_relaxed) > 0;
}

/* ---- park.c: timers that belong to no thread, a heap by deadline ---- */

/* All under the keeper's work lock. */
void egi_park_add(eg_timer *timer);
void egi_park_remove(eg_timer *timer);
eg_timer *egi_park_first(void);

/* ---- fork.c: everything is whole when a process forks ---- */

typedef enum egi_fork {
  EGI_FORKING,
  EGI_FORKED_PARENT,
  EGI_FORKED_CHILD
} egi_fork;

/* Registers the handlers, once. */
void egi_fork_init(void);

/* Around what takes the locks of lines and bells.  After work, before all
** others; never twice. */
void egi_gate_enter(void);
void egi_gate_leave(void);

/* Of each file that has locks.  In the child, mutexes are made anew. */
void egi_keeper_fork(egi_fork phase);
void egi_sleep_fork(egi_fork phase);
void egi_leave_fork(egi_fork phase); /* leave.c */
void egi_timer_forked(void);
void egi_attend_fork(egi_fork phase);
void egi_owner_fork(egi_fork phase); /* also the stores of all guards */
void egi_test_clock_fork(egi_fork phase);
void egi_line_forked(void);

/* What all but the last do with a mutex. */
void egi_mutex_fork(pthread_mutex_t *mutex, egi_fork phase);

/* ---- url.c, key.c: what the caller names ---- */

/* Parses a store URL; rest and query point into it. */
eg_status egi_url_parse(const char *text, egi_url *url, eg_error *error);

/* Whether a parameter of the query has this value. */
bool egi_url_has(const egi_url *url, const char *parameter, const char *value);

static inline bool egi_is_key(eg_bytes key) {
  return key.len >= 1 && key.len <= EG_KEY_MAX && key.data != NULL;
}
eg_status egi_check_key(eg_bytes key, eg_error *error);
eg_status egi_check_name(const char *name, eg_error *error);

/* ---- owner.c: who holds a key ---- */

/* The owner line of this guard, since then; EGI_NO_TIME: since now, or a few
** milliseconds ago.  text NULL: the guard's own.  line has room for
** EGI_HOLDER_MAX. */
eg_bytes egi_owner_line(const eg_guard *guard, const char *text,
                        int64_t since_us, unsigned char *line);

/* Is this the line of this guard?  Of its state? */
bool egi_owner_is_guard(const eg_guard *guard, eg_bytes line);
bool egi_owner_is_here(const eg_guard *guard, eg_bytes line);
bool egi_owner_is_state(const eg_guard *guard, eg_bytes line);

void egi_owner_read(const eg_guard *guard, eg_bytes line, eg_owner *owner);

/* ---- far_owner.c: the same on a store that other processes share ---- */

eg_bytes egi_far_line(const eg_guard *guard, const char *text,
                      uint64_t attempt, unsigned char *line);
bool egi_far_is_guard(const eg_guard *guard, eg_bytes line);
bool egi_far_is_here(eg_bytes line);
bool egi_far_is_state(const eg_guard *guard, eg_bytes line);
void egi_far_read(const eg_guard *guard, eg_bytes line, eg_owner *owner);

/* A random number, never 0. */
uint64_t egi_random(void);

void egi_owner_enlist(eg_guard *guard, const char *text);
void egi_owner_delist(eg_guard *guard);

/* All guards that are open and not being closed, pinned: eg_close waits until
** they are not any more.  False: no memory.  Between the two nothing of the
** caller's is called but the allocator. */
typedef struct egi_pinned {
  eg_guard **guards;
  size_t n, cap;
} egi_pinned;
bool egi_owner_pin(const eg_env *env, egi_pinned *pinned);
void egi_owner_unpin(const eg_env *env, egi_pinned *pinned);

/* Waits until nobody has pinned the guard, and nobody will. */
void egi_owner_leave_alone(eg_guard *guard);

/* ---- stats.c ---- */

void egi_count(unsigned counter); /* an egi_counter */

/* ---- counting.c: the same by key; counting.h has the rules ---- */

void egi_counting_open(eg_guard *guard);
void egi_counting_close(eg_guard *guard); /* sends, a second at most */

/* The outcome of asking for a run; of one that was settled, with the key's
** tag; and a wait for the key. */
void egi_count_outcome(eg_guard *guard, eg_bytes key, eg_status status);
static inline void egi_count_settled(eg_guard *guard, eg_bytes key,
                                     uint64_t tag, eg_status outcome);
void egi_count_wait(eg_guard *guard, eg_bytes key, int64_t us);

/* The attendant's: sends some of what is new.  Returns when it wants to be
** called next.  egi_counting_send: all of it, until then. */
int64_t egi_counting_visit(eg_guard *guard, int64_t now_us);
void egi_counting_send(eg_guard *guard, int64_t until_us);

/* What is counted of a key; of all that begin with prefix (and of others), to
** be freed with egi_ledger_free. */
eg_status egi_counts_of(eg_guard *guard, eg_bytes key, egi_counts *counts,
                        eg_error *error);
eg_status egi_counts_all(eg_guard *guard, eg_bytes prefix, egi_ledger *into,
                         eg_error *error);
egi_account *egi_counts_find(const egi_ledger *ledger, eg_bytes key);

void egi_counting_fork(egi_fork phase); /* all tables */
void egi_counting_guard_fork(eg_guard *guard, egi_fork phase);

/* What is seldom; apart from what is not. */
void egi_count_slowly(eg_guard *guard, eg_bytes key, uint64_t tag,
                      unsigned which) __attribute__((noinline));
void egi_count_noted(eg_guard *guard) __attribute__((noinline));

/* One more of a key; tag as egi_store_ops.peek says it. */
static inline void egi_count_key(eg_guard *guard, eg_bytes key, uint64_t tag,
                                 unsigned which) {
  egi_count_table *table = egi_here == NULL
                               ? NULL
                               : atomic_load_explicit(&egi_here->table,
                                                      memory_order_relaxed);
  if (table != NULL) {
    egi_count_place *place = &table->places[tag % EGI_SETS * EGI_WAYS];
    for (unsigned way = 0; way < EGI_WAYS; way++, place++)
      if (place->tag == tag && place->guard == guard) {
        _Atomic uint64_t *n = &place->counts[which];
        uint64_t value = atomic_load_explicit(n, memory_order_relaxed);
        atomic_store_explicit(n, value + 1, memory_order_relaxed);
        if (!atomic_load_explicit(&guard->counting.noted,
                                  memory_order_relaxed))
          egi_count_noted(guard);
        return;
      }
  }
  egi_count_slowly(guard, key, tag, which);
}

static inline void egi_count_settled(eg_guard *guard, eg_bytes key,
                                     uint64_t tag, eg_status outcome) {
  bool cached = outcome == EG_CACHED;
  egi_count(cached ? EGI_CACHED : EGI_BLOCKED);
#ifndef EG_NO_COUNTERS
  egi_count_key(guard, key, tag, cached ? EGI_OF_CACHED : EGI_OF_BLOCKED);
#else
  (void)guard;
  (void)key;
  (void)tag;
#endif
}

/* ---- history.c ---- */

eg_status egi_history_open(const eg_env *env, uint32_t size,
                           egi_history **history, eg_error *error);
void egi_history_close(egi_history *history, const eg_env *env);
void egi_history_fork(egi_history *history, egi_fork phase);
void egi_history_add(eg_guard *guard, const eg_past *past);

/* ---- step.c: one event on one key ---- */

/* Bytes that grow when a step says so.  data is small or heap. */
typedef struct egi_buffer {
  unsigned char *data;
  size_t cap, len;
  size_t need; /* set with GROW */
  eg_memory memory;
} egi_buffer;

typedef struct egi_step {
  eg_guard *guard;
  eg_bytes key;
  const eg_policy *policy;
  egi_event event;
  bool here;          /* RELEASE: of any guard of this process */
  bool apart;         /* its wait is counted by who asks (eg_request) */
  int64_t now_us;     /* or EGI_NO_TIME */
  uint64_t attempt;   /* in the owner line, where other processes see it */
  egi_buffer *buffer; /* what is put, or what the answer needs of the record */
  /* the answer */
  eg_status outcome;
  int64_t left_us;
  egi_sight sight;
  uint64_t version, token;
  egi_head head;
  int64_t lease_ms; /* of the grant that was made */
  bool same_state;  /* held by the guard's own state */
  uint64_t gone;    /* a token that is over, though how is not known */
  unsigned char line[EGI_HOLDER_MAX]; /* FETCH: owner line that was met */
  size_t line_len;
} egi_step;

/* Does its lease run for sure, by what is known here? */
bool egi_believes(eg_guard *guard, eg_bytes key, uint64_t token);

/* Does one event, in as many tries as it takes.  Returns the outcome or a
** failure. */
eg_status egi_step_run(egi_step *step, eg_error *error);

/* The step as a store's apply calls it, and the loop (egi_decide_fn). */
egi_verdict egi_step_decide(void *step, const egi_seen *seen, egi_swap *swap);

/* ---- loop.c: the same on a store that is a round trip away.  OK: done, see
** step->outcome; or a failure. ---- */
eg_status egi_step_loop(egi_step *step, eg_error *error);

/* Most calls ask for a run that is done: this looks whether it is, in a key
** that nobody holds and that has no times, and costs no more than that.  NONE:
** *outcome is CACHED or COMPLETED, *reply says what is kept, *tag is the
** key's.  NOW: work will most likely start.  Else: nothing is known, do the
** step. */
egi_verdict egi_peek_run(const eg_guard *guard, eg_bytes key,
                         const eg_policy *policy, eg_reply *reply,
                         eg_status *outcome, uint64_t *tag);

void egi_buffer_init(egi_buffer *buffer, void *small, size_t size);
bool egi_buffer_grow(egi_buffer *buffer, const eg_env *env);
void egi_memory_free(eg_memory *memory);

/* ---- verbs.c: the answer of a step ---- */

/* Puts it into a reply, with what the step's buffer holds. */
void egi_reply_take(eg_reply *reply, egi_step *step, eg_status status);
void egi_grant_fill(eg_grant *grant, const egi_step *step);

/* ---- wait.c ---- */

/* An acquire was refused: is there anything to wait for, and time for it? */
bool egi_wait_worth(const egi_step *step, eg_status status, int64_t wait_ms);

/* Then: waits in this thread, and returns as egi_step_run. */
eg_status egi_wait_block(const egi_step *refused, eg_status status,
                         int64_t wait_ms, eg_grant *grant, eg_reply *reply);

/* Or begins to wait: *pending is NULL when that was over at once. */
eg_status egi_wait_begin(const egi_step *refused, eg_status status,
                         int64_t wait_ms, eg_bell *bell, eg_pending **pending,
                         eg_grant *grant, eg_reply *reply);

/* ---- line.c: the order of those who wait ---- */

/* The grant on a key ended, or the key changed for those who wait: the first
** is served.  Without any lock of a store. */
void egi_line_freed(const eg_guard *guard, eg_bytes key);

/* A guard is being closed: its waits end; and it was closed: keys of that
** space may be free. */
void egi_line_close(const eg_guard *guard);
void egi_line_closed(const void *space);

/* ---- read.c ---- */

/* The record as a reader sees it, from what a store says. */
eg_status egi_read(eg_guard *guard, eg_bytes key, const egi_seen *seen,
                   eg_record *record, eg_error *error);

/* ---- trace.c: nothing but a look while nothing is recorded ---- */

extern atomic_bool egi_tracing;

#ifdef EG_NO_TRACE /* what the bench compares with */
static inline bool egi_traces(void) { return false; }
#else
static inline bool egi_traces(void) {
  return atomic_load_explicit(&egi_tracing, memory_order_relaxed);
}
#endif

/* What came of a step. */
void egi_trace_step(const egi_step *step);

/* A wait begins; its number is for its end.  With 0 its end is not noted. */
uint64_t egi_trace_wait(const eg_guard *guard, eg_bytes key);
void egi_trace_waited(const eg_guard *guard, eg_bytes key, uint64_t wait,
                      eg_status status, uint64_t token);

/* This thread has taken a lock for one that waits. */
void egi_trace_handed(const eg_guard *guard, eg_bytes key, uint64_t token);

void egi_trace_fork(egi_fork phase);

/* ---- census.c ---- */

/* Fills failed, timed_out and lost of a record that was read. */
void egi_count_runs(eg_record *record);

/* A census that is being taken, a record at a time.  egi_gather is an
** eg_visit; egi_gathered: that were all. */
typedef struct egi_gathering {
  eg_census *census;
  egi_histogram histogram, waits;
  int64_t total_us, waits_us;
} egi_gathering;

bool egi_gather(void *ctx, const eg_record *record);
void egi_gathered(egi_gathering *gathering);
/* All runs of a record: the last one and those before it. */
void egi_record_tally(const eg_record *record, egi_tally *tally);

#endif
