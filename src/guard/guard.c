/* SPDX-License-Identifier: MIT
** Opening and closing a guard.
*/
#include "guard/guard.h"

#include <stdio.h>
#include <string.h>

static const char default_store[] = "memory";

/* Tells URLs apart without keeping them: there may be passwords in them. */
static uint64_t sum_of(const char *text) {
  uint64_t sum = UINT64_C(14695981039346656037); /* FNV-1a */
  for (; *text != '\0'; text++)
    sum = (sum ^ (unsigned char)*text) * UINT64_C(1099511628211);
  return sum;
}

static eg_status open_store(eg_guard *guard, const eg_options *options,
                            eg_error *error) {
  egi_url url;
  const char *text = options->store != NULL ? options->store : default_store;
  eg_status status = egi_check_name(options->name, error);
  if (status == EG_OK)
    status = egi_url_parse(text, &url, error);
  if (status != EG_OK)
    return status;
  url.name = options->name;
  guard->url_sum = sum_of(text);
  if (options->name != NULL)
    snprintf(guard->name, sizeof guard->name, "%s", options->name);
  status = egi_load_store(url.scheme, &guard->ops, error);
  if (status != EG_OK)
    return status;
  /* `apply=no` is ours: it sends a store in memory the long way, as others go.
  ** The tests use it. */
  bool long_way = egi_url_has(&url, "apply", "no");
  if (long_way && strcmp(url.query, "apply=no") == 0)
    url.query = NULL; /* the rest is the store's, to take or to refuse */
  guard->by_apply = guard->ops->apply != NULL && !long_way;
  bool gated = !guard->ops->blocks;
  if (gated)
    egi_gate_enter();
  status = guard->ops->open(&url, &guard->env, &guard->store, error);
  if (gated)
    egi_gate_leave();
  return status;
}

eg_status eg_open(const eg_options *options, eg_guard **guard_out,
                  eg_error *error) {
  static const eg_options none;
  if (options == NULL)
    options = &none;
  eg_env env = options->env;
  egi_env_complete(&env);
  *guard_out = NULL;
  eg_guard *guard = egi_alloc(&env, sizeof *guard);
  if (guard == NULL)
    return egi_fail(error, EG_NOMEM, "not enough memory for a guard");
  memset(guard, 0, sizeof *guard);
  guard->env = env;
  guard->state = options->state;
  guard->named = options->name != NULL;
  eg_status status = egi_history_open(&env, options->history, &guard->history,
                                      error);
  egi_fork_init();
  if (status == EG_OK)
    status = open_store(guard, options, error);
  if (status != EG_OK) {
    egi_history_close(guard->history, &env);
    egi_free(&env, guard, sizeof *guard);
    return status;
  }
  egi_counting_open(guard);
  egi_owner_enlist(guard, options->owner);
  egi_leave_init(guard);
  *guard_out = guard;
  return EG_OK;
}

/* A fork asks the store of each guard that is listed. */
static void close_store(eg_guard *guard) {
  bool gated = !guard->ops->blocks;
  if (gated)
    egi_gate_enter();
  egi_owner_delist(guard);
  guard->ops->close(guard->store);
  if (gated)
    egi_gate_leave();
}

void eg_close(eg_guard *guard) {
  if (guard == NULL)
    return;
  eg_env env = guard->env;
  const void *space = guard->store->space;
  egi_owner_leave_alone(guard);
  egi_line_close(guard); /* first: nothing is granted to it any more */
  egi_attend_close(guard);
  egi_counting_close(guard);
  close_store(guard);
  egi_line_closed(space);
  egi_history_close(guard->history, &env);
  egi_free(&env, guard, sizeof *guard);
}

bool eg_is_shared(const eg_guard *guard) {
  return !guard->store->inside || guard->named;
}

size_t eg_next_forgotten(eg_guard *guard, void *key) {
  return guard->ops->next_forgotten != NULL
             ? guard->ops->next_forgotten(guard->store, key)
             : 0;
}
