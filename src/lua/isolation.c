/* SPDX-License-Identifier: MIT
** What executionguard.isolation needs beside a guard: names of lock files, who
** holds a key that has no record, and the locks of the whole process.
*/
#include "lua/binding.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* file(command) -> the name of its file in the lock folder */
static int lock_file(lua_State *L) {
  char name[EG_LOCK_FILE_MAX];
  eg_bytes key = {NULL, 0};
  key.data = luaL_checklstring(L, 1, &key.len);
  size_t n = eg_lock_file(NULL, key, name);
  lua_pushlstring(L, name, n);
  return 1;
}

/* look(path) -> "none": there is nothing; "line": a file whose line says who
** has, or had, the lock; "file": any other; "unknown": it cannot be read */
static int look(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  struct stat st;
  char first = '\n';
  int fd;
  do
    fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) {
    lua_pushstring(L, errno == ENOENT ? "none" : "unknown");
    return 1;
  }
  bool line = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
              pread(fd, &first, 1, 0) == 1 && first != '\n';
  close(fd);
  lua_pushstring(L, line ? "line" : "file");
  return 1;
}

static int failed(lua_State *L, const eg_error *error) {
  lua_pushnil(L);
  return 1 + eb_push_failure(L, error);
}

/* holder(guard, key) -> false; or true and a table of who holds it; or nil and
** the failure */
static int holder(lua_State *L) {
  const eb_guard *guard = eb_check_guard(L, "holder");
  eg_bytes key = eb_check_key(L, "holder");
  eg_record record;
  eg_error error;
  eg_status status = eg_look(guard->core, key, &record, &error);
  bool locked = record.locked;
  eg_owner owner = record.owner;
  eg_record_free(&record);
  if (EG_IS_FAILURE(status))
    return failed(L, &error);
  lua_pushboolean(L, locked);
  if (!locked)
    return 1;
  eb_push_owner(L, &owner);
  return 2;
}

/* release(guard, key) -> did a lock of this process end? or nil and the
** failure */
static int release_here(lua_State *L) {
  const eb_guard *guard = eb_check_guard(L, "release");
  eg_bytes key = eb_check_key(L, "release");
  eg_error error;
  eg_status status = eg_release_here(guard->core, key, &error);
  if (EG_IS_FAILURE(status))
    return failed(L, &error);
  lua_pushboolean(L, status == EG_OK);
  return 1;
}

void eb_push_isolation(lua_State *L) {
  static const luaL_Reg functions[] = {{"file", lock_file},
                                       {"look", look},
                                       {"holder", holder},
                                       {"release", release_here},
                                       {NULL, NULL}};
  luaL_newlib(L, functions);
}
