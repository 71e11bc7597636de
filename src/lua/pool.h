/* SPDX-License-Identifier: MIT
** The pool of OS threads that run jobs: works, their queue, the threads.
**
** A WORK is one call of a function in a worker's Lua state.  Two hold it: the
** owner (a Lua state, by a userdata) and, until it is over there, the pool.
**
**   QUEUED ── taken ──► RUNNING ── returned ──► ENDED ── by both ──► freed
**      └── canceled ──────────────────────────►
**                          └── abandoned ──► LOST (its thread ends later)
**
** LOCKS.  One mutex guards the queue, the threads and what is marked (m) in a
** work.  With it held the keeper's locks and a bell's are taken, and nothing
** of Lua is called.
*/
#ifndef EG_LUA_POOL_H
#define EG_LUA_POOL_H

#include "lua/binding.h"

#include <stdatomic.h>

typedef struct eb_blob {
  unsigned char *data;
  size_t len;
} eb_blob;

bool eb_blob_set(eb_blob *blob, const void *data, size_t len);
void eb_blob_free(eb_blob *blob);

typedef enum eb_stage { EB_QUEUED, EB_RUNNING, EB_ENDED, EB_LOST } eb_stage;

/* Why a work is to end; the largest counts. */
enum { EB_GOES_ON, EB_DEADLINE, EB_CANCELED };

typedef enum eb_end { EB_OK, EB_FAILED, EB_EXITED, EB_NO_MEMORY } eb_end;

/* The code of a function: kept by the userdata of job.worker and by works. */
typedef struct eb_code {
  atomic_int refs;
  uint64_t id; /* by which workers remember what they have loaded */
  bool module; /* text is a module's name, else a dumped function */
  eb_blob text, path, cpath;
} eb_code;

typedef struct eb_line {
  struct eb_line *next;
  eb_blob text; /* MessagePack: [level, message, fields] */
} eb_line;

void eb_lines_free(eb_line **lines);

typedef struct eb_work {
  atomic_int refs;
  eb_code *code;
  eb_blob args; /* MessagePack: [id, labels, params] */
  int64_t deadline_us;
  _Atomic int64_t grace_us;    /* 0: its owner is gone */
  eb_stage stage;              /* m */
  eg_timer *timer;             /* m: while the function runs */
  eg_bell *bell;               /* m: of the owner; NULL: it is gone */
  eg_bell *sleeper;            /* m: of the worker's state, while it runs */
  eg_call call;                /* what the owner's bell rings for */
  eg_call nudge;               /* what the worker's bell rings for */
  eb_line *lines, **last_line; /* m: of the log */
  atomic_int why;
  _Atomic int64_t until_us;  /* then what it returned is not packed any more */
  _Atomic uint64_t progress; /* bits of a double */
  atomic_bool told;          /* the owner knows that there is progress */
  eb_end end;
  bool dirty;    /* the worker's state is not to be used again */
  eb_blob value; /* the result, or the error; MessagePack */
  eb_blob trace;
  eb_blob text;         /* of an error that is a table with __tostring */
  eb_blob kept;         /* by SetResult, of one that failed; MessagePack */
  struct eb_work *next; /* m: in the queue */
} eb_work;

void eb_code_release(eb_code *code);

eb_work *eb_work_new(eb_code *code);
void eb_work_release(eb_work *work);

/* Queues it; false: no thread could be started, and there is none. */
bool eb_pool_submit(eb_work *work, eg_error *error);

/* It is to end.  True: it was in the queue, and has ended. */
bool eb_pool_cancel(eb_work *work, int why);

/* Nobody waits for it any more; true: its thread is lost. */
bool eb_pool_abandon(eb_work *work);

/* The owner's Lua state goes. */
void eb_pool_disown(eb_work *work);

/* Its stage, and behind the lines what it has said since. */
eb_stage eb_pool_look(eb_work *work, eb_line **lines);

/* For the worker. */
void eb_pool_tell(eb_work *work, eb_line *line);
void eb_pool_arm(eb_work *work, eg_timer *timer, eg_bell *sleeper);
void eb_pool_disarm(eb_work *work);

typedef struct eb_pool_stats {
  int limit, threads, busy, queued, lost;
} eb_pool_stats;

void eb_pool_stats_read(eb_pool_stats *stats);
void eb_pool_limit(int threads);
void eb_pool_memory(size_t bytes);
size_t eb_pool_memory_each(void);
void eb_pool_result(size_t bytes);
size_t eb_pool_result_most(void); /* bytes of a result */

/* Threads that are at no work end, and it waits for that. */
void eb_pool_drain(void);

/* ---- worker_state.c: the Lua state of a thread ---- */

typedef struct eb_worker eb_worker;

/* NULL: no memory. */
eb_worker *eb_worker_open(void);
void eb_worker_close(eb_worker *worker);
void eb_worker_run(eb_worker *worker, eb_work *work);

/* Pushes what worker_side.lua is made of; upvalues on top. */
void eb_push_worker_side(lua_State *L);

/* ---- worker.c: the owner's side ---- */

void eb_push_worker(lua_State *L);

#endif
