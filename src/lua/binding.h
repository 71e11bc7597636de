/* SPDX-License-Identifier: MIT
** What the files of the Lua binding share.  It sees the library only through
** executionguard.h.
**
** ERRORS.  A Lua error leaves a C function by longjmp, so nothing that C owns
** may be held where one can be raised: while a grant is open only calls that
** cannot raise are made outside lua_pcall, and memory of a reply is freed
** before anything is pushed that takes memory.
*/
#ifndef EG_LUA_BINDING_H
#define EG_LUA_BINDING_H

#include "executionguard_host.h"

#include <lauxlib.h>
#include <lua.h>
#include <stdatomic.h>

/* ---- one for each Lua state (universe): module.c ---- */

typedef struct eb_run eb_run;
typedef struct eb_waiter eb_waiter;

typedef struct eb_state {
  uint32_t id;     /* eg_options.state of its guards */
  eb_run *runs;    /* open runs of this state, the latest first */
  int64_t parked;  /* frames of coroutines that have yielded */
  uint64_t random; /* for jitter */
  int errors;      /* height of the stash */
  bool logger;     /* log.c: there is one for all guards */
  /* waiting.c */
  eg_bell *bell;      /* NULL: nothing has been waited for */
  eb_waiter *waiters; /* those who wait, the latest first */
  long outside;       /* what goes on elsewhere, and will call */
  bool waits_yield;   /* somebody runs coroutines here */
  /* run_late.c: runs whose deadline came while they were suspended */
  _Atomic(eb_run *) fired; /* pushed by the keeper */
  eb_run *fresh;           /* taken from there */
  eb_run *late;            /* to be resumed by who runs the coroutines */
  eg_call late_call;       /* rung for when there are some */
  long deadlines;          /* suspended runs that theirs will end */
  bool telling;
  bool put_off;      /* run_callbacks.c: callbacks are still to be called */
  lua_State *unseen; /* job.c: a coroutine that nobody can know of */
} eb_state;

/* Every function of the module is a closure over these. */
enum {
  EB_UP_STATE = 1, /* eb_state */
  EB_UP_CACHED,    /* the string "cached" */
  EB_UP_HANDLER,   /* message handler of guarded functions */
  EB_UP_STASH,     /* what the handler found out: {error, text, trace} */
  EB_UP_OPTIONS,   /* option name -> index into the table of options */
  EB_UPVALUES = EB_UP_OPTIONS
};

static inline eb_state *eb_get_state(lua_State *L) {
  return lua_touserdata(L, lua_upvalueindex(EB_UP_STATE));
}

/* Pushes the upvalues, in their order, as made for this Lua state. */
void eb_push_upvalues(lua_State *L);

/* Registers functions that close over the EB_UPVALUES on top of the stack
** (which stay there) in the table below them. */
void eb_set_functions(lua_State *L, const luaL_Reg *functions);

/* Makes the metatable of that name; its functions close over the upvalues. */
void eb_make_metatable(lua_State *L, const char *name,
                       const luaL_Reg *functions);

/* ---- options: options.c ---- */

typedef struct eb_retry {
  int64_t attempts;                /* how often fn is called at most */
  double delay, factor, max_delay; /* seconds */
  double jitter;                   /* 0: none .. 1: anywhere down to 0 */
} eb_retry;

typedef struct eb_settings {
  eg_policy policy;
  int64_t timeout_us;                            /* of the work; 0: none */
  int64_t wait_ms;                               /* for a lock */
  enum { EB_FAIL, EB_RUN_ALONE, EB_STALE } away; /* while the store is away */
  eb_retry retry;
  bool timed;     /* the caller gave a timeout: it interrupts */
  bool interrupt; /* unless he does not want that */
  double close_grace;
} eb_settings;

/* A function value that options name, to be fetched where it is needed. */
#define EB_ON_TIMEOUT "onTimeout"
#define EB_ON_LOST "onLost"

/* What only a new guard is told; the strings are in the table's values. */
typedef struct eb_creation {
  bool debug;
  const char *store, *name, *owner;
  uint32_t history;
} eb_creation;

void eb_settings_init(eb_settings *settings);

/* Reads the table at index into settings, which hold the defaults.  creation
** NULL: the options of a call.  Raises for anything it does not like. */
void eb_read_options(lua_State *L, int index, const char *method,
                     eb_settings *settings, eb_creation *creation);

/* Pushes the table option name -> index. */
void eb_push_option_names(lua_State *L);

/* The value at index, for a message: "the string 'x'", "nil", "a table".  May
** push something that keeps the text alive. */
const char *eb_describe(lua_State *L, int index);

/* Pushes the nearest of the known words to this one, in a clause, or "". */
void eb_push_did_you_mean(lua_State *L, const char *word,
                          const char *const *known);

/* Seconds at index, as an argument of a method; not negative, not NaN. */
double eb_check_seconds(lua_State *L, int index, const char *method,
                        const char *what);

/* Seconds to milliseconds or microseconds, never shorter; no more than
** EG_FOREVER. */
int64_t eb_ms(double seconds);
int64_t eb_us(double seconds);

/* ---- guard objects: guard_object.c ---- */

enum { EB_NOTES = 3, EB_NOTE_SIZE = 160 };

typedef struct eb_guard {
  uint64_t magic;
  const struct eb_guard *self; /* so that no other userdata looks like one */
  eg_guard *core;              /* NULL: closed */
  eb_state *state;
  bool shared;     /* results are stored, else kept as Lua values */
  bool debug, log; /* log: somebody listens to Info */
  bool opaque;     /* there is a table of values */
  int scans;       /* under way: the core is closed when the last is over */
  bool closing;
  eb_settings settings;
  struct { /* warnings of the store while it was opened */
    bool wanted;
    int n;
    char text[EB_NOTES][EB_NOTE_SIZE];
  } notes;
} eb_guard;

enum {
  EB_UV_VALUES = 1, /* of a private guard: key -> value of opaque results */
  EB_UV_OPTIONS,    /* the table given to new: callbacks and logger */
  EB_UV_SPARE,      /* a run userdata to be used again */
  EB_UV_COUNT = EB_UV_SPARE
};

#define EB_GUARD_MAGIC UINT64_C(0x45584543475541ff)

/* The guard at index 1; raises where there is none, or it is closed. */
eb_guard *eb_check_guard(lua_State *L, const char *method);

/* The core of a guard, for a call that follows at once: whatever allocates may
** run a finalizer, which may close the guard.  Raises where it is closed. */
eg_guard *eb_core(lua_State *L, const eb_guard *guard, const char *method);

/* The key at index 2; raises for what is no key. */
eg_bytes eb_check_key(lua_State *L, const char *method);

/* Raises for what cannot be called. */
void eb_check_callable(lua_State *L, int index, const char *method,
                       const char *what);

int eb_new(lua_State *L); /* ExecutionGuard.new */

/* The same for the library's own modules: a failure of the store is returned,
** nil and what eb_push_failure pushes. */
int eb_try_new(lua_State *L);
void eb_open_guard(lua_State *L);

/* Around a scan, in which user code may close the guard. */
void eb_begin_scan(eb_guard *guard);
void eb_end_scan(eb_guard *guard);

/* Raises the failure of a method, with its name in front. */
int eb_raise(lua_State *L, const char *method, const eg_error *error);

/* Pushes a failure as values: the word, the message, the errno if there was
** one.  Returns how many. */
int eb_push_failure(lua_State *L, const eg_error *error);

/* Pushes what the options at index (0: none) have under the name, failing that
** the options of the guard; else nil. */
void eb_push_callback(lua_State *L, int guard_index, int options_index,
                      const char *name);

/* ---- waiting: waiting.c, whose head tells of things outside ---- */

/* How a wait has ended, and who goes on then, in the C function that began
** it: with the stack as it was, its own frame gone.  reply is to be freed. */
typedef struct eb_wait_end {
  int (*then)(lua_State *L, struct eb_wait_end *end);
  eb_guard *guard;
  const char *method;
  eb_settings settings; /* a copy */
  eg_status status;
  eg_grant grant;
  eg_reply reply;
} eb_wait_end;

/* As eg_ask, with a policy.  *pending not NULL: it has to be waited; call
** eb_wait, which takes it over, with the guard at index 1, and return what
** that returns. */
eg_status eb_ask(lua_State *L, const eb_guard *guard,
                 const eg_request *request, eg_pending **pending,
                 eg_grant *grant, eg_reply *reply);
int eb_wait(lua_State *L, eg_pending *pending, eb_wait_end *end);

/* In the registry: expire(thread, owned, ask) -> boolean, by which a coroutine
** is resumed whose time is over.  owned: it is suspended in a function of
** ours, or was run by one.  False: nobody here runs it; ask: does anybody? */
#define EB_EXPIRE_FIELD "ExecutionGuard expire"

/* Pushes the function that lets some seconds pass, and may yield meanwhile.
** False: nothing was pushed, or nothing to be called; block. */
bool eb_push_pause(lua_State *L, const eb_state *state);

/* The bell of this Lua state; raises for lack of memory. */
eg_bell *eb_bell(lua_State *L, eb_state *state);

/* index: the thread or function to be woken. */
void eb_outside_begin(lua_State *L, eb_state *state, eg_call *call, int index);
void eb_outside_end(lua_State *L, eb_state *state, eg_call *call);

void eb_open_waiting(lua_State *L);
void eb_push_waiting(lua_State *L);   /* a table, below the upvalues on top */
void eb_finalize_state(lua_State *L); /* of the userdata on top */

/* ---- values: value.c ---- */

/* Bytes that grow, by malloc. */
typedef struct eb_bytes {
  unsigned char *data;
  size_t len, cap;
  unsigned char small[64];
} eb_bytes;

void eb_bytes_init(eb_bytes *bytes);
void eb_bytes_free(eb_bytes *bytes);

/* Encodes the value at index as MessagePack, raising nothing.  False: why
** (text with the path, of size EB_WHY) says what cannot be stored. */
#define EB_WHY 200
bool eb_encode(lua_State *L, int index, size_t max, eb_bytes *bytes,
               char *why);

/* The same, until that time (EG_FOREVER: any), which others may set. */
bool eb_encode_until(lua_State *L, int index, size_t max,
                     const _Atomic int64_t *until_us, eb_bytes *bytes,
                     char *why);

/* Encodes nil, booleans and numbers; false for everything else. */
bool eb_encode_scalar(lua_State *L, int index, eb_bytes *bytes);

/* Pushes the value.  Raises for lack of memory. */
void eb_decode(lua_State *L, eg_bytes value);

/* ---- opaque values of private guards: opaque.c ---- */

/* Makes room for a value of the key at index 2, so that eb_opaque_set cannot
** fail.  False: no memory. */
bool eb_opaque_reserve(lua_State *L, eb_guard *guard);
void eb_opaque_set(lua_State *L, int value_index);
/* Pushes the value that is kept for the key, nil if none. */
void eb_opaque_get(lua_State *L, const eb_guard *guard, int key_index);
void eb_opaque_drop(lua_State *L, const eb_guard *guard, int key_index);

/* ---- running: run_once.c, run_*.c, shield.c ---- */

int eb_run_once(lua_State *L);
int eb_late(lua_State *L);

/* Runs that are late are told so; may_resume: or ended, by the scheduler or
** loop that calls this.  Raises nothing. */
void eb_call_late(lua_State *L, eb_state *state, bool may_resume);
static inline bool eb_has_late(eb_state *state) {
  return atomic_load_explicit(&state->fired, memory_order_relaxed) != NULL ||
         state->fresh != NULL;
}
void eb_void_runs(const eb_guard *guard); /* it is about to be closed */

/* When the deadline of a suspended run of that key frees it, if it was given
** and comes by then; else EG_FOREVER.  Of a run in which this is called it
** frees nothing: that ends with its caller. */
int64_t eb_run_frees(const eb_state *state, const eb_guard *guard,
                     eg_bytes key, int64_t by_us);
int eb_expired(lua_State *L);
int eb_shield(lua_State *L);
void eb_open_run(lua_State *L);
void eb_open_shield(lua_State *L);

/* ---- retry.c ---- */

/* Does retry.on of the options want this error tried again?  Without it, yes;
** when it fails itself, no.  Raises nothing. */
bool eb_retry_wanted(lua_State *L, int guard_index, int options_index,
                     int error_index, int64_t attempt);

/* Seconds until the next attempt: exponential back-off with jitter. */
double eb_retry_delay(eb_state *state, const eb_retry *retry, int64_t attempt);

/* ---- what an error says: error_text.c ---- */

/* The message handler of guarded functions; closes over stash and state. */
int eb_handler(lua_State *L);

/* Pushes text and traceback of the error object at index, as noted since the
** stash had that height, and forgets them.  Takes no memory, so it raises
** nothing. */
void eb_take_error_texts(lua_State *L, int index, int height);

/* Pushes what the error object at that absolute index says.  Raises nothing
** but for want of memory. */
void eb_push_error_text(lua_State *L, int index);

/* What the record keeps of a text that was pushed so. */
eg_bytes eb_error_text(lua_State *L, int index);

/* ---- the other methods ---- */

extern const luaL_Reg eb_lock_methods[];    /* lock.c */
extern const luaL_Reg eb_query_methods[];   /* query.c */
int eb_history(lua_State *L);               /* history.c: one of them */
int eb_guard_metrics(lua_State *L);         /* metrics.c: the same */
int eb_metrics(lua_State *L);               /* metrics.c: of all guards */
extern const luaL_Reg eb_stats_functions[]; /* analytics.c */
extern const luaL_Reg eb_clock_functions[]; /* testing.c */
void eb_open_lock(lua_State *L);
void eb_open_query(lua_State *L);

/* query.c: sets a field of the table on top; us: in seconds. */
void eb_set_count(lua_State *L, const char *name, uint64_t n);
void eb_set_seconds(lua_State *L, const char *name, int64_t us);
void eb_set_times(lua_State *L, const char *name, const char *n,
                  const eg_times *times);
void eb_set_record_counts(lua_State *L, const eg_record *record);
void eb_set_record_times(lua_State *L, const eg_record *record);

/* A record whose memory is freed at the latest when it is collected.  A table
** with a call that is a step of next. */
eg_record *eb_push_record(lua_State *L);
void eb_push_snapshot(lua_State *L, int fields);

/* Scans with `each` (1 private, 2 record, 3 collection, 4 guard); the guard is
** at 1, the collection at 2, the top. */
void eb_scan(lua_State *L, const char *method, eb_guard *guard,
             lua_CFunction each);
int eb_get_analytics(lua_State *L); /* analytics.c: a method of query.c */

/* Pushes a table of who holds a key. */
void eb_push_owner(lua_State *L, const eg_owner *owner);

/* Pushes the result that is kept under the key; nil where none is. */
void eb_push_result(lua_State *L, const eb_guard *guard, int key_index,
                    eg_kind kind, eg_bytes value);

/* ---- what executionguard.isolation is made of: isolation.c ---- */

void eb_push_fence(lua_State *L);

/* ---- the end of the process: leave.c ---- */

/* SIGTERM first gives back what guards on servers hold, unless that is not
** wanted. */
void eb_mind_term(const eg_guard *core);
int eb_configure_term(lua_State *L); /* terminate(boolean) */
void eb_push_isolation(lua_State *L);

/* ---- the log: log.c ---- */

/* The key at index 2, for a log line; it may end early at a zero byte. */
const char *eb_key_text(lua_State *L);

/* Format and say, also told the key at index 2.  Raise nothing. */
void eb_log_info(lua_State *L, const eb_guard *guard, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void eb_log_warn(lua_State *L, const eb_guard *guard, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int eb_set_logger(lua_State *L);

/* ---- terminal.c ---- */

/* terminal(file) -> columns; nil: it is none */
int eb_terminal(lua_State *L);

/* ---- summary.c ---- */

/* summary(guard, top, columns, ascii, rows) -> the lines of printSummary; rows
** of the box are {label, number}, {label} for a heading, {} for a rule. */
int eb_summary(lua_State *L);

/* ---- the test clock: testing.c ---- */

void eb_push_testing(lua_State *L);

/* ---- text.c: what C code writes in pieces (an eg_write) ---- */

typedef struct eb_text {
  char *data;
  size_t n, cap;
  bool no_memory;
} eb_text;

/* Pushes an empty one.  It is freed at the latest when it is collected, for
** Lua may raise an error in between. */
eb_text *eb_text_push(lua_State *L);
bool eb_text_add(void *text, const void *data, size_t n);
void eb_text_clear(eb_text *text);

void eb_push_tracing(lua_State *L); /* trace.c */

#endif
