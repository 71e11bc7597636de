/* SPDX-License-Identifier: MIT
** Waits of the methods: for a lock, for the end of a run that was joined, for
** the next attempt.
**
** As long as nobody runs coroutines here, a wait blocks the thread.  Once
** executionguard.task is loaded, or a loop plugged in, it is a wait in
** progress (eg_acquire_begin) in a userdata on the Lua stack, and a function
** of that module is called to let time pass: it yields, or turns the
** scheduler, until the bell of this Lua state rings for it.  However that
** function ends, also by an error or because the coroutine is closed or
** collected, the userdata is closed, and with it the wait.
**
** THINGS OUTSIDE.  Whatever goes on elsewhere, a thread of C's say, and is to
** have a coroutine resumed: eb_outside_begin with an eg_call of its own and
** what is to be woken (a thread, once; or a function, which is called without
** arguments in a turn of the scheduler or the loop, and must not yield), then
** eg_bell_ring(eb_bell(L), call) in any thread as often as it likes, and
** eb_outside_end when it is over.  Meanwhile task.run() does not return, and
** nobody takes the program for stuck.  All but the ringing is done by the
** Lua state's thread.  In Lua the same is core.outside().
*/
#include "lua/interrupt.h"

#include <string.h>

static const char waiter_metatable[] = "ExecutionGuard waiter";
static const char outside_metatable[] = "ExecutionGuard outside";
static const char parked_field[] = "ExecutionGuard parked";
static const char wait_field[] = "ExecutionGuard wait";
static const char pause_field[] = "ExecutionGuard pause";

struct eb_waiter {
  eg_pending *pending; /* NULL: it is over */
  eb_state *state;
  eb_wait_end end;
  eb_waiter *next, **link; /* in the state's list */
  bool deadlock;           /* nobody can go on but by this one's giving up */
  eg_bytes key;            /* on the stack, below the userdata */
};

/* ------------------------------------------------------------ the bell -- */

eg_bell *eb_bell(lua_State *L, eb_state *state) {
  eg_error error;
  if (state->bell == NULL && eg_bell_open(NULL, &state->bell, &error) != EG_OK)
    luaL_error(L, "ExecutionGuard: %s", error.message);
  return state->bell;
}

static int state_gc(lua_State *L) {
  eb_state *state = lua_touserdata(L, 1);
  eg_bell_close(state->bell);
  state->bell = NULL;
  return 0;
}

/* The table call -> who is to be woken. */
static void push_parked(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, parked_field);
}

static int64_t sooner(int64_t a, int64_t b) { return a < b ? a : b; }

/* When a wait that begins now ends. */
static int64_t ends_at(int64_t wait_ms) {
  int64_t now = eg_now_us();
  return wait_ms < (EG_FOREVER - now) / 1000 ? now + wait_ms * 1000
                                             : EG_FOREVER;
}

/* ------------------------------------------------------------- waiters -- */

/* call: by which it was known; it may be no more than an address. */
static void unlink_call(lua_State *L, eb_waiter *w, const eg_call *call) {
  *w->link = w->next;
  if (w->next != NULL)
    w->next->link = w->link;
  if (lua_getfield(L, LUA_REGISTRYINDEX, parked_field) == LUA_TTABLE) {
    lua_pushnil(L);
    lua_rawsetp(L, -2, call);
  }
  lua_pop(L, 1);
}

static void unlink_waiter(lua_State *L, eb_waiter *w) {
  unlink_call(L, w, eg_pending_call(w->pending));
}

static int waiter_close(lua_State *L) {
  eb_waiter *w = luaL_checkudata(L, 1, waiter_metatable);
  if (w->pending != NULL) {
    unlink_waiter(L, w);
    eg_pending_cancel(w->pending);
    w->pending = NULL;
    if (w->state->bell != NULL) /* a loop may have nothing to wait for now */
      eg_bell_ring(w->state->bell, NULL);
  }
  eg_reply_free(&w->end.reply);
  return 0;
}

/* Does no deadline of a suspended run free the key in time? */
static bool is_stuck(const eb_waiter *w) {
  int64_t due = eg_pending_due_us(w->pending);
  return eb_run_frees(w->state, w->end.guard, w->key, due) == EG_FOREVER;
}

/* Ends it from here: gives up. */
static void give_up(lua_State *L, eb_waiter *w, eg_status status) {
  unlink_waiter(L, w);
  eg_pending_cancel(w->pending);
  w->pending = NULL;
  w->end.status = status;
  w->end.reply.left_us = -1;
}

/* Is it over?  Then its call is known no more. */
static bool over(lua_State *L, eb_waiter *w) {
  if (w->pending == NULL)
    return true;
  const eg_call *call = eg_pending_call(w->pending);
  bool stuck = w->deadlock && is_stuck(w); /* asked before the look */
  w->deadlock = false;
  if (eg_pending_over(w->pending, &w->end.status, &w->end.grant,
                      &w->end.reply)) {
    w->pending = NULL;
    unlink_call(L, w, call);
    return true;
  }
  if (stuck && eg_pending_for_self(w->pending))
    give_up(L, w, EG_DEADLOCK);
  return w->pending == NULL;
}

static int new_waiter(lua_State *L) {
  /* 1 guard */
  eb_waiter *w = lua_newuserdatauv(L, sizeof *w, 1);
  w->pending = NULL;
  eg_reply_init(&w->end.reply);
  luaL_setmetatable(L, waiter_metatable);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  push_parked(L); /* there is one from now on */
  lua_settop(L, 2);
  return 1;
}

/* What waits is over, or is given up. */
static int waited(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  eb_waiter *w = lua_touserdata(L, (int)ctx);
  if (!over(L, w))
    give_up(L, w, EG_CANCELED);
  eb_wait_end end = w->end; /* the userdata goes; what it owns moves here */
  eg_reply_init(&w->end.reply);
  if (end.reply.memory.heap == NULL && end.reply.value.len > 0)
    end.reply.value.data = end.reply.small;
  if (end.reply.memory.heap == NULL && end.reply.error.len > 0)
    end.reply.error.data = end.reply.small;
  lua_settop(L, (int)ctx - 1);
  return end.then(L, &end);
}

int eb_wait(lua_State *L, eg_pending *pending, eb_wait_end *end) {
  eb_state *state = end->guard->state;
  lua_pushcfunction(L, new_waiter);
  lua_pushvalue(L, 1);
  if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
    eg_pending_cancel(pending);
    return lua_error(L);
  }
  int index = lua_gettop(L);
  eb_waiter *w = lua_touserdata(L, index);
  w->end = *end;
  eg_reply_init(&w->end.reply);
  w->pending = pending;
  w->key.data = lua_tolstring(L, 2, &w->key.len);
  w->state = state;
  w->deadlock = false;
  w->next = state->waiters;
  w->link = &state->waiters;
  if (w->next != NULL)
    w->next->link = &w->next;
  state->waiters = w;
  lua_toclose(L, index);
  lua_getfield(L, LUA_REGISTRYINDEX, wait_field);
  lua_pushvalue(L, index);
  lua_callk(L, 1, 0, index, waited);
  return waited(L, LUA_OK, index);
}

/* Blocks until it is over, or a guard around this is to end. */
static eg_status wait_here(const eb_guard *guard, eg_bytes key,
                           eg_pending *pending, eg_grant *grant,
                           eg_reply *reply) {
  eg_bell *bell = guard->state->bell;
  eg_status status = EG_CANCELED;
  while (!eb_must_end()) {
    int64_t due = eg_pending_due_us(pending);
    int64_t frees = eb_run_frees(guard->state, guard, key, due);
    if (eg_pending_over(pending, &status, grant, reply))
      return status;
    if (frees == EG_FOREVER && eg_pending_for_self(pending)) {
      status = EG_DEADLOCK;
      break;
    }
    due = sooner(eg_pending_due_us(pending), frees);
    eb_sleep_on(bell, due != EG_FOREVER ? due - eg_now_us() : EG_FOREVER);
    while (eg_bell_next(bell) != NULL)
      continue;
  }
  eg_pending_cancel(pending);
  reply->left_us = -1;
  return status;
}

/* May the wait be cut short, by a guard around this or the deadline of a run
** that is suspended? */
static bool is_bounded(const eb_guard *guard, const eg_request *r) {
  int64_t join_ms = r->policy->join_ms;
  int64_t longest_ms = r->wait_ms > join_ms ? r->wait_ms : join_ms;
  return eb_ends_within(longest_ms) ||
         (guard->state->parked > 0 &&
          eb_run_frees(guard->state, guard, r->key, ends_at(longest_ms)) !=
              EG_FOREVER);
}

eg_status eb_ask(lua_State *L, const eb_guard *guard, const eg_request *r,
                 eg_pending **pending, eg_grant *grant, eg_reply *reply) {
  eb_state *state = guard->state;
  if (!state->waits_yield && !is_bounded(guard, r))
    return eg_ask(r, NULL, pending, grant, reply);
  eg_status status = eg_ask(r, eb_bell(L, state), pending, grant, reply);
  if (state->waits_yield || *pending == NULL)
    return status;
  status = wait_here(guard, r->key, *pending, grant, reply);
  *pending = NULL;
  return status;
}

/* waiter:over() -> is it? */
static int waiter_over(lua_State *L) {
  lua_pushboolean(L, over(L, luaL_checkudata(L, 1, waiter_metatable)));
  return 1;
}

/* waiter:due() -> the steady time, in microseconds, at which it has to be
** looked at; nil: no limit */
static int waiter_due(lua_State *L) {
  const eb_waiter *w = luaL_checkudata(L, 1, waiter_metatable);
  int64_t due = w->pending != NULL ? eg_pending_due_us(w->pending) : 0;
  if (w->pending != NULL)
    due = sooner(due, eb_run_frees(w->state, w->end.guard, w->key, due));
  if (due == EG_FOREVER)
    return 0;
  lua_pushnumber(L, (lua_Number)due);
  return 1;
}

/* waiter:park(thread or function): what is to be woken when it rings */
static int waiter_park(lua_State *L) {
  const eb_waiter *w = luaL_checkudata(L, 1, waiter_metatable);
  if (w->pending == NULL)
    return 0;
  lua_settop(L, 2);
  push_parked(L);
  lua_insert(L, 2);
  lua_rawsetp(L, 2, eg_pending_call(w->pending));
  return 0;
}

/* waiter:stuck(): it is to end as a deadlock, if it still is one */
static int waiter_stuck(lua_State *L) {
  eb_waiter *w = luaL_checkudata(L, 1, waiter_metatable);
  w->deadlock = true;
  return 0;
}

/* ------------------------------------------------------ what is outside -- */

void eb_outside_begin(lua_State *L, eb_state *state, eg_call *call,
                      int index) {
  index = lua_absindex(L, index);
  push_parked(L);
  lua_pushvalue(L, index);
  lua_rawsetp(L, -2, call);
  lua_pop(L, 1);
  state->outside++;
}

void eb_outside_end(lua_State *L, eb_state *state, eg_call *call) {
  if (state->bell != NULL)
    eg_bell_forget(state->bell, call);
  push_parked(L);
  lua_pushnil(L);
  lua_rawsetp(L, -2, call);
  lua_pop(L, 1);
  state->outside--;
}

typedef struct outside {
  eg_call call;
  eb_state *state;
  bool open;
} outside;

static int outside_close(lua_State *L) {
  outside *o = luaL_checkudata(L, 1, outside_metatable);
  if (o->open)
    eb_outside_end(L, o->state, &o->call);
  o->open = false;
  return 0;
}

static int outside_ring(lua_State *L) {
  outside *o = luaL_checkudata(L, 1, outside_metatable);
  if (o->open)
    eg_bell_ring(eb_bell(L, o->state), &o->call);
  return 0;
}

/* outside(thread or function) -> an object; :ring() has it woken, :close() or
** its end as a <close> variable says that it is over. */
static int make_outside(lua_State *L) {
  eb_state *state = eb_get_state(L);
  lua_settop(L, 1);
  if (!lua_isthread(L, 1) && !lua_isfunction(L, 1))
    return luaL_error(L, "outside: a thread or a function is needed, not %s",
                      eb_describe(L, 1));
  eb_bell(L, state);
  outside *o = lua_newuserdatauv(L, sizeof *o, 0);
  memset(o, 0, sizeof *o);
  o->state = state;
  luaL_setmetatable(L, outside_metatable);
  eb_outside_begin(L, state, &o->call, 1);
  o->open = true;
  return 1;
}

/* ------------------------------------------------- for the Lua modules -- */

/* sleep(us or nil): until that is over, or the bell is rung, or the
** deadline of a guard around it has come, which interrupts. */
static int bell_sleep(lua_State *L) {
  int64_t us = EG_FOREVER;
  if (!lua_isnoneornil(L, 1))
    us = (int64_t)luaL_checknumber(L, 1);
  eb_sleep_on(eb_bell(L, eb_get_state(L)), us);
  eb_checkpoint(L, false);
  return 0;
}

/* next() -> the thread or function that the bell rang for first; true: for
** somebody who is not parked, and has to look by himself; nil: for none */
static int bell_next(lua_State *L) {
  const eb_state *state = eb_get_state(L);
  const eg_call *call = state->bell != NULL ? eg_bell_next(state->bell) : NULL;
  if (call == NULL)
    return 0;
  push_parked(L);
  int type = lua_rawgetp(L, -1, call);
  if (type == LUA_TTHREAD) { /* once, until it is parked again */
    lua_pushnil(L);
    lua_rawsetp(L, -3, call);
  } else if (type == LUA_TNIL) {
    lua_pushboolean(L, 1);
  }
  return 1;
}

/* turn() -> the same, as a turn of the scheduler begins: raises where somebody
** is to be interrupted */
static int bell_turn(lua_State *L) {
  eb_checkpoint(L, false);
  return bell_next(L);
}

/* fd() -> a descriptor that is readable while the bell is rung */
static int bell_fd(lua_State *L) {
  eg_error error;
  int fd = eg_bell_fd(eb_bell(L, eb_get_state(L)), &error);
  if (fd < 0)
    return luaL_error(L, "ExecutionGuard.configure: loop: %s", error.message);
  lua_pushinteger(L, fd);
  return 1;
}

/* alarm(seconds or nil): that descriptor is readable then, too */
static int bell_alarm(lua_State *L) {
  eg_error error;
  int64_t at = EG_FOREVER;
  if (!lua_isnoneornil(L, 1))
    at = eg_system_clock()->now_us(NULL) +
         eb_us(eb_check_seconds(L, 1, "alarm", "seconds"));
  if (eg_bell_alarm(eb_bell(L, eb_get_state(L)), at, &error) != EG_OK)
    return luaL_error(L, "ExecutionGuard.configure: loop: %s", error.message);
  return 0;
}

/* pending() -> does anybody wait, or go on outside? */
static int pending(lua_State *L) {
  const eb_state *state = eb_get_state(L);
  lua_pushboolean(L, state->waiters != NULL || state->outside > 0);
  return 1;
}

/* deadlock() -> if everybody who waits does so for this very Lua state, and
** nothing goes on outside: true, and the one who came last is told. */
static int deadlock(lua_State *L) {
  const eb_state *state = eb_get_state(L);
  bool stuck = state->outside == 0 && state->waiters != NULL;
  for (const eb_waiter *w = state->waiters; stuck && w != NULL; w = w->next)
    stuck = is_stuck(w) && eg_pending_for_self(w->pending);
  if (stuck) {
    state->waiters->deadlock = true;
    eg_bell_ring(state->bell, eg_pending_call(state->waiters->pending));
  }
  lua_pushboolean(L, stuck);
  return 1;
}

/* set(wait, pause, late, expire): how to let time pass: wait(waiter) until it
** may be over; pause(seconds).  late() is called when the bell has rung for
** deadlines of suspended runs; expire: see EB_EXPIRE_FIELD. */
static int set(lua_State *L) {
  eb_state *state = eb_get_state(L);
  for (int i = 1; i <= 4; i++)
    luaL_checktype(L, i, LUA_TFUNCTION);
  lua_settop(L, 4);
  eb_bell(L, state);
  lua_setfield(L, LUA_REGISTRYINDEX, EB_EXPIRE_FIELD);
  push_parked(L);
  lua_insert(L, 3);
  lua_rawsetp(L, 3, &state->late_call);
  lua_pop(L, 1);
  lua_setfield(L, LUA_REGISTRYINDEX, pause_field);
  lua_setfield(L, LUA_REGISTRYINDEX, wait_field);
  state->waits_yield = true;
  return 0;
}

/* guarded(here) -> are there suspended functions, or (here) is there one in
** this coroutine, that are ended at a deadline? */
static int guarded(lua_State *L) {
  lua_pushboolean(L, eb_get_state(L)->deadlines > 0 ||
                         (lua_toboolean(L, 1) && eb_is_guarded(L)));
  return 1;
}

bool eb_push_pause(lua_State *L, const eb_state *state) {
  return state->waits_yield &&
         lua_getfield(L, LUA_REGISTRYINDEX, pause_field) == LUA_TFUNCTION;
}

/* exposed() -> may a deadline end what runs here? */
static int exposed(lua_State *L) {
  lua_pushboolean(L, eb_is_known(L) && eb_ends_within(EG_FOREVER));
  return 1;
}

static const luaL_Reg waiter_methods[] = {{"over", waiter_over},
                                          {"due", waiter_due},
                                          {"park", waiter_park},
                                          {"stuck", waiter_stuck},
                                          {"__close", waiter_close},
                                          {"__gc", waiter_close},
                                          {NULL, NULL}};

static const luaL_Reg outside_methods[] = {{"ring", outside_ring},
                                           {"close", outside_close},
                                           {"__close", outside_close},
                                           {"__gc", outside_close},
                                           {NULL, NULL}};

static const luaL_Reg waiting_functions[] = {
    {"sleep", bell_sleep}, {"next", bell_next},       {"fd", bell_fd},
    {"alarm", bell_alarm}, {"pending", pending},      {"deadlock", deadlock},
    {"set", set},          {"outside", make_outside}, {"late", eb_late},
    {"guarded", guarded},  {"exposed", exposed},      {"turn", bell_turn},
    {NULL, NULL},
};

static void make_metatable(lua_State *L, const char *name,
                           const luaL_Reg *methods) {
  luaL_newmetatable(L, name);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}

void eb_open_waiting(lua_State *L) {
  make_metatable(L, waiter_metatable, waiter_methods);
  make_metatable(L, outside_metatable, outside_methods);
}

void eb_finalize_state(lua_State *L) {
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, state_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
}

void eb_push_waiting(lua_State *L) {
  lua_newtable(L);
  lua_insert(L, -EB_UPVALUES - 1);
  eb_set_functions(L, waiting_functions);
}
