/* SPDX-License-Identifier: MIT
** MessagePack as JSON, read by libmpack.
*/
#include "cli/cli.h"

#include <inttypes.h>
#include <mpack.h>

typedef struct reader {
  mpack_tokbuf_t tokens;
  const char *at;
  size_t left;
  ec_json *json;
  bool good; /* else the rest cannot be read: nulls */
} reader;

static mpack_token_t next(reader *r) {
  mpack_token_t token = {0};
  if (r->good && (r->left == 0 || mpack_read(&r->tokens, &r->at, &r->left,
                                             &token) != MPACK_OK))
    r->good = false;
  return token;
}

/* The bytes that belong to a token. */
static eg_bytes bytes_of(reader *r, mpack_token_t token) {
  eg_bytes bytes = {r->at, token.length};
  if (token.length > r->left) {
    r->good = false;
    bytes.len = 0;
  } else if (token.length > 0) {
    next(r);
  }
  return bytes;
}

/* A name in JSON is a string: a number as key is written as one. */
static void read_name(reader *r) {
  char text[32];
  mpack_token_t token = next(r);
  eg_bytes name = {"?", 1};
  if (r->good && token.type == MPACK_TOKEN_STR) {
    name = bytes_of(r, token);
  } else if (r->good && token.type == MPACK_TOKEN_UINT) {
    snprintf(text, sizeof text, "%" PRIu64,
             (uint64_t)mpack_unpack_uint(token));
    name = eg_str(text);
  } else if (r->good && token.type == MPACK_TOKEN_SINT) {
    snprintf(text, sizeof text, "%" PRId64, (int64_t)mpack_unpack_sint(token));
    name = eg_str(text);
  } else {
    r->good = false;
  }
  ec_json_name(r->json, name);
}

static void read_value(reader *r, int depth);

static void read_container(reader *r, mpack_token_t token, int depth) {
  bool map = token.type == MPACK_TOKEN_MAP;
  ec_json_open(r->json, NULL, map ? '{' : '[');
  for (mpack_uint32_t n = token.length; n > 0 && r->good; n--) {
    if (map)
      read_name(r);
    read_value(r, depth + 1);
  }
  ec_json_close(r->json, map ? '}' : ']');
}

static void read_value(reader *r, int depth) {
  mpack_token_t token = next(r);
  r->good = r->good && depth <= EG_DEPTH_MAX;
  switch (r->good ? token.type : MPACK_TOKEN_NIL) {
  case MPACK_TOKEN_BOOLEAN:
    ec_json_bool(r->json, NULL, mpack_unpack_boolean(token));
    break;
  case MPACK_TOKEN_UINT:
    ec_json_unsigned(r->json, NULL, mpack_unpack_uint(token));
    break;
  case MPACK_TOKEN_SINT:
    ec_json_integer(r->json, NULL, mpack_unpack_sint(token));
    break;
  case MPACK_TOKEN_FLOAT:
    ec_json_real(r->json, NULL, mpack_unpack_float(token));
    break;
  case MPACK_TOKEN_STR:
  case MPACK_TOKEN_BIN:
    ec_json_bytes(r->json, NULL, bytes_of(r, token));
    break;
  case MPACK_TOKEN_ARRAY:
  case MPACK_TOKEN_MAP:
    read_container(r, token, depth);
    break;
  default: /* nil, what nobody stores here, and what cannot be read */
    r->good = r->good && token.type == MPACK_TOKEN_NIL;
    ec_json_null(r->json, NULL);
  }
}

void ec_json_value(ec_json *json, const char *name, eg_bytes value) {
  reader r = {.at = value.data, .left = value.len, .json = json, .good = true};
  mpack_tokbuf_init(&r.tokens);
  if (name != NULL)
    ec_json_name(json, eg_str(name));
  read_value(&r, 0);
}
