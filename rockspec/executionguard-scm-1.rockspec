rockspec_format = "3.0"
package = "executionguard"
version = "scm-1"
source = {
  -- there is no published archive: install from a checkout, by `luarocks make`
  url = "git+file://.",
}
description = {
  summary = "Run this once: guards, locks and results across processes",
  detailed = [[
Run this once. Not twice at the same time, not again if it is done, not for
longer than that, and tell me who is running it and what came out.  From Lua,
from C and from a shell, with the same words and the same promises.
Needs libmpack, xxHash, SQLite and libmd.]],
  license = "MIT",
}
dependencies = {
  "lua ~> 5.4",
}
build = {
  type = "make",
  build_target = "lua-module",
  install_target = "install-lua-module",
  build_variables = {
    CFLAGS = "$(CFLAGS)",
    LIBFLAG = "$(LIBFLAG)",
    LUA_INCDIR = "$(LUA_INCDIR)",
  },
  install_variables = {
    INST_LIBDIR = "$(LIBDIR)",
    INST_LUADIR = "$(LUADIR)",
  },
}
