/* SPDX-License-Identifier: MIT
** The lines of ExecutionGuard.printSummary.
*/
#include "lua/binding.h"

#include "executionguard_view.h"

static const char method[] = "ExecutionGuard.printSummary";

/* What is drawn, from a summary that Lua's errors must not leave behind. */
typedef struct drawing {
  const eg_summary *summary;
  eg_view view;
  eg_stats process;
  eg_box_row more[EG_BOX_MORE];
  size_t n;
  lua_State *L;
  bool failed;
} drawing;

/* 1 line, 2 list */
static int add_line(lua_State *L) {
  lua_pushstring(L, lua_touserdata(L, 1));
  lua_rawseti(L, 2, (lua_Integer)lua_rawlen(L, 2) + 1);
  return 0;
}

/* No error of Lua goes through what draws; it stays on the stack. */
static bool put(void *ctx, const char *line) {
  drawing *d = ctx;
  lua_State *L = d->L;
  lua_pushcfunction(L, add_line);
  lua_pushlightuserdata(L, (void *)(uintptr_t)line);
  lua_pushvalue(L, 6);
  d->failed = lua_pcall(L, 2, 0, 0) != LUA_OK;
  return !d->failed;
}

/* {label, number}, {label} for a heading, {} for a rule; the labels stay in
** the table. */
static void read_rows(lua_State *L, int table, drawing *d) {
  size_t n = lua_rawlen(L, table);
  for (; d->n < n && d->n < EG_BOX_MORE; d->n++) {
    lua_rawgeti(L, table, (lua_Integer)d->n + 1);
    lua_rawgeti(L, -1, 1);
    lua_rawgeti(L, -2, 2);
    d->more[d->n] = (eg_box_row){
        lua_tostring(L, -2), (uint64_t)lua_tointeger(L, -1), lua_isnil(L, -1)};
    lua_pop(L, 3);
  }
}

/* summary(guard, top, columns, ascii, rows) -> the lines */
int eb_summary(lua_State *L) {
  eg_error error;
  eg_summary summary;
  eb_guard *guard = eb_check_guard(L, method);
  drawing d = {.summary = &summary, .L = L};
  size_t top = (size_t)luaL_checkinteger(L, 2);
  d.view.columns = (int)luaL_checkinteger(L, 3);
  d.view.ascii = lua_toboolean(L, 4);
  luaL_checktype(L, 5, LUA_TTABLE);
  lua_settop(L, 5);
  read_rows(L, 5, &d);
  lua_newtable(L);
  luaL_checkstack(L, 8, method);
  eg_stats_read(&d.process);
  eg_guard *core = eb_core(L, guard, method);
  eb_begin_scan(guard);
  eg_status status = eg_summary_take(core, top, &summary, &error);
  eb_end_scan(guard);
  if (status == EG_OK)
    eg_summary_draw(&summary, &d.view, &d.process, d.more, d.n, put, &d);
  eg_summary_free(&summary);
  if (d.failed)
    return lua_error(L);
  return status == EG_OK ? 1 : eb_raise(L, method, &error);
}
