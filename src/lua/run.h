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
  lua_State *L;
  eg_grant grant;
  eg_bytes key;                /* kept alive by the stack or the userdata */
  const eb_settings *settings; /* own, the guard's, or of the call's frame */
  int64_t attempt;
  int errors; /* height of the stash when fn was called */
  bool open;
  bool armed;           /* frame and timer are in use */
  eg_status kept;       /* OK, or what the keeper stored at the deadline */
  eb_run *next, **link; /* in the state's list */
  eb_frame frame;
  eg_timer timer;
  eb_settings own; /* where it has to outlive the call's frame */
};

/* The run of a frame. */
static inline eb_run *eb_run_of(const eb_frame *frame) {
  return (eb_run *)((char *)frame - offsetof(eb_run, frame));
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

/* Calls onTimeout or onLost with the key; what it raises is only logged. */
void eb_notify_run(lua_State *L, const eb_run *run, const char *name);

/* onTimeout of a run that a guard further out has ended is called after that
** one's.  None of them raises. */
void eb_put_off(lua_State *L, const eb_run *run);
void eb_call_put_off(lua_State *L, const eb_run *run);

/* ---- run_end.c: each returns how many results of RunOnce it pushed ---- */

int eb_answer(lua_State *L, const char *reason); /* false, nil, reason */
int eb_end_ok(lua_State *L, eb_run *run);

/* fn failed, and its error object is at EB_AT_RESULT (raised); or what it
** returned cannot be stored, and the text says why. */
int eb_end_failed(lua_State *L, eb_run *run, bool raised, eg_bytes text,
                  eg_bytes trace);

/* ---- run_refused.c ---- */

int eb_refuse(lua_State *L, const eb_guard *guard, eg_status status,
              eg_reply *reply);

#endif
