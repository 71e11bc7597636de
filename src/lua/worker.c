/* SPDX-License-Identifier: MIT
** The owner's side of workers: functions that cross, works and what becomes of
** them.  For lua/executionguard/worker.lua.
*/
#include "lua/pool.h"

#include <stdlib.h>
#include <string.h>

static const char code_metatable[] = "ExecutionGuard worker function";
static const char work_metatable[] = "ExecutionGuard work";

typedef struct ticket {
  eb_work *work;
  eb_state *state;
  bool open;      /* something is going on outside */
  eb_line *lines; /* taken from it, not told yet */
} ticket;

/* ---------------------------------------------------------------- code -- */

typedef struct dump {
  luaL_Buffer buffer;
  bool begun;
} dump;

/* A buffer wants to be the latest on the stack, and so does the function when
** the dump begins. */
static int write_bytes(lua_State *L, const void *p, size_t size, void *ud) {
  dump *d = ud;
  if (!d->begun)
    luaL_buffinit(L, &d->buffer);
  d->begun = true;
  luaL_addlstring(&d->buffer, p, size);
  return 0;
}

/* Functions of the surroundings do not cross. */
static void check_upvalues(lua_State *L) {
  const char *name;
  if (lua_iscfunction(L, 1))
    luaL_error(L, "job.worker: the function is one of C; name the module that "
                  "has it");
  for (int i = 1; (name = lua_getupvalue(L, 1, i)) != NULL; i++) {
    lua_pop(L, 1);
    if (strcmp(name, "_ENV") != 0 || i > 1)
      luaL_error(L,
                 "job.worker: the function uses '%s' of its surroundings, "
                 "which does not cross to another thread; pass it in the "
                 "parameters, or put the function into a module: "
                 "job.worker(\"name\")",
                 strcmp(name, "(no name)") == 0 ? "a variable" : name);
  }
}

/* code(fn or name, path, cpath) -> what submit takes */
static int make_code(lua_State *L) {
  static _Atomic uint64_t latest;
  dump d = {.begun = false};
  bool module = lua_type(L, 1) == LUA_TSTRING;
  lua_settop(L, 3);
  if (!module) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    check_upvalues(L);
    lua_pushvalue(L, 1);
    lua_dump(L, write_bytes, &d, 0);
    luaL_pushresult(&d.buffer);
    lua_replace(L, 1);
    lua_settop(L, 3);
  }
  eb_code **slot = lua_newuserdatauv(L, sizeof *slot, 0);
  *slot = NULL;
  luaL_setmetatable(L, code_metatable);
  eb_code *code = calloc(1, sizeof *code);
  if (code == NULL)
    return luaL_error(L, "job.worker: not enough memory");
  *slot = code;
  atomic_store(&code->refs, 1);
  code->id = atomic_fetch_add(&latest, 1) + 1;
  code->module = module;
  eb_blob *blobs[] = {&code->text, &code->path, &code->cpath};
  for (int i = 0; i < 3; i++) {
    size_t len;
    const char *text = luaL_checklstring(L, i + 1, &len);
    if (!eb_blob_set(blobs[i], text, len + 1))
      return luaL_error(L, "job.worker: not enough memory");
    blobs[i]->len = len;
  }
  return 1;
}

static int code_gc(lua_State *L) {
  eb_code **slot = luaL_checkudata(L, 1, code_metatable);
  eb_code_release(*slot);
  *slot = NULL;
  return 0;
}

/* -------------------------------------------------------------- tickets -- */

static ticket *check_ticket(lua_State *L) {
  ticket *t = luaL_checkudata(L, 1, work_metatable);
  luaL_argcheck(L, t->work != NULL, 1, "it is over");
  return t;
}

/* The values at the indexes as one array.  Raises. */
static void encode_args(lua_State *L, eb_work *work, int first, int n) {
  char why[EB_WHY] = ": not enough memory";
  eb_bytes bytes;
  eb_bytes_init(&bytes);
  bytes.data[bytes.len++] = (unsigned char)(0x90 + n);
  bool ok = true;
  for (int i = 0; ok && i < n; i++)
    ok = eb_encode(L, first + i, (size_t)256 * 1024 * 1024, &bytes, why);
  ok = ok && eb_blob_set(&work->args, bytes.data, bytes.len);
  eb_bytes_free(&bytes);
  if (!ok) {
    const char *rest = strncmp(why, "result", 6) == 0 ? why + 6 : why;
    luaL_error(L, "params%s", rest);
  }
}

/* submit(code, id, labels, params, seconds or nil, grace, fn) -> ticket.  fn
** is called in a turn of the scheduler when there is something new. */
static int submit(lua_State *L) {
  eb_state *state = eb_get_state(L);
  eg_error error;
  eb_code **code = luaL_checkudata(L, 1, code_metatable);
  luaL_checktype(L, 7, LUA_TFUNCTION);
  lua_settop(L, 7);
  ticket *t = lua_newuserdatauv(L, sizeof *t, 0);
  memset(t, 0, sizeof *t);
  t->state = state;
  luaL_setmetatable(L, work_metatable);
  t->work = eb_work_new(*code);
  if (t->work == NULL)
    return luaL_error(L, "not enough memory");
  eb_work *work = t->work;
  encode_args(L, work, 2, 3);
  int64_t now = eg_now_us();
  atomic_store(&work->grace_us, eb_us(luaL_checknumber(L, 6)));
  int64_t us = lua_isnil(L, 5) ? EG_FOREVER : eb_us(luaL_checknumber(L, 5));
  work->deadline_us = us < EG_FOREVER - now ? now + us : EG_FOREVER;
  int64_t grace_us = atomic_load(&work->grace_us);
  atomic_store(&work->until_us, work->deadline_us < EG_FOREVER - grace_us
                                    ? work->deadline_us + grace_us
                                    : EG_FOREVER);
  double none = -1;
  uint64_t bits;
  memcpy(&bits, &none, sizeof bits);
  atomic_store(&work->progress, bits);
  work->bell = eb_bell(L, state);
  eb_outside_begin(L, state, &work->call, 7);
  t->open = true;
  if (!eb_pool_submit(work, &error)) {
    work->bell = NULL;
    eb_outside_end(L, state, &work->call);
    t->open = false;
    return luaL_error(L, "%s", error.message);
  }
  return 1;
}

static void close_ticket(lua_State *L, ticket *t) {
  if (t->work == NULL)
    return;
  eb_pool_disown(t->work);
  eb_lines_free(&t->lines);
  if (t->open)
    eb_outside_end(L, t->state, &t->work->call);
  t->open = false;
  eb_work_release(t->work);
  t->work = NULL;
}

static int ticket_gc(lua_State *L) {
  close_ticket(L, luaL_checkudata(L, 1, work_metatable));
  return 0;
}

/* ticket:cancel(deadline) -> has it never begun? */
static int cancel(lua_State *L) {
  ticket *t = check_ticket(L);
  int why = lua_toboolean(L, 2) ? EB_DEADLINE : EB_CANCELED;
  lua_pushboolean(L, eb_pool_cancel(t->work, why));
  return 1;
}

/* ticket:abandon() -> does it go on, out of reach? */
static int abandon(lua_State *L) {
  lua_pushboolean(L, eb_pool_abandon(check_ticket(L)->work));
  return 1;
}

/* Pushes the lines as an array of strings; nil: none.  May raise. */
static void push_lines(lua_State *L, ticket *t) {
  if (t->lines == NULL) {
    lua_pushnil(L);
    return;
  }
  lua_newtable(L);
  lua_Integer i = 0;
  for (const eb_line *line = t->lines; line != NULL; line = line->next) {
    lua_pushlstring(L, (const char *)line->text.data, line->text.len);
    lua_rawseti(L, -2, ++i);
  }
  eb_lines_free(&t->lines);
}

/* ticket:look() -> has it ended? its progress (below 0: none), the lines of
** its log since, if there are any */
static int look(lua_State *L) {
  ticket *t = check_ticket(L);
  eb_work *work = t->work;
  double value;
  atomic_store(&work->told, false); /* from now on it tells again */
  lua_pushboolean(L, eb_pool_look(work, &t->lines) == EB_ENDED);
  uint64_t bits = atomic_load(&work->progress);
  memcpy(&value, &bits, sizeof value);
  lua_pushnumber(L, value);
  push_lines(L, t);
  return 3;
}

static int decode(lua_State *L) {
  size_t len;
  const char *data = luaL_checklstring(L, 1, &len);
  eg_bytes bytes = {data, len};
  eb_decode(L, bytes);
  return 1;
}

static void push_blob(lua_State *L, const eb_blob *blob) {
  if (blob->data != NULL)
    lua_pushlstring(L, (const char *)blob->data, blob->len);
  else
    lua_pushnil(L);
}

static void push_decoded(lua_State *L, const eb_blob *blob) {
  eg_bytes value = {blob->data, blob->len};
  if (blob->data != NULL)
    eb_decode(L, value);
  else
    lua_pushnil(L);
}

/* ticket:outcome() -> "ok", value; "failed", error, traceback, its text where
** it has a __tostring, result of SetResult; "exited", "no memory" */
static int outcome(lua_State *L) {
  static const char *const names[] = {"ok", "failed", "exited", "no memory"};
  eb_work *work = check_ticket(L)->work;
  lua_pushstring(L, names[work->end]);
  push_decoded(L, &work->value);
  push_blob(L, &work->trace);
  push_blob(L, &work->text);
  push_decoded(L, &work->kept);
  return 5;
}

/* ------------------------------------------------------------- the pool -- */

static int pool_stats(lua_State *L) {
  eb_pool_stats stats;
  eb_pool_stats_read(&stats);
  lua_createtable(L, 0, 5);
  lua_pushinteger(L, stats.limit);
  lua_setfield(L, -2, "limit");
  lua_pushinteger(L, stats.threads);
  lua_setfield(L, -2, "threads");
  lua_pushinteger(L, stats.busy);
  lua_setfield(L, -2, "busy");
  lua_pushinteger(L, stats.queued);
  lua_setfield(L, -2, "queued");
  lua_pushinteger(L, stats.lost);
  lua_setfield(L, -2, "lost");
  return 1;
}

static int pool_limit(lua_State *L) {
  eb_pool_limit((int)luaL_checkinteger(L, 1));
  return 0;
}

static int pool_memory(lua_State *L) {
  eb_pool_memory((size_t)luaL_checknumber(L, 1));
  return 0;
}

static int pool_result(lua_State *L) {
  eb_pool_result((size_t)luaL_checkinteger(L, 1));
  return 0;
}

static int pool_drain(lua_State *L) {
  (void)L;
  eb_pool_drain();
  return 0;
}

void eb_push_worker(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"cancel", cancel},   {"abandon", abandon}, {"look", look},
      {"outcome", outcome}, {"close", ticket_gc}, {"__gc", ticket_gc},
      {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"code", make_code},   {"submit", submit},      {"decode", decode},
      {"stats", pool_stats}, {"limit", pool_limit},   {"memory", pool_memory},
      {"drain", pool_drain}, {"result", pool_result}, {NULL, NULL}};
  luaL_newmetatable(L, code_metatable);
  lua_pushcfunction(L, code_gc);
  lua_setfield(L, -2, "__gc");
  luaL_newmetatable(L, work_metatable);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 2);
  lua_newtable(L);
  lua_insert(L, -EB_UPVALUES - 1);
  eb_set_functions(L, functions);
}
