/* SPDX-License-Identifier: MIT
** How a record is written as bytes and read again; codec.h has the format.
**
** Reading goes through the tokenizer of libmpack, which takes no memory.
** Writing is done here: a record is a dozen bytes of fixed shape, written
** twice in every run.
*/
#include "core/codec.h"

#include <mpack.h>
#include <string.h>

enum {
  FIXARRAY = 0x90,
  FIXED_FIELDS = 5,  /* version, state, count, start, duration */
  TAIL_FIELDS = 4,   /* error, trace, last, tally */
  TALLY_FIELDS = 3,  /* failed, timed out, time in all */
  COUNTS_FIELDS = 3, /* version, blocked, cached */
  KIND_SHIFT = 3,
  CRASHED_BIT = 32
};

/* ------------------------------------------------------------- writing -- */

typedef struct writer {
  unsigned char *out;
  size_t cap, len; /* len > cap: it does not fit, and no more is written */
} writer;

static void put(writer *w, const void *data, size_t n) {
  if (w->len + n <= w->cap && n > 0)
    memcpy(w->out + w->len, data, n);
  w->len += n;
}

/* A code, and the n bytes of a value behind it, the highest first. */
static void put_head(writer *w, unsigned code, uint64_t value, unsigned n) {
  size_t at = w->len;
  w->len += n + 1;
  if (w->len > w->cap)
    return;
  w->out[at] = (unsigned char)code;
  for (unsigned i = n; i > 0; i--, value >>= 8)
    w->out[at + i] = (unsigned char)value;
}

static void put_uint(writer *w, uint64_t value) {
  if (value < 0x80)
    put_head(w, (unsigned)value, 0, 0);
  else if (value <= UINT8_MAX)
    put_head(w, 0xcc, value, 1);
  else if (value <= UINT16_MAX)
    put_head(w, 0xcd, value, 2);
  else if (value <= UINT32_MAX)
    put_head(w, 0xce, value, 4);
  else
    put_head(w, 0xcf, value, 8);
}

/* Times before 1970 and negative durations are not times: written as 0.  Two
** of them can be added up. */
#define TIME_MAX (INT64_MAX / 2)

static void put_time(writer *w, int64_t us) {
  put_uint(w, us <= 0 ? 0 : (uint64_t)(us < TIME_MAX ? us : TIME_MAX));
}

static void put_text(writer *w, eg_bytes text) {
  if (text.len < 32)
    put_head(w, 0xa0 | (unsigned)text.len, 0, 0);
  else if (text.len <= UINT8_MAX)
    put_head(w, 0xd9, text.len, 1);
  else if (text.len <= UINT16_MAX)
    put_head(w, 0xda, text.len, 2);
  else
    put_head(w, 0xdb, text.len, 4);
  put(w, text.data, text.len);
}

static void put_array(writer *w, unsigned n) {
  if (n < 16)
    put_head(w, FIXARRAY | n, 0, 0);
  else
    put_head(w, 0xdc, n, 2);
}

/* What is seldom needed is not put inline with the rest of a step. */
#define SELDOM __attribute__((noinline))

static void put_counts(writer *w, const egi_tally *tally, unsigned buckets) {
  put_array(w, TALLY_FIELDS + 2 * buckets);
  put_uint(w, tally->failed);
  put_uint(w, tally->timed_out);
  put_time(w, tally->total_us);
}

/* Most gaps, and many numbers of runs, are one byte. */
static void put_bucket(writer *w, unsigned gap, uint32_t runs) {
  if ((gap | runs) < 0x80 && w->len + 2 <= w->cap) {
    w->out[w->len++] = (unsigned char)gap;
    w->out[w->len++] = (unsigned char)runs;
    return;
  }
  put_uint(w, gap);
  put_uint(w, runs);
}

SELDOM static void put_buckets(writer *w, const egi_tally *tally) {
  unsigned before = 0;
  put_counts(w, tally, tally->n);
  for (unsigned i = 0; i < tally->n; i++) {
    put_bucket(w, tally->buckets[i].number - before, tally->buckets[i].runs);
    before = tally->buckets[i].number;
  }
}

/* ------------------------------------------------------------- reading -- */

typedef struct reader {
  mpack_tokbuf_t tokens;
  const char *at;
  size_t left;
} reader;

static void read_from(reader *r, const void *data, size_t len) {
  mpack_tokbuf_init(&r->tokens);
  r->at = data;
  r->left = len;
}

static bool next(reader *r, mpack_token_t *token) {
  return r->left > 0 &&
         mpack_read(&r->tokens, &r->at, &r->left, token) == MPACK_OK;
}

/* The bytes that belong to a str or bin token. */
static bool read_chunk(reader *r, mpack_uint32_t len, eg_bytes *chunk) {
  mpack_token_t token;
  chunk->data = r->at;
  chunk->len = len;
  if (len > r->left)
    return false;
  if (len == 0)
    return true;
  return mpack_read(&r->tokens, &r->at, &r->left, &token) == MPACK_OK &&
         token.type == MPACK_TOKEN_CHUNK && token.length == len;
}

/* An unsigned integer, of which each run reads three: by hand. */
static bool read_uint(reader *r, uint64_t max, uint64_t *value) {
  const unsigned char *b = (const unsigned char *)r->at;
  if (r->left == 0)
    return false;
  unsigned n = 0;
  uint64_t v = b[0];
  if (b[0] >= 0x80) {
    if (b[0] < 0xcc || b[0] > 0xcf)
      return false;
    n = 1u << (b[0] - 0xcc);
    if (r->left <= n)
      return false;
    v = 0;
    for (unsigned i = 1; i <= n; i++)
      v = v << 8 | b[i];
  }
  r->at += n + 1;
  r->left -= n + 1;
  *value = v;
  return v <= max;
}

static bool read_time(reader *r, int64_t *us) {
  uint64_t value = 0;
  bool ok = read_uint(r, TIME_MAX, &value);
  *us = (int64_t)value;
  return ok;
}

static bool read_text(reader *r, eg_bytes *text) {
  mpack_token_t token;
  return next(r, &token) && token.type == MPACK_TOKEN_STR &&
         read_chunk(r, token.length, text);
}

/* How far the walk over a nested value has come. */
typedef struct level {
  uint64_t left; /* items to come; of a map, keys and values */
  bool map;
} level;

static bool is_key(mpack_token_type_t type) {
  return type == MPACK_TOKEN_STR || type == MPACK_TOKEN_UINT ||
         type == MPACK_TOKEN_SINT;
}

static const char *skip_token(reader *r, mpack_token_t *token) {
  eg_bytes chunk;
  if (!next(r, token))
    return "it is truncated or malformed";
  if (token->type == MPACK_TOKEN_EXT || token->type == MPACK_TOKEN_CHUNK)
    return "it has an extension type";
  bool text = token->type == MPACK_TOKEN_STR || token->type == MPACK_TOKEN_BIN;
  if (text && !read_chunk(r, token->length, &chunk))
    return "it is truncated";
  return NULL;
}

/* Walks over one value; NULL, or why it is none. */
static const char *skip_value(reader *r) {
  level levels[EG_DEPTH_MAX];
  int depth = 0;
  do {
    mpack_token_t token;
    const char *why = skip_token(r, &token);
    if (why != NULL)
      return why;
    if (depth > 0) {
      level *in = &levels[depth - 1];
      if (in->map && in->left % 2 == 0 && !is_key(token.type))
        return "a map has a key that is neither string nor integer";
      in->left--;
    }
    if (token.type == MPACK_TOKEN_ARRAY || token.type == MPACK_TOKEN_MAP) {
      if (depth == EG_DEPTH_MAX)
        return "it is nested deeper than 100 levels";
      bool map = token.type == MPACK_TOKEN_MAP;
      levels[depth].map = map;
      levels[depth++].left = (uint64_t)token.length * (map ? 2 : 1);
    }
    while (depth > 0 && levels[depth - 1].left == 0)
      depth--;
  } while (depth > 0);
  return NULL;
}

/* The length of a value that is one token of fixed length, by its first byte;
** 0 for others.  Most results are such: no walk for them. */
static size_t scalar_length(unsigned first) {
  if (first < 0x80 || first >= 0xe0)
    return 1;
  switch (first) {
  case 0xc0: /* nil */
  case 0xc2: /* false */
  case 0xc3: /* true */
    return 1;
  case 0xcb: /* float 64 */
  case 0xcf: /* uint 64 */
  case 0xd3: /* int 64 */
    return 9;
  default:
    return 0;
  }
}

static bool is_scalar(eg_bytes value) {
  return value.len > 0 &&
         scalar_length(*(const unsigned char *)value.data) == value.len;
}

const char *egi_check_value(eg_bytes value) {
  if (is_scalar(value))
    return NULL;
  reader r;
  read_from(&r, value.data, value.len);
  const char *why = skip_value(&r);
  if (why == NULL && r.left > 0)
    why = "more bytes follow it";
  return why;
}

bool egi_decode_head(eg_bytes bytes, egi_head *head) {
  const unsigned char *b = bytes.data;
  head->absent = bytes.len == 0;
  if (head->absent) {
    head->crashed = false;
    head->status = EG_RUN_IDLE;
    head->kind = EG_KIND_NONE;
    return true;
  }
  if (bytes.len < 3 || b[1] != EGI_RECORD_VERSION)
    return false;
  unsigned status = b[2] & 7, kind = b[2] >> KIND_SHIFT & 3;
  head->status = (eg_run)status;
  head->kind = (eg_kind)kind;
  head->crashed = (b[2] & CRASHED_BIT) != 0;
  return status <= EG_RUN_FAILED && kind <= EG_KIND_OPAQUE && b[2] < 64 &&
         (!head->crashed || status == EG_RUN_FAILED);
}

/* The value, and how many elements of the array are behind it. */
static bool decode_value(reader *r, egi_record *record, unsigned *elements) {
  if (record->head.kind != EG_KIND_VALUE)
    return true;
  record->value.data = r->at;
  if (skip_value(r) != NULL)
    return false;
  record->value.len = (size_t)(r->at - (const char *)record->value.data);
  (*elements)--;
  return true;
}

bool egi_decode_value(eg_bytes bytes, eg_bytes *value) {
  const unsigned char *b = bytes.data;
  if (bytes.len < 4)
    return false;
  value->data = b + 3;
  value->len = scalar_length(b[3]);
  if (value->len > 0)
    return value->len + 3 <= bytes.len;
  reader r;
  read_from(&r, value->data, bytes.len - 3);
  bool ok = skip_value(&r) == NULL;
  value->len = (size_t)(r.at - (const char *)value->data);
  return ok;
}

/* How many numbers the array of a tally has; 0: it is none. */
static unsigned read_array(reader *r) {
  const unsigned char *b = (const unsigned char *)r->at;
  size_t size = 1;
  unsigned n = 0;
  if (r->left > 0 && (b[0] & 0xf0) == FIXARRAY) {
    n = b[0] & 15u;
  } else if (r->left > 2 && b[0] == 0xdc) {
    n = (unsigned)b[1] << 8 | b[2];
    size = 3;
  }
  if (n > 0) {
    r->at += size;
    r->left -= size;
  }
  return n;
}

/* A bucket as it stands in the array. */
typedef struct place {
  const char *at; /* where its gap is */
  unsigned before, number;
  uint32_t runs;
} place;

static inline bool next_bucket(reader *r, bool first, place *p) {
  const unsigned char *b = (const unsigned char *)r->at;
  uint64_t gap, runs;
  p->at = r->at;
  if (r->left >= 2 && (b[0] | b[1]) < 0x80) {
    gap = b[0];
    runs = b[1];
    r->at += 2;
    r->left -= 2;
  } else if (!read_uint(r, UINT16_MAX, &gap) ||
             !read_uint(r, UINT32_MAX, &runs)) {
    return false;
  }
  p->before = p->number;
  p->number += (unsigned)gap;
  p->runs = (uint32_t)runs;
  return (gap > 0 || first) && p->number < EGI_BUCKETS;
}

/* What stands before the buckets, *n of which follow.  False: malformed. */
static bool read_counts(reader *r, egi_tally *tally, unsigned *n) {
  unsigned fields = read_array(r);
  uint64_t failed, timed_out;
  if (fields < TALLY_FIELDS || (fields - TALLY_FIELDS) % 2 != 0 ||
      fields - TALLY_FIELDS > 2 * EGI_TALLY_BUCKETS ||
      !read_uint(r, UINT32_MAX, &failed) ||
      !read_uint(r, UINT32_MAX, &timed_out) || !read_time(r, &tally->total_us))
    return false;
  tally->failed = (uint32_t)failed;
  tally->timed_out = (uint32_t)timed_out;
  *n = (fields - TALLY_FIELDS) / 2;
  return true;
}

static bool read_tally(reader *r, egi_tally *tally) {
  place p = {.number = 0};
  unsigned n;
  if (!read_counts(r, tally, &n))
    return false;
  for (tally->n = 0; tally->n < n; tally->n++) {
    if (!next_bucket(r, tally->n == 0, &p))
      return false;
    tally->buckets[tally->n].number = (uint16_t)p.number;
    tally->buckets[tally->n].runs = p.runs;
  }
  return true;
}

bool egi_decode_tally(eg_bytes bytes, egi_tally *tally) {
  reader r;
  read_from(&r, bytes.data, bytes.len);
  if (bytes.len > 0 && read_tally(&r, tally) && r.left == 0)
    return true;
  tally->failed = tally->timed_out = tally->n = 0;
  tally->total_us = 0;
  return bytes.len == 0;
}

/* It is the last field: all that is left is the tally. */
SELDOM static bool take_tally(reader *r, eg_bytes *bytes) {
  egi_tally tally;
  place p = {.number = 0};
  unsigned n;
  *bytes = (eg_bytes){r->at, r->left};
  if (!read_counts(r, &tally, &n))
    return false;
  for (unsigned i = 0; i < n; i++)
    if (!next_bucket(r, i == 0, &p))
      return false;
  return r->left == 0;
}

bool egi_decode(eg_bytes bytes, egi_record *record) {
  memset(record, 0, sizeof *record);
  if (!egi_decode_head(bytes, &record->head))
    return false;
  if (record->head.absent)
    return true;
  unsigned first = *(const unsigned char *)bytes.data;
  unsigned elements = first & 15;
  reader r;
  read_from(&r, (const char *)bytes.data + 3, bytes.len - 3);
  if ((first & 0xf0) != FIXARRAY || !decode_value(&r, record, &elements) ||
      elements < FIXED_FIELDS || elements > FIXED_FIELDS + TAIL_FIELDS)
    return false;
  unsigned tail = elements - FIXED_FIELDS;
  uint64_t count;
  if (!read_uint(&r, UINT32_MAX, &count) ||
      !read_time(&r, &record->start_us) ||
      !read_time(&r, &record->duration_us))
    return false;
  record->count = (uint32_t)count;
  return (tail < 1 || read_text(&r, &record->error)) &&
         (tail < 2 || read_text(&r, &record->trace)) &&
         (tail < 3 || read_time(&r, &record->last_us)) &&
         (tail < 4 || take_tally(&r, &record->tally)) && r.left == 0;
}

/* ---------------------------------------------------- a whole record -- */

/* The tally with one run more: beside the counts only the bucket of that run
** is new, and the others are not read twice.  False: that is not all. */
static bool put_run(writer *w, eg_bytes old, eg_run status, int64_t us) {
  egi_tally counts;
  reader r;
  unsigned n, number = egi_bucket_of(us);
  bool behind = false; /* is p the bucket, or the next one? */
  read_from(&r, old.data, old.len);
  if (!read_counts(&r, &counts, &n) || !egi_tally_count(&counts, status, us))
    return false;
  const char *first = r.at;
  place p = {.at = first};
  for (unsigned i = 0; i < n && !behind; i++) {
    if (!next_bucket(&r, i == 0, &p))
      return false;
    behind = p.number >= number;
  }
  bool there = behind && p.number == number;
  if (!there && n == EGI_TALLY_BUCKETS)
    return false;
  uint32_t runs = there ? p.runs + (p.runs < UINT32_MAX) : 1;
  put_counts(w, &counts, there ? n : n + 1);
  put(w, first, (size_t)((behind ? p.at : r.at) - first));
  put_bucket(w, number - (behind ? p.before : p.number), runs);
  if (behind && !there)
    put_bucket(w, p.number - number, p.runs);
  put(w, r.at, r.left);
  return true;
}

/* The tally with the run that makes room. */
SELDOM static void put_tally(writer *w, const egi_record *record) {
  egi_tally tally;
  if (record->added == EG_RUN_IDLE) {
    put(w, record->tally.data, record->tally.len);
    return;
  }
  if (put_run(w, record->tally, record->added, record->added_us))
    return;
  egi_decode_tally(record->tally, &tally);
  egi_tally_add(&tally, record->added, record->added_us);
  put_buckets(w, &tally);
}

static unsigned tail_length(const egi_record *record) {
  if (record->tally.len > 0 || record->added != EG_RUN_IDLE)
    return 4;
  if (record->last_us > 0)
    return 3;
  if (record->trace.len > 0)
    return 2;
  return record->error.len > 0 ? 1 : 0;
}

size_t egi_encode(const egi_record *record, void *out, size_t cap) {
  writer w = {out, cap, 0};
  const egi_head *head = &record->head;
  unsigned tail = tail_length(record);
  bool value = head->kind == EG_KIND_VALUE;
  unsigned state = (unsigned)head->status |
                   (unsigned)head->kind << KIND_SHIFT |
                   (head->crashed ? CRASHED_BIT : 0);
  unsigned char first[3] = {
      (unsigned char)(FIXARRAY | (FIXED_FIELDS + tail + (value ? 1 : 0))),
      EGI_RECORD_VERSION, (unsigned char)state};
  put(&w, first, sizeof first);
  if (value)
    put(&w, record->value.data, record->value.len);
  put_uint(&w, record->count);
  put_time(&w, record->start_us);
  put_time(&w, record->duration_us);
  if (tail >= 1)
    put_text(&w, record->error);
  if (tail >= 2)
    put_text(&w, record->trace);
  if (tail >= 3)
    put_time(&w, record->last_us);
  if (tail >= 4)
    put_tally(&w, record);
  return w.len;
}

/* ---------------------------------------------------- what is counted -- */

size_t egi_encode_tally(const egi_tally *tally, void *out, size_t cap) {
  writer w = {out, cap, 0};
  put_buckets(&w, tally);
  return w.len;
}

size_t egi_encode_counts(const egi_counts *counts, void *out, size_t cap) {
  writer w = {out, cap, 0};
  bool waits = counts->waits.n > 0;
  put_array(&w, waits ? COUNTS_FIELDS + 1 : COUNTS_FIELDS);
  put_uint(&w, EGI_COUNTS_VERSION);
  put_uint(&w, counts->blocked);
  put_uint(&w, counts->cached);
  if (waits)
    put_buckets(&w, &counts->waits);
  return w.len;
}

bool egi_decode_counts(eg_bytes bytes, egi_counts *counts) {
  reader r;
  uint64_t version = 0;
  memset(counts, 0, sizeof *counts);
  if (bytes.len == 0)
    return true;
  read_from(&r, bytes.data, bytes.len);
  unsigned n = read_array(&r);
  if ((n == COUNTS_FIELDS || n == COUNTS_FIELDS + 1) &&
      read_uint(&r, UINT32_MAX, &version) && version == EGI_COUNTS_VERSION &&
      read_uint(&r, UINT64_MAX, &counts->blocked) &&
      read_uint(&r, UINT64_MAX, &counts->cached) &&
      (n == COUNTS_FIELDS || read_tally(&r, &counts->waits)) && r.left == 0)
    return true;
  memset(counts, 0, sizeof *counts);
  return false;
}
