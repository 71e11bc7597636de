/* SPDX-License-Identifier: MIT
** What a Lua program that is told to terminate does first.
*/
#include "lua/binding.h"

#include <signal.h>

static atomic_bool unwanted;

void eb_mind_term(const eg_guard *core) {
  if (!atomic_load(&unwanted))
    eg_leave_at(core, SIGTERM);
}

int eb_configure_term(lua_State *L) {
  atomic_store(&unwanted, !lua_toboolean(L, 1));
  return 0;
}
