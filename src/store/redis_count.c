/* SPDX-License-Identifier: MIT
** What the redis store counts of its keys: a hash beside each record.
**
**   eg:{<name>:<key>}:n    b: blocked   c: cached   t: microseconds waited
**                          w<number>: waits in that bucket (core/histogram.h)
**
** It is in the slot of its record, and expires with it (the scripts that write
** the record see to that); that of a key without a record, a day after the
** last addition.
*/
#include "core/codec.h"
#include "store/redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY_MS "86400000"

/* KEYS: the record's, the hash's; ARGV: field, increment ... */
static const char add_text[] =
    "for i=1,#ARGV,2 do redis.call('HINCRBY',KEYS[2],ARGV[i],ARGV[i+1]) end\n"
    "local p=redis.call('PTTL',KEYS[1])\n"
    "if p==-1 then redis.call('PERSIST',KEYS[2])\n"
    "elseif p>0 then redis.call('PEXPIRE',KEYS[2],p)\n"
    "else redis.call('PEXPIRE',KEYS[2]," DAY_MS ") end\n"
    "return 1\n";

egi_script egi_script_add = {add_text, ""};

static void name_of(const egi_redis *redis, eg_bytes key,
                    egi_redis_key *record, egi_redis_key *hash) {
  egi_redis_key_make(redis, key, record);
  memcpy(hash->text, record->text, record->len);
  memcpy(hash->text + record->len, EGI_REDIS_COUNTS, 2);
  hash->len = record->len + 2;
}

/* -------------------------------------------------------------- adding -- */

enum {
  BEFORE = 5, /* EVALSHA, hash, 2, and the keys */
  FIELDS = EGI_TALLY_BUCKETS + 3,
  FIELD_TEXT = 8,
  NUMBER_TEXT = 24
};

/* The arguments of the script. */
typedef struct words {
  int n;
  const char *argv[BEFORE + 2 * FIELDS];
  size_t lens[BEFORE + 2 * FIELDS];
  char fields[FIELDS][FIELD_TEXT], numbers[FIELDS][NUMBER_TEXT];
} words;

static void word(words *w, const char *text, size_t len) {
  w->argv[w->n] = text;
  w->lens[w->n++] = len;
}

static void count(words *w, const char *field, uint64_t number) {
  int at = (w->n - BEFORE) / 2;
  if (number == 0)
    return;
  snprintf(w->fields[at], FIELD_TEXT, "%s", field);
  snprintf(w->numbers[at], NUMBER_TEXT, "%lld",
           (long long)(number < INT64_MAX ? number : INT64_MAX));
  word(w, w->fields[at], strlen(w->fields[at]));
  word(w, w->numbers[at], strlen(w->numbers[at]));
}

eg_status egi_redis_add(egi_store *store, eg_bytes key, const egi_counts *more,
                        int64_t deadline_us, eg_error *error) {
  egi_redis *redis = (egi_redis *)store;
  redisReply *replies[EGI_REPLIES];
  egi_redis_key record, hash;
  char field[FIELD_TEXT];
  words w = {.n = 0};
  name_of(redis, key, &record, &hash);
  word(&w, "EVALSHA", 7);
  word(&w, egi_script_add.sha, 40);
  word(&w, "2", 1);
  word(&w, record.text, record.len);
  word(&w, hash.text, hash.len);
  count(&w, "b", more->blocked);
  count(&w, "c", more->cached);
  count(&w, "t", (uint64_t)more->waits.total_us);
  for (unsigned i = 0; i < more->waits.n; i++) {
    snprintf(field, sizeof field, "w%u", more->waits.buckets[i].number);
    count(&w, field, more->waits.buckets[i].runs);
  }
  egi_call call = {.slot = egi_redis_slot(record.text, record.len),
                   .hasty = true,
                   .writes = true,
                   .text = egi_script_add.text,
                   .argc = w.n,
                   .argv = w.argv,
                   .lens = w.lens};
  int64_t until = egi_real_deadline(&redis->env, deadline_us,
                                    redis->options.timeout_us);
  eg_status status = egi_redis_call(redis->hub, &call, until, replies, error);
  egi_redis_replies_free(replies);
  return status;
}

/* ------------------------------------------------------------- reading -- */

static void read_field(const char *field, uint64_t number,
                       egi_counts *counts) {
  unsigned long bucket;
  switch (field[0]) {
  case 'b':
    counts->blocked = number;
    break;
  case 'c':
    counts->cached = number;
    break;
  case 't':
    counts->waits.total_us += (int64_t)(number & INT64_MAX);
    break;
  case 'w':
    bucket = strtoul(field + 1, NULL, 10);
    if (bucket < EGI_BUCKETS && number > 0) {
      egi_tally one = {.n = 1};
      one.buckets[0].number = (uint16_t)bucket;
      one.buckets[0].runs = number < UINT32_MAX ? (uint32_t)number
                                                : UINT32_MAX;
      egi_tally_merge(&counts->waits, &one);
    }
    break;
  default:
    break;
  }
}

/* Shows one key's, if it has any.  *more: whether to go on. */
static eg_status show(egi_redis *redis, eg_bytes key, egi_counts_fn visit,
                      void *ctx, int64_t until, bool *more, eg_error *error) {
  redisReply *replies[EGI_REPLIES];
  egi_redis_key record, hash;
  egi_counts counts = {.blocked = 0};
  unsigned char bytes[EGI_COUNTS_MAX];
  name_of(redis, key, &record, &hash);
  const char *argv[] = {"HGETALL", hash.text};
  size_t lens[] = {7, hash.len};
  egi_call call = {.slot = egi_redis_slot(record.text, record.len),
                   .argc = 2,
                   .argv = argv,
                   .lens = lens};
  eg_status status = egi_redis_call(redis->hub, &call, until, replies, error);
  if (status != EG_OK)
    return status;
  const redisReply *all = replies[0];
  for (size_t i = 0; i + 1 < all->elements; i += 2)
    read_field(all->element[i]->str,
               strtoull(all->element[i + 1]->str, NULL, 10), &counts);
  egi_redis_replies_free(replies);
  if (!egi_counts_any(&counts))
    return EG_OK;
  size_t len = egi_encode_counts(&counts, bytes, sizeof bytes);
  *more = visit(ctx, key, (eg_bytes){bytes, len});
  return EG_OK;
}

typedef struct showing {
  egi_redis *redis;
  egi_counts_fn visit;
  void *ctx;
} showing;

static eg_status show_found(void *ctx, eg_bytes key, bool *more,
                            eg_error *error) {
  const showing *s = ctx;
  return show(s->redis, key, s->visit, s->ctx,
              egi_real_us() + s->redis->options.timeout_us, more, error);
}

eg_status egi_redis_counts(egi_store *store, eg_bytes prefix, bool exact,
                           int64_t deadline_us, egi_counts_fn visit, void *ctx,
                           eg_error *error) {
  egi_redis *redis = (egi_redis *)store;
  showing s = {redis, visit, ctx};
  bool more = true;
  if (!exact)
    return egi_redis_find(redis, prefix, EGI_REDIS_COUNTS, show_found, &s,
                          error);
  int64_t until = egi_real_deadline(&redis->env, deadline_us,
                                    redis->options.timeout_us);
  return show(redis, prefix, visit, ctx, until, &more, error);
}
