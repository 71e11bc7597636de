/* SPDX-License-Identifier: MIT
** The world of one conformance test, but for its clock and allocator.
*/
#include "etcd_world.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool parse(const char *text, egi_url *url) {
  size_t n = strcspn(text, ":?");
  memset(url, 0, sizeof *url);
  if (n == 0 || n >= sizeof url->scheme)
    return false;
  memcpy(url->scheme, text, n);
  url->rest = text + n + (text[n] == ':' ? 1 : 0);
  const char *query = strchr(url->rest, '?');
  url->query = query != NULL ? query + 1 : NULL;
  return true;
}

static void no_log(void *ud, eg_log_level level, const char *message,
                   eg_bytes key) {
  (void)ud;
  (void)level;
  (void)message;
  (void)key;
}

/* A file store's world is a folder of its own below that of the URL. */
static bool own_folder(world *w) {
  size_t n = strcspn(w->url.rest, "?");
  const char *query = w->url.rest + n;
  if (strcmp(w->url.scheme, "file") != 0)
    return true;
  snprintf(w->folder, sizeof w->folder, "%.*s/world-XXXXXX", (int)n,
           w->url.rest);
  if (mkdtemp(w->folder) == NULL)
    return false;
  snprintf(w->rest, sizeof w->rest, "%s%s", w->folder, query);
  w->url.rest = w->rest;
  return true;
}

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *ftw) {
  (void)st;
  (void)type;
  (void)ftw;
  return remove(path);
}

bool world_open(world *w, const egi_store_ops *ops, bool named) {
  static unsigned number;
  const char *text = getenv("EXECUTIONGUARD_STORE");
  memset(w, 0, sizeof *w);
  w->env.alloc = world_allocator;
  w->env.log = no_log;
  w->env.clock = &world_clock;
  w->patience_ms = 10000;
  for (int i = 0; i < WORLD_SEEN; i++)
    egi_seen_init(&w->seen[i]);
  if (!parse(text != NULL && *text != '\0' ? text : "memory", &w->url))
    return false;
  if (!own_folder(w))
    return false;
  /* Of a store that outlives us, every world is a namespace of its own. */
  if (named || strcmp(w->url.scheme, "memory") != 0) {
    snprintf(w->name, sizeof w->name, "spec-%d-%p-%u", (int)getpid(),
             (void *)w, ++number);
    w->url.name = w->name;
  }
  bool etcd = strcmp(w->url.scheme, "etcd") == 0;
  w->ops = ops != NULL ? ops
           : etcd      ? etcd_world_begin(&w->url)
                       : egi_find_store(w->url.scheme);
  if (w->ops == NULL)
    return false;
  return w->ops->open(&w->url, &w->env, &w->store, &w->error) == EG_OK;
}

egi_store *world_another(world *w) {
  egi_store *store = NULL;
  if (w->ops->open(&w->url, &w->env, &store, &w->error) != EG_OK)
    return NULL;
  return store;
}

void world_close(world *w) {
  alloc_fail(FAIL_NEVER);
  for (int i = 0; i < WORLD_SEEN; i++)
    egi_seen_free(&w->seen[i], &w->env);
  if (w->store != NULL)
    w->ops->close(w->store);
  w->store = NULL;
  etcd_world_end();
  if (w->folder[0] != '\0')
    nftw(w->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

unsigned world_keys(const world *w, unsigned count) {
  return strcmp(w->url.scheme, "etcd") == 0 ? count / 8 : count;
}

int world_scaled(int count) {
  const char *text = getenv("EXECUTIONGUARD_SPEC_SCALE");
  int scale = text != NULL ? atoi(text) : 1;
  count /= scale > 0 ? scale : 1;
  return count > 0 ? count : 1;
}

/* ------------------------------------------------------ keys and swaps -- */

egi_swap swap_nothing(void) {
  egi_swap swap;
  memset(&swap, 0, sizeof swap);
  swap.write = EGI_LEAVE;
  swap.hold = EGI_KEEP;
  swap.not_before_ms = EGI_LEAVE_TIME;
  swap.fresh_ms = EGI_LEAVE_TIME;
  swap.life_ms = EGI_LEAVE_TIME;
  return swap;
}

egi_swap swap_put(const char *bytes) {
  egi_swap swap = swap_nothing();
  swap.write = EGI_PUT;
  swap.bytes = (eg_bytes){bytes, strlen(bytes)};
  return swap;
}

egi_swap swap_take(int64_t lease_ms) {
  egi_swap swap = swap_nothing();
  swap.hold = EGI_TAKE;
  swap.lease_ms = lease_ms;
  swap.holder = (eg_bytes){"the holder line", 15};
  return swap;
}

egi_swap swap_drop(uint64_t token) {
  egi_swap swap = swap_nothing();
  swap.hold = EGI_DROP;
  swap.token = token;
  swap.wake = true;
  return swap;
}

egi_swap swap_break(void) {
  egi_swap swap = swap_nothing();
  swap.hold = EGI_BREAK;
  swap.wake = true;
  return swap;
}

egi_swap swap_forget(void) {
  egi_swap swap = swap_nothing();
  swap.write = EGI_FORGET;
  return swap;
}

static eg_bytes key_of(const char *key) {
  return (eg_bytes){key, strlen(key)};
}

eg_status world_load(world *w, const char *key, egi_seen *seen) {
  return w->ops->load(w->store, key_of(key), EG_FOREVER, seen, &w->error);
}

eg_status world_swap(world *w, const char *key, const egi_swap *swap,
                     egi_seen *seen) {
  return w->ops->swap(w->store, key_of(key), swap, EG_FOREVER, seen,
                      &w->error);
}

eg_status world_change(world *w, const char *key, egi_swap swap,
                       egi_seen *seen) {
  eg_status status = world_load(w, key, seen);
  if (status != EG_OK)
    return status;
  swap.expect = seen->version;
  return world_swap(w, key, &swap, seen);
}

/* ------------------------------------------------------------ comparing -- */

bool bytes_are(eg_bytes bytes, const char *text) {
  size_t len = strlen(text);
  return bytes.len == len && (len == 0 || memcmp(bytes.data, text, len) == 0);
}

static bool same_bytes(eg_bytes a, eg_bytes b) {
  return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static bool sight_alike(const egi_sight *a, const egi_sight *b) {
  return a->token == b->token && a->held == b->held && a->timed == b->timed &&
         a->stamp_us == b->stamp_us && a->left_us == b->left_us &&
         a->not_before_left_us == b->not_before_left_us &&
         a->fresh_left_us == b->fresh_left_us;
}

bool seen_alike(const egi_seen *a, const egi_seen *b) {
  return sight_alike(&a->at, &b->at) && a->version == b->version &&
         a->life_left_us == b->life_left_us &&
         same_bytes(a->bytes, b->bytes) && same_bytes(a->holder, b->holder);
}

bool world_unchanged(world *w, const char *key, const egi_seen *before,
                     egi_seen *again) {
  return world_load(w, key, again) == EG_OK && seen_alike(before, again);
}
