/* SPDX-License-Identifier: MIT
** A text that C code writes in pieces, before it is a string of Lua.
*/
#include "lua/binding.h"

#include <stdlib.h>
#include <string.h>

static const char metatable[] = "ExecutionGuard text";

bool eb_text_add(void *ctx, const void *data, size_t n) {
  eb_text *t = ctx;
  if (t->n + n > t->cap) {
    size_t cap = 2 * t->cap + n;
    char *more = realloc(t->data, cap);
    t->no_memory = more == NULL;
    if (more == NULL)
      return false;
    t->data = more;
    t->cap = cap;
  }
  memcpy(t->data + t->n, data, n);
  t->n += n;
  return true;
}

void eb_text_clear(eb_text *t) {
  free(t->data);
  t->data = NULL;
}

static int text_gc(lua_State *L) {
  eb_text *t = luaL_testudata(L, 1, metatable);
  if (t != NULL)
    eb_text_clear(t);
  return 0;
}

eb_text *eb_text_push(lua_State *L) {
  eb_text *t = lua_newuserdatauv(L, sizeof *t, 0);
  memset(t, 0, sizeof *t);
  if (luaL_newmetatable(L, metatable)) {
    lua_pushcfunction(L, text_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushliteral(L, "ExecutionGuard");
    lua_setfield(L, -2, "__metatable");
  }
  lua_setmetatable(L, -2);
  return t;
}
