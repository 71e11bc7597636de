/* SPDX-License-Identifier: MIT
** The file store, for the processes of one machine: its operations; file.h has
** the rules.
*/
#include "store/file.h"

#include <limits.h>
#include <string.h>

/* ------------------------------------------------------ open and close -- */

static eg_status no_memory(eg_error *error) {
  return egi_file_fail(error, EG_NOMEM, 0,
                       "the file store got no more memory");
}

/* The folder of a namespace's lock files. */
static eg_status make_folder(const egi_file *file, eg_error *error) {
  char part[EGI_PART_ROOM];
  int fd;
  if (file->name_len == 0)
    return EG_OK;
  egi_file_part((eg_bytes){file->name, file->name_len}, "@", part);
  eg_status status = egi_file_subfolder(file->dir->locks_fd, part,
                                        &file->options, &fd, error);
  if (status == EG_OK)
    egi_file_close_fd(fd);
  return status;
}

/* Opens the folder for a handle. */
static eg_status enter(egi_file *file, eg_error *error) {
  egi_dir *dir;
  eg_status status = egi_dir_get(file->path, &file->options, file->env.clock,
                                 &dir, error);
  if (status != EG_OK)
    return status;
  egi_space *space = egi_space_get(dir, file->name, file->name_len);
  if (space == NULL) {
    egi_dir_put(dir);
    return no_memory(error);
  }
  file->dir = dir;
  file->base.space = space;
  return EG_OK;
}

static void leave(egi_file *file) {
  egi_space_put(file->dir, file->base.space);
  egi_dir_put(file->dir);
}

static eg_status file_open(const egi_url *url, const eg_env *env,
                           egi_store **store, eg_error *error) {
  char path[PATH_MAX];
  egi_file_options options;
  eg_status status = egi_file_url(url, &options, path, sizeof path, error);
  if (status != EG_OK)
    return status;
  size_t name_len = url->name != NULL ? strlen(url->name) : 0;
  size_t path_len = strlen(path);
  size_t size = sizeof(egi_file) + name_len + 1 + path_len + 1;
  egi_file *file = env->alloc(env->alloc_ud, NULL, 0, size);
  if (file == NULL)
    return no_memory(error);
  memset(file, 0, sizeof *file);
  char *text = (char *)(file + 1);
  file->base.ops = &egi_file_ops;
  file->env = *env;
  file->options = options;
  file->size = size;
  file->name = text;
  file->name_len = name_len;
  memcpy(text, name_len > 0 ? url->name : "", name_len + 1);
  file->path = memcpy(text + name_len + 1, path, path_len + 1);
  file->ended_end = &file->ended;
  status = enter(file, error);
  if (status == EG_OK) {
    status = make_folder(file, error);
    if (status != EG_OK)
      leave(file);
  }
  if (status != EG_OK) {
    env->alloc(env->alloc_ud, file, size, 0);
    return status;
  }
  pthread_mutex_init(&file->mutex, NULL);
  *store = &file->base;
  return EG_OK;
}

eg_status egi_file_attach(egi_file *file, eg_error *error) {
  egi_dir *old = file->dir;
  const egi_space *space = file->base.space;
  if (!old->stale)
    return EG_OK;
  eg_status status = enter(file, error);
  if (status != EG_OK)
    return status;
  egi_space_put(old, space);
  egi_dir_put(old);
  atomic_store(&file->holds, 0);
  pthread_mutex_init(&file->mutex, NULL);
  file->ended = NULL; /* the parent writes them */
  file->ended_end = &file->ended;
  file->ended_count = 0;
  return EG_OK;
}

/* Ends one hold of a handle; the entry stays. */
static void drop(egi_file *file, const egi_entry *entry) {
  egi_at at;
  uint64_t version, token;
  unsigned char key[EG_KEY_MAX];
  egi_swap swap = {.hold = EGI_DROP,
                   .wake = true,
                   .not_before_ms = EGI_LEAVE_TIME,
                   .fresh_ms = EGI_LEAVE_TIME,
                   .life_ms = EGI_LEAVE_TIME,
                   .token = entry->token};
  memcpy(key, entry->key, entry->key_len);
  egi_at_begin(file, (eg_bytes){key, entry->key_len}, &at);
  if (egi_at_look(&at, 0, NULL) != EG_OK ||
      egi_at_swap(&at, &swap, &version, &token, NULL) != EG_OK) {
    egi_entry *mine = egi_lock_entry(&at); /* revoked, or the disk is full */
    if (mine != NULL && mine->held)
      egi_lock_drop(&at, mine);
  }
  egi_lock_let_go(&at);
  egi_at_end(&at);
}

static void drop_all(egi_file *file) {
  egi_dir *dir = file->dir;
  for (unsigned i = 0; i < EGI_SHARDS && atomic_load(&file->holds) > 0; i++) {
    if (egi_shard_lock(file, i, NULL) != EG_OK)
      continue;
    egi_entry *entry = dir->entries[i];
    while (entry != NULL) {
      if (entry->held && entry->file == file) {
        drop(file, entry);
        entry = dir->entries[i]; /* the list may have changed */
      } else {
        entry = entry->next;
      }
    }
    egi_shard_unlock(file, i);
  }
}

static void file_close(egi_store *store) {
  egi_file *file = (egi_file *)store;
  if (!file->dir->stale) {
    egi_file_flush(file, NULL);
    drop_all(file);
  }
  egi_file_discard_ended(file);
  leave(file);
  pthread_mutex_destroy(&file->mutex);
  eg_env env = file->env;
  env.alloc(env.alloc_ud, file, file->size, 0);
}

/* What a fork does is done by pthread_atfork (file_dir.c). */
static void file_forked(egi_store *store) { (void)store; }

/* --------------------------------------------------------- load, swap -- */

/* Was the file of our lock removed, so that it excludes nobody? */
static bool is_replaced(const egi_at *at) {
  const egi_entry *entry = egi_lock_entry(at);
  return entry != NULL && entry->held && egi_lock_replaced(at, entry->fd);
}

static eg_status file_load(egi_store *store, eg_bytes key, int64_t deadline_us,
                           egi_seen *seen, eg_error *error) {
  egi_file *file = (egi_file *)store;
  unsigned char line[EGI_HOLDER_MAX];
  egi_seen lent;
  egi_at at;
  (void)deadline_us;
  eg_status status = egi_file_attach(file, error);
  if (status != EG_OK)
    return status;
  egi_at_begin(file, key, &at);
  status = egi_shard_lock(file, at.shard, error);
  if (status != EG_OK)
    return status;
  status = egi_at_look(&at, EGI_WANT_BYTES | EGI_WANT_PROBE, error);
  if (status == EG_OK) {
    if (at.held && at.ours && is_replaced(&at))
      at.held = false; /* tend will lose it */
    if (at.held && !at.ours)
      at.holder = egi_lock_holder(&at, line);
    egi_seen_init(&lent);
    egi_at_see(&at, &lent);
    if (!egi_seen_keep(seen, &lent, &file->env))
      status = no_memory(error);
  }
  egi_shard_unlock(file, at.shard);
  egi_at_end(&at);
  return status;
}

/* Shows what is in the way. */
static eg_status conflict(egi_at *at, egi_seen *seen, eg_error *error) {
  egi_seen lent;
  bool busy = at->unknown;
  eg_status status = egi_at_look(at, EGI_WANT_BYTES, error);
  if (status != EG_OK)
    return status;
  if (busy && !at->held)
    at->held = at->unknown = true;
  egi_seen_init(&lent);
  egi_at_see(at, &lent);
  return egi_seen_keep(seen, &lent, &at->file->env) ? EG_CONFLICT
                                                    : no_memory(error);
}

/* What is known after a swap that landed. */
static void landed(const egi_at *at, const egi_swap *swap, uint64_t version,
                   uint64_t token, egi_seen *seen) {
  seen->at = (egi_sight){.token = token,
                         .held = swap->hold == EGI_TAKE ||
                                 (swap->hold == EGI_KEEP && at->held),
                         .clocked = true,
                         .now_us = at->now,
                         .left_us = -1,
                         .fresh_left_us = -1};
  seen->version = version;
  seen->bytes = seen->holder = (eg_bytes){NULL, 0};
  seen->life_left_us = -1;
  memset(seen->mark, 0, sizeof seen->mark);
}

static eg_status file_swap(egi_store *store, eg_bytes key,
                           const egi_swap *swap, int64_t deadline_us,
                           egi_seen *seen, eg_error *error) {
  egi_file *file = (egi_file *)store;
  uint64_t version, token;
  egi_at at;
  (void)deadline_us;
  eg_status status = egi_file_attach(file, error);
  if (status != EG_OK)
    return status;
  egi_at_begin(file, key, &at);
  status = egi_shard_lock(file, at.shard, error);
  if (status != EG_OK)
    return status;
  status = egi_at_look(&at, 0, error);
  if (status == EG_OK && at.version != swap->expect)
    status = EG_CONFLICT;
  else if (status == EG_OK)
    status = egi_at_swap(&at, swap, &version, &token, error);
  if (status == EG_OK)
    landed(&at, swap, version, token, seen);
  else if (status == EG_CONFLICT)
    status = conflict(&at, seen, error);
  egi_shard_unlock(file, at.shard);
  egi_lock_let_go(&at);
  egi_at_end(&at);
  return status;
}

/* --------------------------------------------------------------- apply -- */

static eg_status apply_locked(egi_at *at, egi_decide_fn decide, void *ctx,
                              uint64_t *token, eg_error *error) {
  int want = EGI_WANT_BYTES;
  bool busy = false;
  for (;;) {
    egi_seen seen;
    egi_swap swap = {0};
    uint64_t version;
    eg_status status = egi_at_look(at, want, error);
    if (status != EG_OK)
      return status;
    if (busy && !at->held)
      at->held = at->unknown = true;
    egi_seen_init(&seen);
    egi_at_see(at, &seen);
    *token = at->token;
    switch (decide(ctx, &seen, &swap)) {
    case EGI_NONE:
      egi_lock_tell(at);
      return EG_OK;
    case EGI_GROW:
      return EG_CHANGED;
    case EGI_NOW:
      return egi_file_fail(error, EG_INTERNAL, 0,
                           "decide wants a time it has");
    case EGI_SWAP:
      break;
    }
    status = egi_at_swap(at, &swap, &version, token, error);
    if (status != EG_CONFLICT)
      return status;
    busy = at->unknown; /* or the row was not as the slot had it */
  }
}

static eg_status file_apply(egi_store *store, eg_bytes key,
                            egi_decide_fn decide, void *ctx, bool writes,
                            int64_t now_us, uint64_t *token, eg_error *error) {
  egi_file *file = (egi_file *)store;
  egi_at at;
  (void)writes;
  eg_status status = egi_file_attach(file, error);
  if (status != EG_OK)
    return status;
  egi_at_begin(file, key, &at);
  if (now_us != EGI_NO_TIME)
    at.now = now_us;
  status = egi_shard_lock(file, at.shard, error);
  if (status != EG_OK)
    return status;
  status = apply_locked(&at, decide, ctx, token, error);
  egi_shard_unlock(file, at.shard);
  egi_lock_let_go(&at);
  egi_at_end(&at);
  egi_file_flush_many(file);
  return status;
}

/* -------------------------------------------------------------- leases -- */

static eg_status renew_one(egi_file *file, const egi_hold_ref *hold,
                           int64_t lease_ms, eg_error *error) {
  egi_at at;
  egi_at_begin(file, hold->key, &at);
  eg_status status = egi_shard_lock(file, at.shard, error);
  if (status != EG_OK)
    return status;
  status = egi_at_look(&at, 0, error);
  if (status == EG_OK && (!at.held || at.unknown || at.token != hold->token)) {
    status = EG_LOST;
  } else if (status == EG_OK && at.lease != EGI_UNSET) {
    int64_t now = egi_at_now(&at);
    int64_t later = lease_ms < (EGI_UNSET - 1 - now) / 1000
                        ? now + lease_ms * 1000
                        : EGI_UNSET - 1;
    if (later > at.slot->lease)
      at.slot->lease = later;
  }
  egi_shard_unlock(file, at.shard);
  egi_at_end(&at);
  return status;
}

static eg_status file_renew(egi_store *store, const egi_hold_ref *holds,
                            size_t n, int64_t lease_ms, eg_status *each,
                            eg_error *error) {
  egi_file *file = (egi_file *)store;
  eg_status status = egi_file_attach(file, error);
  for (size_t i = 0; status == EG_OK && i < n; i++) {
    each[i] = renew_one(file, &holds[i], lease_ms, error);
    if (EG_IS_FAILURE(each[i]))
      status = each[i];
  }
  return status;
}

/* --------------------------------------------------------------- table -- */

const egi_store_ops egi_file_ops = {
    .abi = EGI_STORE_ABI,
    .blocks = true, /* by a disk */
    .scheme = "file",
    .open = file_open,
    .close = file_close,
    .load = file_load,
    .swap = file_swap,
    .renew = file_renew,
    .unchanged = egi_file_unchanged,
    .watch = egi_file_watch,
    .wait = egi_file_wait,
    .unwatch = egi_file_unwatch,
    .scan = egi_file_scan,
    .apply = file_apply,
    .peek = egi_file_peek,
    .history = egi_file_history,
    .add = egi_file_add,
    .counts = egi_file_counts,
    .tend = egi_file_tend,
    .share = egi_file_share,
    .report = egi_file_report,
    .rebuild = egi_file_rebuild,
    .forked = file_forked,
};
