/* SPDX-License-Identifier: MIT
** Option tables: names, types, units, bounds, and what to say of a wrong one.
*/
#include "lua/binding.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

typedef enum option_type {
  T_SECONDS, /* into an int64_t of milliseconds */
  T_TIMEOUT, /* both for the work and for a lock */
  T_BOOLEAN,
  T_FUNCTION, /* stays in the table */
  T_LOGGER,   /* the same, of a new guard */
  T_JOIN,     /* true: as long as timeout */
  T_RETRY,
  T_CRASH,
  T_UNAVAILABLE,
  T_GRACE,
  T_TEXT,
  T_BYTES,
  T_RUNS
} option_type;

typedef enum option_place { BOTH, CALL, NEW } option_place;

typedef struct option {
  const char *name;
  option_type type;
  option_place place;
  size_t offset;
} option;

#define POLICY(field) (offsetof(eb_settings, policy.field))
#define CREATION(field) (offsetof(eb_creation, field))

static const option options[] = {
    {"timeout", T_TIMEOUT, BOTH, 0},
    {"cacheResult", T_BOOLEAN, BOTH, POLICY(cache_result)},
    {"allowRerun", T_BOOLEAN, CALL, POLICY(allow_rerun)},
    {"onTimeout", T_FUNCTION, CALL, 0},
    {"onLost", T_FUNCTION, CALL, 0},
    {"join", T_JOIN, CALL, 0},
    {"resultTtl", T_SECONDS, BOTH, POLICY(result_ttl_ms)},
    {"errorTtl", T_SECONDS, BOTH, POLICY(error_ttl_ms)},
    {"cooldown", T_SECONDS, BOTH, POLICY(cooldown_ms)},
    {"lockAtLeast", T_SECONDS, BOTH, POLICY(lock_at_least_ms)},
    {"recordTtl", T_SECONDS, BOTH, POLICY(record_ttl_ms)},
    {"retry", T_RETRY, BOTH, 0},
    {"lease", T_SECONDS, BOTH, POLICY(lease_ms)},
    {"maxHold", T_SECONDS, BOTH, POLICY(max_hold_ms)},
    {"afterCrash", T_CRASH, BOTH, 0},
    {"whenUnavailable", T_UNAVAILABLE, BOTH, 0},
    {"interrupt", T_BOOLEAN, BOTH, offsetof(eb_settings, interrupt)},
    {"closeGrace", T_GRACE, BOTH, 0},
    {"owner", T_TEXT, BOTH, CREATION(owner)},
    {"maxResult", T_BYTES, BOTH, POLICY(max_result)},
    {"debug", T_BOOLEAN, NEW, CREATION(debug)},
    {"store", T_TEXT, NEW, CREATION(store)},
    {"name", T_TEXT, NEW, CREATION(name)},
    {"history", T_RUNS, NEW, CREATION(history)},
    {"logger", T_LOGGER, NEW, 0},
};

#define OPTIONS (sizeof options / sizeof *options)

/* What is being read, and what is wrong with it can be said. */
typedef struct reader {
  lua_State *L;
  const char *method;
  eb_settings *settings;
  eb_creation *creation;
  bool join_as_timeout;
} reader;

void eb_settings_init(eb_settings *settings) {
  static const eb_settings defaults = {
      .policy = EG_POLICY_DEFAULT,
      .timeout_us = 30000000,
      .wait_ms = 30000,
      .retry = {1, 0.1, 2, 30, 1},
      .interrupt = true,
      .close_grace = 0.005,
  };
  *settings = defaults;
}

void eb_push_option_names(lua_State *L) {
  lua_createtable(L, 0, (int)OPTIONS);
  for (size_t i = 0; i < OPTIONS; i++) {
    lua_pushinteger(L, (lua_Integer)i);
    lua_setfield(L, -2, options[i].name);
  }
}

/* ----------------------------------------------------------- messages -- */

/* The edits between two words, for words of at most 31 letters. */
static int distance(const char *a, const char *b) {
  int row[32];
  int n = (int)strlen(b);
  if (n > 31 || strlen(a) > 31)
    return 99;
  for (int j = 0; j <= n; j++)
    row[j] = j;
  for (int i = 1; a[i - 1] != '\0'; i++) {
    int diagonal = row[0];
    row[0] = i;
    for (int j = 1; j <= n; j++) {
      int change = diagonal + (a[i - 1] != b[j - 1]);
      int insert = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
      diagonal = row[j];
      row[j] = change < insert ? change : insert;
    }
  }
  return row[n];
}

void eb_push_did_you_mean(lua_State *L, const char *word,
                          const char *const *known) {
  const char *nearest = NULL;
  int least = 99;
  for (; *known != NULL; known++) {
    int d = distance(word, *known);
    if (d < least) {
      least = d;
      nearest = *known;
    }
  }
  if (nearest != NULL && least <= 1 + (int)strlen(word) / 3)
    lua_pushfstring(L, "; did you mean '%s'?", nearest);
  else
    lua_pushliteral(L, "");
}

const char *eb_describe(lua_State *L, int index) {
  switch (lua_type(L, index)) {
  case LUA_TNONE:
  case LUA_TNIL:
    return "nil";
  case LUA_TSTRING:
    return lua_pushfstring(L, "the string '%s'", lua_tostring(L, index));
  case LUA_TNUMBER:
    lua_pushvalue(L, index);
    return lua_pushfstring(L, "the number %s", lua_tostring(L, -1));
  case LUA_TBOOLEAN:
    return lua_toboolean(L, index) ? "the boolean true" : "the boolean false";
  default:
    return lua_pushfstring(L, "a %s", luaL_typename(L, index));
  }
}

/* Raises: METHOD: option 'NAME' must be WANTS, not VALUE. */
static int bad(const reader *r, const char *name, const char *wants,
               int value) {
  return luaL_error(r->L, "%s: option '%s' must be %s, not %s", r->method,
                    name, wants, eb_describe(r->L, value));
}

static int unknown(const reader *r, int key) {
  const char *known[OPTIONS + 1];
  lua_State *L = r->L;
  if (lua_type(L, key) != LUA_TSTRING)
    return luaL_error(L, "%s: an option's name is a %s; names are strings",
                      r->method, luaL_typename(L, key));
  for (size_t i = 0; i < OPTIONS; i++)
    known[i] = options[i].name;
  known[OPTIONS] = NULL;
  eb_push_did_you_mean(L, lua_tostring(L, key), known);
  return luaL_error(L, "%s: there is no option '%s'%s", r->method,
                    lua_tostring(L, key), lua_tostring(L, -1));
}

/* ------------------------------------------------------------- numbers -- */

/* Up, but for what is only a product's rounding: 1.1 s are 1100 ms. */
static int64_t rounded_up(double x) {
  if (!(x < 9e18))
    return EG_FOREVER;
  int64_t whole = (int64_t)x;
  return whole + (x - (double)whole > x * 4e-16);
}

int64_t eb_us(double seconds) { return rounded_up(seconds * 1e6); }

int64_t eb_ms(double seconds) { return rounded_up(seconds * 1e3); }

static bool is_seconds(lua_State *L, int index) {
  return lua_type(L, index) == LUA_TNUMBER && lua_tonumber(L, index) >= 0;
}

double eb_check_seconds(lua_State *L, int index, const char *method,
                        const char *what) {
  if (lua_type(L, index) != LUA_TNUMBER || !(lua_tonumber(L, index) >= 0))
    luaL_error(L, "%s: %s must be a number of seconds, 0 or more, not %s",
               method, what, eb_describe(L, index));
  return lua_tonumber(L, index);
}

static double seconds_of(const reader *r, const char *name, int value) {
  if (!is_seconds(r->L, value))
    bad(r, name, "a number of seconds, 0 or more", value);
  return lua_tonumber(r->L, value);
}

/* A duration that a record carries; for ever is some 300 years, so that points
** in time can be added up. */
static int64_t life_of(const reader *r, const char *name, int value) {
  const int64_t longest_ms = INT64_C(10000000000000);
  int64_t ms = eb_ms(seconds_of(r, name, value));
  return ms < longest_ms ? ms : longest_ms;
}

static void set_timeout(reader *r, const char *name, int value) {
  double seconds = seconds_of(r, name, value);
  int64_t us = eb_us(seconds);
  r->settings->timeout_us = us == EG_FOREVER ? 0 : us;
  r->settings->wait_ms = eb_ms(seconds);
  r->settings->timed = true;
}

static void set_join(reader *r, const char *name, int value) {
  lua_State *L = r->L;
  bool flag = lua_type(L, value) == LUA_TBOOLEAN;
  if (!flag && !is_seconds(L, value))
    bad(r, name, "a boolean or a number of seconds, 0 or more", value);
  r->join_as_timeout = flag && lua_toboolean(L, value);
  r->settings->policy.join_ms = flag ? 0 : eb_ms(lua_tonumber(L, value));
}

/* --------------------------------------------------------------- retry -- */

typedef struct retry_field {
  const char *name;
  size_t offset;
  double least;
  bool may_be_infinite;
  const char *wants;
} retry_field;

static const retry_field retry_fields[] = {
    {"delay", offsetof(eb_retry, delay), 0, false,
     "a finite number of seconds, 0 or more"},
    {"factor", offsetof(eb_retry, factor), 1, false,
     "a finite number, 1 or more"},
    {"maxDelay", offsetof(eb_retry, max_delay), 0, true,
     "a number of seconds, 0 or more"},
};

#define RETRY_FIELDS (sizeof retry_fields / sizeof *retry_fields)

static void set_retry_number(reader *r, const char *name, int value) {
  static const char *const known[] = {
      "attempts", "delay", "factor", "maxDelay", "jitter", "on", NULL};
  char full[40] = "retry.";
  strncat(full, name, 30);
  for (size_t i = 0; i < RETRY_FIELDS; i++) {
    const retry_field *f = &retry_fields[i];
    if (strcmp(name, f->name) != 0)
      continue;
    if (lua_type(r->L, value) != LUA_TNUMBER ||
        !(lua_tonumber(r->L, value) >= f->least) ||
        !(f->may_be_infinite || lua_tonumber(r->L, value) < HUGE_VAL))
      bad(r, full, f->wants, value);
    *(double *)((char *)&r->settings->retry + f->offset) = lua_tonumber(r->L,
                                                                        value);
    return;
  }
  eb_push_did_you_mean(r->L, name, known);
  luaL_error(r->L, "%s: there is no option '%s'%s", r->method, full,
             lua_tostring(r->L, -1));
}

static void set_retry_field(reader *r, const char *name, int value) {
  lua_State *L = r->L;
  eb_retry *retry = &r->settings->retry;
  if (strcmp(name, "attempts") == 0) {
    if (lua_type(L, value) != LUA_TNUMBER || lua_tointeger(L, value) < 1)
      bad(r, "retry.attempts", "a whole number, 1 or more", value);
    retry->attempts = lua_tointeger(L, value);
  } else if (strcmp(name, "jitter") == 0) {
    bool flag = lua_type(L, value) == LUA_TBOOLEAN;
    if (!flag && !(is_seconds(L, value) && lua_tonumber(L, value) <= 1))
      bad(r, "retry.jitter", "a boolean or a number from 0 to 1", value);
    retry->jitter = flag ? lua_toboolean(L, value) : lua_tonumber(L, value);
  } else if (strcmp(name, "on") == 0) {
    eb_check_callable(L, value, r->method, "option 'retry.on'");
  } else {
    set_retry_number(r, name, value);
  }
}

static void set_retry(reader *r, const char *name, int value) {
  lua_State *L = r->L;
  if (lua_type(L, value) == LUA_TBOOLEAN && !lua_toboolean(L, value)) {
    r->settings->retry.attempts = 1; /* a call without that of its guard */
    return;
  }
  if (lua_type(L, value) != LUA_TTABLE)
    bad(r, name,
        "a table {attempts=, delay=, factor=, maxDelay=, jitter=, "
        "on=}, or false",
        value);
  r->settings->retry.attempts = 3;
  for (lua_pushnil(L); lua_next(L, value) != 0; lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      luaL_error(L, "%s: a name in option 'retry' is a %s; names are strings",
                 r->method, luaL_typename(L, -2));
    set_retry_field(r, lua_tostring(L, -2), lua_gettop(L));
  }
}

/* --------------------------------------------------------------- words -- */

static bool is_word(lua_State *L, int value, const char *word) {
  return lua_type(L, value) == LUA_TSTRING &&
         strcmp(lua_tostring(L, value), word) == 0;
}

static void set_text(reader *r, const option *o, int value) {
  lua_State *L = r->L;
  size_t len;
  if (lua_type(L, value) != LUA_TSTRING)
    bad(r, o->name, "a string", value);
  const char *text = lua_tolstring(L, value, &len);
  if (strlen(text) != len)
    bad(r, o->name, "a string without zero bytes", value);
  bool owner = o->offset == CREATION(owner);
  if (owner && len > EG_OWNER_MAX)
    luaL_error(L, "%s: option 'owner' has %I bytes; at most %d are taken",
               r->method, (LUAI_UACINT)len, EG_OWNER_MAX);
  if (r->creation != NULL)
    *(const char **)((char *)r->creation + o->offset) = text;
  else if (owner)
    r->settings->policy.owner = text;
}

static void set_bytes(reader *r, const option *o, int value) {
  lua_State *L = r->L;
  if (!lua_isinteger(L, value) || lua_tointeger(L, value) < 0)
    bad(r, o->name, "a whole number of bytes, 0 or more", value);
  r->settings->policy.max_result = (size_t)lua_tointeger(L, value);
}

static void set_runs(reader *r, const option *o, int value) {
  enum { MOST = 100000 };
  lua_State *L = r->L;
  if (!lua_isinteger(L, value) || lua_tointeger(L, value) < 0 ||
      lua_tointeger(L, value) > MOST)
    bad(r, o->name, "a whole number of runs, 0 to 100000", value);
  r->creation->history = (uint32_t)lua_tointeger(L, value);
}

static void set_boolean(reader *r, const option *o, int value) {
  if (lua_type(r->L, value) != LUA_TBOOLEAN)
    bad(r, o->name, "a boolean", value);
  char *base = o->place == NEW ? (char *)r->creation : (char *)r->settings;
  *(bool *)(base + o->offset) = lua_toboolean(r->L, value);
}

static void set_option(reader *r, const option *o, int value) {
  lua_State *L = r->L;
  switch (o->type) {
  case T_SECONDS: {
    int64_t ms = life_of(r, o->name, value);
    if (o->offset != 0)
      *(int64_t *)((char *)r->settings + o->offset) = ms;
    break;
  }
  case T_TIMEOUT:
    set_timeout(r, o->name, value);
    break;
  case T_BOOLEAN:
    set_boolean(r, o, value);
    break;
  case T_FUNCTION:
  case T_LOGGER:
    lua_pushfstring(L, "option '%s'", o->name);
    eb_check_callable(L, value, r->method, lua_tostring(L, -1));
    lua_pop(L, 1);
    break;
  case T_JOIN:
    set_join(r, o->name, value);
    break;
  case T_RETRY:
    set_retry(r, o->name, value);
    break;
  case T_CRASH:
    if (!is_word(L, value, "rerun") && !is_word(L, value, "block"))
      bad(r, o->name, "\"rerun\" or \"block\"", value);
    r->settings->policy.block_after_crash = is_word(L, value, "block");
    break;
  case T_UNAVAILABLE:
    if (!is_word(L, value, "fail") && !is_word(L, value, "run") &&
        !is_word(L, value, "stale"))
      bad(r, o->name, "\"fail\", \"run\" or \"stale\"", value);
    r->settings->away = is_word(L, value, "run")     ? EB_RUN_ALONE
                        : is_word(L, value, "stale") ? EB_STALE
                                                     : EB_FAIL;
    break;
  case T_GRACE:
    r->settings->close_grace = seconds_of(r, o->name, value);
    break;
  case T_TEXT:
    set_text(r, o, value);
    break;
  case T_BYTES:
    set_bytes(r, o, value);
    break;
  case T_RUNS:
    set_runs(r, o, value);
    break;
  }
}

static const option *find(const reader *r, int key) {
  lua_State *L = r->L;
  lua_pushvalue(L, key);
  lua_rawget(L, lua_upvalueindex(EB_UP_OPTIONS));
  if (lua_type(L, -1) != LUA_TNUMBER)
    unknown(r, key);
  const option *o = &options[lua_tointeger(L, -1)];
  lua_pop(L, 1);
  bool call = r->creation == NULL;
  if (o->place == (call ? NEW : CALL))
    luaL_error(L, "%s: option '%s' belongs to %s", r->method, o->name,
               call ? "ExecutionGuard.new" : "a call of RunOnce");
  return o;
}

void eb_read_options(lua_State *L, int index, const char *method,
                     eb_settings *settings, eb_creation *creation) {
  reader r = {L, method, settings, creation, false};
  if (lua_type(L, index) != LUA_TTABLE)
    luaL_error(L, "%s: options must be a table, not %s", method,
               eb_describe(L, index));
  luaL_checkstack(L, 8, method);
  for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
    int value = lua_gettop(L);
    set_option(&r, find(&r, value - 1), value);
  }
  if (r.join_as_timeout)
    settings->policy.join_ms = settings->wait_ms;
}
