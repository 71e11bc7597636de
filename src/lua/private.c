/* SPDX-License-Identifier: MIT
** Private coroutines: where a function runs that could leave its thread
** without our hearing of it.
**
** A coroutine that C code resumes by lua_resume itself, as many event loops
** do, may yield, and its thread goes on with something else; nobody tells us.
** So what would be watched there runs in a coroutine of its own, which only we
** resume.  Its yields are passed on, both ways; it is closed with the one that
** hosts it, by a userdata on the stack of that; coroutine.running() names the
** host in it, so that whoever wants to resume it resumes that.
*/
#include "lua/interrupt.h"

static const char metatable[] = "ExecutionGuard private coroutine";

static int make(lua_State *L) {
  /* 1 body */
  lua_State **co = lua_newuserdatauv(L, sizeof *co, 1);
  *co = lua_newthread(L);
  lua_setiuservalue(L, 2, 1);
  luaL_setmetatable(L, metatable);
  eb_push_upvalues(L);
  lua_pushcclosure(L, lua_tocfunction(L, 1), EB_UPVALUES);
  lua_xmove(L, *co, 1);
  return 1;
}

lua_State *eb_make_private(lua_State *L, lua_CFunction body) {
  lua_pushcfunction(L, make);
  lua_pushcfunction(L, body);
  if (lua_pcall(L, 1, 1, 0) != LUA_OK)
    return NULL;
  lua_insert(L, 1);
  lua_toclose(L, 1);
  return *(lua_State **)lua_touserdata(L, 1);
}

/* Its <close> variables are closed; the error that is left goes on. */
static int fail(lua_State *L, lua_State *co) {
  int status = lua_status(co);
  if (status != LUA_OK && status != LUA_YIELD) {
    eb_reset(L, co);
    lua_xmove(co, L, 1);
  }
  return lua_error(L);
}

/* What it was resumed with is above base. */
static int go_on(lua_State *L, int status, lua_KContext base) {
  (void)status;
  lua_State *co = *(lua_State **)lua_touserdata(L, 1);
  return eb_pass_on(L, co, eb_resume(L, co, lua_gettop(L) - (int)base, L));
}

/* Some hosts (cqueues) take all that is on the stack for what was yielded:
** here there is no more. */
static int yield(lua_State *L) { return lua_yield(L, lua_gettop(L)); }

int eb_pass_on(lua_State *L, lua_State *co, int n) {
  if (n < 0)
    return fail(L, co);
  if (lua_status(co) != LUA_YIELD)
    return n;
  int base = lua_gettop(L) - n;
  lua_pushcfunction(L, yield);
  lua_insert(L, base + 1);
  lua_callk(L, n, LUA_MULTRET, base, go_on);
  return go_on(L, LUA_OK, base); /* never: it yields */
}

int eb_go_private(lua_State *L, lua_CFunction body) {
  lua_State *co = eb_make_private(L, body);
  if (co == NULL)
    return lua_error(L);
  return eb_pass_on(L, co, eb_resume(L, co, lua_gettop(L) - 1, L));
}

/* The host is closed, or an error ends it. */
static int private_close(lua_State *L) {
  lua_State **co = luaL_testudata(L, 1, metatable);
  if (co == NULL || lua_status(*co) != LUA_YIELD || eb_reset(L, *co) == LUA_OK)
    return 0;
  lua_xmove(*co, L, 1);
  return lua_error(L);
}

static const luaL_Reg metamethods[] = {
    {"__close", private_close},
    {NULL, NULL},
};

void eb_open_private(lua_State *L) {
  eb_make_metatable(L, metatable, metamethods);
}
