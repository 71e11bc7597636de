/* SPDX-License-Identifier: MIT
** A run of RunOnce: what the files share that start it, watch it and end it.
*/
#ifndef EG_LUA_RUN_H
#define EG_LUA_RUN_H

#include "lua/interrupt.h"

#include <stddef.h>

/* The Lua stack of a run. */
enum {
  EB_AT_GUARD = 1,
  EB_AT_KEY,
  EB_AT_FN,
  EB_AT_OPTIONS, /* or nil */
  EB_AT_RUN,     /* or nil: it is on the C stack */
  EB_AT_HANDLER,
  EB_AT_RESULT, /* what fn returned or raised */
  EB_AT_TEXT,
  EB_AT_TRACE /* traceback of an error */
};

struct eb_run {
  eb_guard *guard;
  eb_state *state;
  lua_State *L;
  eg_grant grant;
  eg_bytes key;                /* kept alive by the stack or the userdata */
  const eb_settings *settings; /* own, the guard's, or of the call's frame */
  int64_t attempt;
  int errors; /* height of the stash when fn was called */
  bool open;
  bool armed;           /* frame and timer are in use */
  eg_status kept;       /* OK, or what the keeper stored at the deadline */
  bool yields;          /* it is in a userdata */
  bool told;            /* onTimeout was called */
  bool is_late;         /* in one of the state's lists of such */
  bool asks;            /* `again` is in use */
  eg_bell *bell;        /* rung when it is; or NULL */
  eb_run *next, **link; /* in the state's list */
  eb_run *late_next, **late_link;
  eb_frame frame;
  eg_timer timer;
  eg_timer again; /* when it is looked at anew, where it yields in its grace */
  eb_settings own; /* where it has to outlive the call's frame */
};

/* Values of the userdata of a run. */
enum { EB_RUN_GUARD = 1, EB_RUN_KEY, EB_RUN_OPTIONS, EB_RUN_VALUES = 3 };

/* The run of a frame. */
static inline eb_run *eb_run_of(const eb_frame *frame) {
  return (eb_run *)((char *)frame - offsetof(eb_run, frame));
}

static inline eb_run *eb_run_of_timer(eg_timer *timer) {
  return (eb_run *)((char *)timer - offsetof(eb_run, timer));
}

/* Is its grant still good?  One without a guard has none to lose. */
static inline bool eb_run_holds(const eb_run *run) {
  return run->grant.token == 0 ||
         eg_holds(run->guard->core, run->key, run->grant.token);
}

/* ---- run_object.c ---- */

void eb_link_run(lua_State *L, eb_run *run);

/* From eb_arm_run to eb_disarm_run the deadline is watched: the record ends at
** it, and fn too where the caller gave one himself. */
void eb_arm_run(lua_State *L, eb_run *run);
void eb_disarm_run(lua_State *L, eb_run *run);

/* Stores the outcome and takes the run off the list. */
eg_status eb_commit_run(eb_run *run, const eg_outcome *outcome,
                        eg_error *error);

/* Puts a run that can outlive the C frame at EB_AT_RUN: the guard's spare one,
** or failing that a new one.  NULL: no memory; an error object is there. */
eb_run *eb_push_run(lua_State *L);

/* ---- run_callbacks.c ---- */

/* Calls onTimeout or onLost with the key; what it raises is only logged.
** Raises where a guard further out is to be ended. */
void eb_notify_run(lua_State *L, const eb_run *run, const char *name);

/* The callback of a run that somebody further out has ended is called after
** that one's: see eb_call_put_off.  Raises nothing. */
void eb_put_off(lua_State *L, const eb_run *run, const char *name);

/* ---- run_late.c: a deadline that comes while the run is suspended ---- */

/* The run whose userdata is at EB_AT_RUN may yield from L.  False: no memory;
** an error object is on top. */
bool eb_watch_late(lua_State *L);

/* Before its timer is started: has the keeper tell of it, if it yields.  After
** it was stopped: no more. */
void eb_note_late(eb_run *run);
void eb_forget_late(eb_run *run);

/* It is not looked at anew. */
void eb_stop_asking(eb_run *run);

/* Calls the callback of a run that has ended by TIMEOUT or LOST (kept); its
** userdata is at index. */
void eb_tell_ended(lua_State *L, int index, eb_run *run);

/* ---- run_end.c: each returns how many results of RunOnce it pushed ---- */

int eb_answer(lua_State *L, const char *reason); /* false, nil, reason */

/* Logs it, and calls onTimeout, unless that was done. */
void eb_tell_timeout(lua_State *L, eb_run *run);
int eb_end_ok(lua_State *L, eb_run *run);

/* fn failed, and its error object is at EB_AT_RESULT (raised); or what it
** returned cannot be stored, and the text says why. */
int eb_end_failed(lua_State *L, eb_run *run, bool raised, eg_bytes text,
                  eg_bytes trace);

/* ---- run_refused.c ---- */

int eb_refuse(lua_State *L, const eb_guard *guard, eg_status status,
              eg_reply *reply);

#endif
