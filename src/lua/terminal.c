/* SPDX-License-Identifier: MIT
** Is a file of Lua's a terminal, and how large is it?
*/
#include "lua/binding.h"

#include <sys/ioctl.h>
#include <unistd.h>

#define WIDTH 80 /* where the terminal does not say */
#define HEIGHT 24

/* terminal(file) -> columns, rows; nothing: it is none */
int eb_terminal(lua_State *L) {
  const luaL_Stream *stream = luaL_checkudata(L, 1, LUA_FILEHANDLE);
  struct winsize size;
  if (stream->closef == NULL || !isatty(fileno(stream->f)))
    return 0;
  bool known = ioctl(fileno(stream->f), TIOCGWINSZ, &size) == 0;
  lua_pushinteger(L, known && size.ws_col > 0 ? size.ws_col : WIDTH);
  lua_pushinteger(L, known && size.ws_row > 0 ? size.ws_row : HEIGHT);
  return 2;
}
