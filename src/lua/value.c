/* SPDX-License-Identifier: MIT
** Lua values as MessagePack and back.
**
** Stored are nil, booleans, numbers, strings, and tables of them: a table
** whose keys are 1..n is an array, an empty one too; any other is a map, whose
** keys are strings or integers.  Encoding raises nothing: it goes over tables
** raw, and asks before it takes room on the stack.
*/
#include "lua/binding.h"

#include <mpack.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void eb_bytes_init(eb_bytes *bytes) {
  bytes->data = bytes->small;
  bytes->len = 0;
  bytes->cap = sizeof bytes->small;
}

void eb_bytes_free(eb_bytes *bytes) {
  if (bytes->data != bytes->small)
    free(bytes->data);
  eb_bytes_init(bytes);
}

static bool reserve(eb_bytes *bytes, size_t n) {
  size_t need = bytes->len + n;
  if (need <= bytes->cap)
    return true;
  size_t cap = need < 4096 ? 4096 : need + need / 2;
  bool small = bytes->data == bytes->small;
  unsigned char *data = realloc(small ? NULL : bytes->data, cap);
  if (data == NULL)
    return false;
  if (small)
    memcpy(data, bytes->small, bytes->len);
  bytes->data = data;
  bytes->cap = cap;
  return true;
}

/* ------------------------------------------------------------ encoding -- */

typedef struct encoder {
  lua_State *L;
  eb_bytes *bytes;
  size_t max;
  const _Atomic int64_t *until_us; /* NULL: any time */
  unsigned values;                 /* so many were there */
  char *why;
  const void *open[EG_DEPTH_MAX]; /* tables that are being written */
  int depth;
  size_t path_len;
  char path[96];
} encoder;

static bool refuse(encoder *e, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool refuse(encoder *e, const char *format, ...) {
  va_list args;
  int n = snprintf(e->why, EB_WHY, "result%s: ", e->path);
  size_t at = n > 0 ? (size_t)n : 0;
  va_start(args, format);
  if (at < EB_WHY)
    vsnprintf(e->why + at, EB_WHY - at, format, args);
  va_end(args);
  return false;
}

static bool put_token(encoder *e, mpack_token_t token) {
  mpack_tokbuf_t tokens = MPACK_TOKBUF_INITIAL_VALUE;
  if (!reserve(e->bytes, MPACK_MAX_TOKEN_LEN))
    return refuse(e, "not enough memory");
  char *at = (char *)e->bytes->data + e->bytes->len;
  size_t left = MPACK_MAX_TOKEN_LEN;
  mpack_write(&tokens, &at, &left, &token);
  e->bytes->len += MPACK_MAX_TOKEN_LEN - left;
  return true;
}

static bool put_string(encoder *e, int index) {
  size_t len;
  const char *s = lua_tolstring(e->L, index, &len);
  if (len > e->max)
    return refuse(e, "a string of %zu bytes; at most %zu are stored", len,
                  e->max);
  if (!put_token(e, mpack_pack_str((mpack_uint32_t)len)))
    return false;
  if (!reserve(e->bytes, len))
    return refuse(e, "not enough memory");
  memcpy(e->bytes->data + e->bytes->len, s, len);
  e->bytes->len += len;
  return true;
}

static void put_raw(eb_bytes *bytes, unsigned code, uint64_t value) {
  bytes->data[bytes->len] = (unsigned char)code;
  for (int i = 8; i > 0; i--, value >>= 8)
    bytes->data[bytes->len + (size_t)i] = (unsigned char)value;
  bytes->len += 9;
}

/* An integer is written as such, a float as eight bytes: each comes back as
** what it was.  Small integers are one byte. */
static void put_number(lua_State *L, int index, eb_bytes *bytes) {
  if (lua_isinteger(L, index)) {
    lua_Integer i = lua_tointeger(L, index);
    if (i >= -32 && i < 128)
      bytes->data[bytes->len++] = (unsigned char)i;
    else
      put_raw(bytes, 0xd3, (uint64_t)i);
    return;
  }
  double d = (double)lua_tonumber(L, index);
  uint64_t bits;
  memcpy(&bits, &d, sizeof bits);
  put_raw(bytes, 0xcb, bits);
}

bool eb_encode_scalar(lua_State *L, int index, eb_bytes *bytes) {
  if (!reserve(bytes, MPACK_MAX_TOKEN_LEN))
    return false;
  switch (lua_type(L, index)) {
  case LUA_TNIL:
    bytes->data[bytes->len++] = 0xc0;
    return true;
  case LUA_TBOOLEAN:
    bytes->data[bytes->len++] = lua_toboolean(L, index) ? 0xc3 : 0xc2;
    return true;
  case LUA_TNUMBER:
    put_number(L, index, bytes);
    return true;
  default:
    return false;
  }
}

/* Is the table at index a sequence 1..n and nothing else?  Its pairs. */
static bool is_sequence(lua_State *L, int index, size_t *pairs) {
  size_t n = 0;
  lua_Integer largest = 0;
  bool integers = true;
  for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1), n++) {
    if (!lua_isinteger(L, -2) || lua_tointeger(L, -2) < 1)
      integers = false;
    else if (lua_tointeger(L, -2) > largest)
      largest = lua_tointeger(L, -2);
  }
  *pairs = n;
  return integers && (size_t)largest == n;
}

/* Names the place in the table; the key is at index. */
static size_t enter(encoder *e, int index) {
  size_t before = e->path_len;
  size_t room = sizeof e->path - before;
  int n = 0;
  if (lua_isinteger(e->L, index))
    n = snprintf(e->path + before, room, "[%lld]",
                 (long long)lua_tointeger(e->L, index));
  else if (lua_type(e->L, index) == LUA_TSTRING)
    n = snprintf(e->path + before, room, ".%s", lua_tostring(e->L, index));
  e->path_len = before + (n > 0 ? (size_t)n : 0);
  if (e->path_len >= sizeof e->path)
    e->path_len = sizeof e->path - 1;
  return before;
}

static void leave(encoder *e, size_t before) {
  e->path_len = before;
  e->path[before] = '\0';
}

static bool put_value(encoder *e, int index);

static bool put_array(encoder *e, int index, size_t n) {
  if (!put_token(e, mpack_pack_array((mpack_uint32_t)n)))
    return false;
  for (size_t i = 1; i <= n; i++) {
    lua_pushinteger(e->L, (lua_Integer)i);
    size_t before = enter(e, -1);
    lua_pop(e->L, 1);
    lua_rawgeti(e->L, index, (lua_Integer)i);
    bool ok = put_value(e, lua_gettop(e->L));
    lua_pop(e->L, 1);
    if (!ok)
      return false;
    leave(e, before);
  }
  return true;
}

static bool put_map(encoder *e, int index, size_t pairs) {
  lua_State *L = e->L;
  if (!put_token(e, mpack_pack_map((mpack_uint32_t)pairs)))
    return false;
  for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
    int key = lua_gettop(L) - 1;
    if (!lua_isinteger(L, key) && lua_type(L, key) != LUA_TSTRING) {
      bool number = lua_type(L, key) == LUA_TNUMBER;
      lua_pop(L, 2);
      return refuse(e, "a key of a map is a %s; keys are strings or integers",
                    number ? "float" : "boolean or an object");
    }
    size_t before = enter(e, key);
    bool ok = put_value(e, key) && put_value(e, key + 1);
    if (!ok) {
      lua_pop(L, 2);
      return false;
    }
    leave(e, before);
  }
  return true;
}

static bool put_table(encoder *e, int index) {
  const void *table = lua_topointer(e->L, index);
  for (int i = 0; i < e->depth; i++)
    if (e->open[i] == table)
      return refuse(e, "a table that contains itself");
  if (e->depth == EG_DEPTH_MAX || !lua_checkstack(e->L, 6))
    return refuse(e, "nested deeper than %d levels", EG_DEPTH_MAX);
  e->open[e->depth++] = table;
  size_t pairs;
  bool sequence = is_sequence(e->L, index, &pairs);
  bool ok = sequence ? put_array(e, index, pairs) : put_map(e, index, pairs);
  e->depth--;
  return ok;
}

/* The clock is not asked for each value; what is small is always in time. */
static bool in_time(encoder *e) {
  return e->until_us == NULL || (++e->values & 255) != 0 ||
         atomic_load(e->until_us) == EG_FOREVER ||
         eg_now_us() < atomic_load(e->until_us);
}

static bool put_value(encoder *e, int index) {
  int type = lua_type(e->L, index);
  bool ok;
  if (!in_time(e))
    return refuse(e, "there was no time to pack it");
  if (type == LUA_TSTRING)
    ok = put_string(e, index);
  else if (type == LUA_TTABLE)
    ok = put_table(e, index);
  else if (type == LUA_TFUNCTION || type == LUA_TTHREAD ||
           type == LUA_TUSERDATA || type == LUA_TLIGHTUSERDATA)
    return refuse(e, "%s (only data can be stored)", lua_typename(e->L, type));
  else
    ok = eb_encode_scalar(e->L, index, e->bytes) ||
         refuse(e, "not enough memory");
  if (ok && e->bytes->len > e->max)
    return refuse(e, "more than %zu bytes (maxResult)", e->max);
  return ok;
}

bool eb_encode(lua_State *L, int index, size_t max, eb_bytes *bytes,
               char *why) {
  return eb_encode_until(L, index, max, NULL, bytes, why);
}

bool eb_encode_until(lua_State *L, int index, size_t max,
                     const _Atomic int64_t *until_us, eb_bytes *bytes,
                     char *why) {
  encoder e = {
      .L = L, .bytes = bytes, .max = max, .until_us = until_us, .why = why};
  int top = lua_gettop(L);
  bool ok = put_value(&e, lua_absindex(L, index));
  lua_settop(L, top);
  return ok;
}

/* ------------------------------------------------------------ decoding -- */

typedef struct decoder {
  lua_State *L;
  mpack_tokbuf_t tokens;
  const char *at;
  size_t left;
} decoder;

static void push_value(decoder *d);

static mpack_token_t next_token(decoder *d) {
  mpack_token_t token = {0};
  if (d->left == 0 || mpack_read(&d->tokens, &d->at, &d->left, &token) != 0)
    luaL_error(d->L, "executionguard: a stored value is damaged");
  return token;
}

static void push_text(decoder *d, mpack_uint32_t len) {
  if (len > d->left)
    luaL_error(d->L, "executionguard: a stored value is damaged");
  lua_pushlstring(d->L, d->at, len);
  if (len > 0)
    next_token(d);
}

static void push_array(decoder *d, mpack_uint32_t n) {
  lua_createtable(d->L, n < 4096 ? (int)n : 4096, 0);
  for (mpack_uint32_t i = 1; i <= n; i++) {
    push_value(d);
    lua_rawseti(d->L, -2, i);
  }
}

static void push_map(decoder *d, mpack_uint32_t n) {
  lua_createtable(d->L, 0, n < 4096 ? (int)n : 4096);
  for (mpack_uint32_t i = 0; i < n; i++) {
    push_value(d);
    push_value(d);
    lua_rawset(d->L, -3);
  }
}

/* Whole numbers beyond Lua's integers become floats. */
static void push_uint(lua_State *L, uint64_t value) {
  if (value <= INT64_MAX)
    lua_pushinteger(L, (lua_Integer)value);
  else
    lua_pushnumber(L, (lua_Number)value);
}

static void push_value(decoder *d) {
  lua_State *L = d->L;
  luaL_checkstack(L, 4, "a stored value is nested too deep");
  mpack_token_t token = next_token(d);
  switch (token.type) {
  case MPACK_TOKEN_NIL:
    lua_pushnil(L);
    break;
  case MPACK_TOKEN_BOOLEAN:
    lua_pushboolean(L, mpack_unpack_boolean(token));
    break;
  case MPACK_TOKEN_UINT:
    push_uint(L, mpack_unpack_uint(token));
    break;
  case MPACK_TOKEN_SINT:
    lua_pushinteger(L, mpack_unpack_sint(token));
    break;
  case MPACK_TOKEN_FLOAT:
    lua_pushnumber(L, mpack_unpack_float(token));
    break;
  case MPACK_TOKEN_ARRAY:
    push_array(d, token.length);
    break;
  case MPACK_TOKEN_MAP:
    push_map(d, token.length);
    break;
  default:
    push_text(d, token.length);
  }
}

/* The one-byte values, and floats and integers as put_number writes them. */
static bool push_scalar(lua_State *L, const unsigned char *b, size_t len) {
  uint64_t bits = 0;
  double d;
  if (len == 1 && b[0] < 0x80) {
    lua_pushinteger(L, b[0]);
  } else if (len == 1 && (b[0] == 0xc2 || b[0] == 0xc3)) {
    lua_pushboolean(L, b[0] == 0xc3);
  } else if (len == 9 && (b[0] == 0xcb || b[0] == 0xd3)) {
    for (int i = 1; i <= 8; i++)
      bits = bits << 8 | b[i];
    memcpy(&d, &bits, sizeof d);
    if (b[0] == 0xcb)
      lua_pushnumber(L, d);
    else
      lua_pushinteger(L, (lua_Integer)bits);
  } else {
    return false;
  }
  return true;
}

void eb_decode(lua_State *L, eg_bytes value) {
  if (push_scalar(L, value.data, value.len))
    return;
  decoder d = {.L = L, .at = value.data, .left = value.len};
  mpack_tokbuf_init(&d.tokens);
  push_value(&d);
}
