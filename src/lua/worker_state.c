/* SPDX-License-Identifier: MIT
** The Lua state of a worker thread, and what runs in it.
**
** Its memory is bounded, so that a job that takes all there is fails alone.
** Nothing here runs outside of lua_pcall but what cannot raise.
*/
#include "lua/interrupt.h"
#include "lua/pool.h"

#include <lualib.h>
#include <stdlib.h>
#include <string.h>

EG_API int luaopen_executionguard_core(lua_State *L);

#define CLOSE_GRACE_US 5000

struct eb_worker {
  lua_State *L;
  size_t used, most;
};

/* Keys of the registry: the work and its timer, loaded functions, what
** worker_side.lua returns. */
static const char work_key, timer_key, loaded_key, side_key;

static void *allocate(void *ud, void *ptr, size_t osize, size_t nsize) {
  eb_worker *worker = ud;
  if (ptr == NULL)
    osize = 0;
  if (nsize == 0) {
    free(ptr);
    worker->used -= osize;
    return NULL;
  }
  if (nsize > osize && worker->used + (nsize - osize) > worker->most)
    return NULL;
  void *block = realloc(ptr, nsize);
  if (block != NULL)
    worker->used += nsize - osize;
  return block;
}

/* ------------------------------------------------------------ for jobs -- */

static eb_work *current_work(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &work_key);
  eb_work *work = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return work;
}

/* os.exit: of the job, not of the process. */
static int leave_job(lua_State *L) {
  eb_work *work = current_work(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &timer_key);
  eg_timer *timer = lua_touserdata(L, -1);
  if (work != NULL && timer != NULL) {
    work->end = EB_EXITED;
    eg_timer_hasten(timer, 0);
  }
  return luaL_error(L, "os.exit was called in a worker");
}

/* call(fn, ctx, look) -> true, what it returned (two); false, the error, its
** traceback; nil: it was interrupted.  look is called when it is to end. */
static int call(lua_State *L) {
  eb_state *state = eb_get_state(L);
  eb_work *work = current_work(L);
  eb_frame frame;
  eg_timer timer;
  memset(&timer, 0, sizeof timer);
  timer.grant.deadline_us = EG_FOREVER;
  int64_t grace_us = atomic_load(&work->grace_us);
  if (work->deadline_us < EG_FOREVER - grace_us)
    timer.grant.deadline_us = work->deadline_us + grace_us;
  timer.grace_us = CLOSE_GRACE_US;
  timer.signals = eb_signals_here(L, NULL);
  lua_settop(L, 3);
  eb_outside_begin(L, state, &work->nudge, 3);
  state->outside--; /* nobody waits for it: it is no reason to go on */
  lua_pushlightuserdata(L, &timer);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &timer_key);
  lua_pushcfunction(L, eb_catch);
  lua_insert(L, 1);
  lua_pop(L, 1);
  frame.interrupts = true;
  frame.on_loss = false;
  eb_arm(L, &frame, &timer);
  eb_pool_arm(work, &timer, eb_bell(L, state));
  int status = lua_pcall(L, 1, 2, 1);
  eb_pool_disarm(work);
  eg_timer_stop(&timer);
  eb_leave(L, &frame);
  state->outside++;
  eb_outside_end(L, state, &work->nudge);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &timer_key);
  if (status == LUA_ERRMEM)
    work->end = EB_NO_MEMORY;
  if (status != LUA_OK && eb_is_sentinel(L, -1)) {
    lua_pushnil(L);
    return 1;
  }
  if (status != LUA_OK)
    eb_push_trace(L, -1);
  lua_pushboolean(L, status == LUA_OK);
  lua_replace(L, 1);
  return lua_gettop(L);
}

/* why() -> 0, or why the job is to end */
static int why(lua_State *L) {
  lua_pushinteger(L, atomic_load(&current_work(L)->why));
  return 1;
}

/* progress(0..1) */
static int progress(lua_State *L) {
  eb_work *work = current_work(L);
  double value = luaL_checknumber(L, 1);
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  atomic_store(&work->progress, bits);
  if (!atomic_exchange(&work->told, true))
    eb_pool_tell(work, NULL);
  return 0;
}

/* log(level, message, fields) */
static int say(lua_State *L) {
  char text[EB_WHY];
  eb_bytes bytes;
  lua_settop(L, 3);
  lua_createtable(L, 3, 0);
  for (int i = 1; i <= 3; i++) {
    lua_pushvalue(L, i);
    lua_rawseti(L, 4, i);
  }
  eb_bytes_init(&bytes);
  eb_line *line = NULL;
  bool ok = eb_encode(L, 4, EG_RESULT_MAX, &bytes, text) &&
            (line = calloc(1, sizeof *line)) != NULL &&
            eb_blob_set(&line->text, bytes.data, bytes.len);
  eb_bytes_free(&bytes);
  if (ok)
    eb_pool_tell(current_work(L), line);
  else
    free(line);
  lua_pushboolean(L, ok);
  return 1;
}

/* What is small enough, in the time that there is. */
static bool pack(lua_State *L, int index, eb_work *work, eb_bytes *bytes,
                 char *why) {
  return eb_encode_until(L, index, eb_pool_result_most(), &work->until_us,
                         bytes, why);
}

/* keep(result), of a job that has failed; what does not cross is lost */
static int keep(lua_State *L) {
  char text[EB_WHY];
  eb_bytes bytes;
  eb_work *work = current_work(L);
  lua_settop(L, 1);
  eb_bytes_init(&bytes);
  if (pack(L, 1, work, &bytes, text))
    eb_blob_set(&work->kept, bytes.data, bytes.len);
  eb_bytes_free(&bytes);
  return 0;
}

void eb_push_worker_side(lua_State *L) {
  static const luaL_Reg functions[] = {{"call", call}, {"keep", keep},
                                       {"why", why},   {"progress", progress},
                                       {"log", say},   {NULL, NULL}};
  lua_newtable(L);
  lua_insert(L, -EB_UPVALUES - 1);
  eb_set_functions(L, functions);
}

/* ------------------------------------------------------------- running -- */

static void set_path(lua_State *L, const char *name, const eb_blob *path) {
  lua_getglobal(L, "package");
  lua_pushlstring(L, (const char *)path->data, path->len);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
}

static void require(lua_State *L, const char *name) {
  lua_getglobal(L, "require");
  lua_pushstring(L, name);
  lua_call(L, 1, 1);
}

static void push_loaded(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &loaded_key) == LUA_TTABLE)
    return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &loaded_key);
}

/* Pushes the function; loaded once in a state. */
static void push_function(lua_State *L, const eb_code *code) {
  push_loaded(L);
  if (lua_rawgeti(L, -1, (lua_Integer)code->id) != LUA_TNIL) {
    lua_remove(L, -2);
    return;
  }
  lua_pop(L, 1);
  set_path(L, "path", &code->path);
  set_path(L, "cpath", &code->cpath);
  const char *text = (const char *)code->text.data;
  if (code->module) {
    require(L, text);
    if (lua_type(L, -1) != LUA_TFUNCTION)
      luaL_error(L,
                 "job.worker: module '%s' is a %s; it must return a "
                 "function",
                 text, luaL_typename(L, -1));
  } else if (luaL_loadbufferx(L, text, code->text.len, "=worker", "b") !=
             LUA_OK) {
    lua_error(L);
  }
  lua_pushvalue(L, -1);
  lua_rawseti(L, -3, (lua_Integer)code->id);
  lua_remove(L, -2);
}

/* text(error) -> its text, which may be anybody's function */
static int text_of(lua_State *L) {
  luaL_tolstring(L, 1, NULL);
  return 1;
}

/* A table crosses without its metatable: its text goes along. */
static void store_text(lua_State *L, int index, eb_work *work) {
  int top = lua_gettop(L);
  index = lua_absindex(L, index);
  if (lua_istable(L, index) &&
      luaL_getmetafield(L, index, "__tostring") != LUA_TNIL) {
    lua_pushcfunction(L, text_of);
    lua_pushvalue(L, index);
    if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
      size_t len;
      const char *text = lua_tolstring(L, -1, &len);
      eb_blob_set(&work->text, text, len);
    }
  }
  lua_settop(L, top);
}

static void store(lua_State *L, int index, eb_work *work, eb_blob *blob) {
  char text[EB_WHY];
  eb_bytes bytes;
  eb_bytes_init(&bytes);
  bool ok = pack(L, index, work, &bytes, text);
  if (!ok && work->end == EB_OK) {
    work->end = EB_FAILED;
    eb_bytes_free(&bytes);
    if (eg_now_us() >= atomic_load(&work->until_us))
      return; /* as if interrupted: the owner knows why */
    luaL_error(L, "%s", text);
  } else if (!ok) {
    eb_bytes_free(&bytes);
    luaL_tolstring(L, index, NULL);
    lua_replace(L, index);
    ok = eb_encode(L, index, EG_RESULT_MAX, &bytes, text);
  }
  if (ok && !eb_blob_set(blob, bytes.data, bytes.len))
    work->end = EB_NO_MEMORY;
  eb_bytes_free(&bytes);
}

static void push_side(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &side_key) == LUA_TFUNCTION)
    return;
  lua_pop(L, 1);
  require(L, "executionguard.worker_side");
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &side_key);
}

/* run(work) */
static int run(lua_State *L) {
  eb_work *work = lua_touserdata(L, 1);
  lua_pushvalue(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &work_key);
  push_function(L, work->code);
  push_side(L);
  lua_insert(L, -2);
  eg_bytes args = {work->args.data, work->args.len};
  eb_decode(L, args);
  lua_call(L, 2, 4); /* ok, value or error, traceback, dirty */
  work->dirty = lua_toboolean(L, -1);
  if (!lua_toboolean(L, -4) && work->end == EB_OK)
    work->end = EB_FAILED;
  if (lua_type(L, -2) == LUA_TSTRING) {
    size_t len;
    const char *text = lua_tolstring(L, -2, &len);
    eb_blob_set(&work->trace, text, len);
  }
  if (work->end == EB_FAILED)
    store_text(L, -3, work);
  store(L, lua_gettop(L) - 2, work, &work->value);
  return 0;
}

static int note_error(lua_State *L) {
  eb_work *work = lua_touserdata(L, 1);
  luaL_tolstring(L, 2, NULL);
  store(L, 3, work, &work->value);
  return 0;
}

void eb_worker_run(eb_worker *worker, eb_work *work) {
  if (worker == NULL) {
    work->end = EB_NO_MEMORY;
    return;
  }
  lua_State *L = worker->L;
  lua_settop(L, 0);
  lua_pushcfunction(L, run);
  lua_pushlightuserdata(L, work);
  int status = lua_pcall(L, 1, 0, 0);
  if (status == LUA_OK)
    return;
  work->dirty = true;
  work->end = status == LUA_ERRMEM ? EB_NO_MEMORY : EB_FAILED;
  lua_pushcfunction(L, note_error);
  lua_insert(L, 1);
  lua_pushlightuserdata(L, work);
  lua_insert(L, 2);
  lua_pcall(L, 2, 0, 0);
}

/* ------------------------------------------------------------ the state -- */

static int open_state(lua_State *L) {
  luaL_openlibs(L);
  luaL_requiref(L, "executionguard.core", luaopen_executionguard_core, 0);
  eb_push_upvalues(L);
  eb_push_worker_side(L);
  lua_pop(L, EB_UPVALUES);
  lua_setfield(L, -2, "side");
  lua_getglobal(L, "os");
  lua_pushcfunction(L, leave_job);
  lua_setfield(L, -2, "exit");
  lua_settop(L, 0);
  return 0;
}

eb_worker *eb_worker_open(void) {
  eb_worker *worker = calloc(1, sizeof *worker);
  if (worker == NULL)
    return NULL;
  worker->most = eb_pool_memory_each();
  worker->L = lua_newstate(allocate, worker);
  if (worker->L != NULL) {
    lua_pushcfunction(worker->L, open_state);
    if (lua_pcall(worker->L, 0, 0, 0) == LUA_OK)
      return worker;
  }
  eb_worker_close(worker);
  return NULL;
}

void eb_worker_close(eb_worker *worker) {
  if (worker == NULL)
    return;
  if (worker->L != NULL)
    lua_close(worker->L);
  free(worker);
}
