/* SPDX-License-Identifier: MIT
** The etcd store: one transaction for each swap that nobody else was before,
** one round trip.
*/
#include "store/etcd.h"

/* --------------------------------------------------------------- forks -- */

static void etcd_forked(egi_store *store) {
  egi_etcd *etcd = (egi_etcd *)store;
  pthread_mutex_init(&etcd->holds.mutex, NULL);
  egi_holding_clear(&etcd->holds, &etcd->env);
  egi_recall_forked(etcd->recall);
}

/* In a child for the first time?  Then the parent's holds are not its own. */
void egi_etcd_notice_fork(egi_etcd *etcd) {
  if (egi_server_is_new_child(&etcd->hub->base, &etcd->generation))
    etcd_forked(&etcd->base);
}

/* ------------------------------------------------------------- closing -- */

static void release(egi_etcd *etcd) {
  eg_env env = etcd->env;
  egi_holding_clear(&etcd->holds, &env);
  pthread_mutex_destroy(&etcd->holds.mutex);
  if (etcd->hub != NULL)
    egi_server_leave(&etcd->hub->base, etcd->base.space);
  egi_recall_free(etcd->recall);
  env.alloc(env.alloc_ud, etcd, sizeof *etcd, 0);
}

static void etcd_close(egi_store *store) {
  egi_etcd *etcd = (egi_etcd *)store;
  egi_etcd_notice_fork(etcd);
  egi_etcd_drop_all(etcd);
  release(etcd);
}

/* -------------------------------------------------------------- looking -- */

eg_status egi_etcd_load(egi_store *store, eg_bytes key, int64_t deadline_us,
                        egi_seen *seen, eg_error *error) {
  egi_etcd *etcd = (egi_etcd *)store;
  egi_etcd_state state;
  egi_seen met;
  egi_etcd_notice_fork(etcd);
  int64_t until = egi_real_deadline(&etcd->env, deadline_us, etcd->timeout_us);
  eg_status status = egi_etcd_fetch(etcd, key, until, &state, error);
  if (status != EG_OK)
    return status;
  egi_seen_init(&met);
  egi_etcd_see(etcd, &state, key, &met);
  if (egi_seen_keep(seen, &met, &etcd->env))
    egi_recall_keep(etcd->recall, key, &met);
  else
    status = egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  egi_etcd_state_free(&state);
  return status;
}

static bool etcd_recall(egi_store *store, eg_bytes key, egi_seen *seen) {
  egi_etcd *etcd = (egi_etcd *)store;
  egi_etcd_notice_fork(etcd);
  return egi_recall_get(etcd->recall, key, seen);
}

/* What nobody will read any more goes, now and then; processes that begin
** together do not do that together. */
static int64_t etcd_tend(egi_store *store, int64_t now_us, egi_lost_fn lost,
                         void *ctx) {
  egi_etcd *etcd = (egi_etcd *)store;
  int64_t hour = INT64_C(3600000000);
  (void)lost;
  (void)ctx;
  if (etcd->sweep_us == 0)
    etcd->sweep_us = now_us + egi_backoff_us(6) * 7200;
  if (now_us < etcd->sweep_us)
    return etcd->sweep_us;
  etcd->sweep_us = now_us + hour;
  egi_etcd_sweep(etcd);
  return etcd->sweep_us;
}

/* ------------------------------------------------------------- opening -- */

static eg_status etcd_open(const egi_url *url, const eg_env *env,
                           egi_store **store, eg_error *error);

/* What the library asks this object for. */
EG_API extern const egi_store_ops egi_etcd_ops;
const egi_store_ops egi_etcd_ops = {
    .abi = EGI_STORE_ABI,
    .blocks = true,
    .scheme = "etcd",
    .open = etcd_open,
    .close = etcd_close,
    .load = egi_etcd_load,
    .swap = egi_etcd_swap,
    .renew = egi_etcd_renew,
    .watch = egi_etcd_watch,
    .wait = egi_etcd_wait,
    .unwatch = egi_etcd_unwatch,
    .scan = egi_etcd_scan,
    .add = egi_etcd_add,
    .counts = egi_etcd_counts,
    .history = egi_etcd_history,
    .recall = etcd_recall,
    .tend = etcd_tend,
    .forked = etcd_forked,
};

static void make_prefix(egi_etcd *etcd, const char *name) {
  char *to = etcd->prefix;
  memcpy(to, "eg/", 3);
  to += 3;
  for (const char *from = name; *from != '\0'; from++) {
    const char *escape = *from == '/' ? "%2F" : *from == '%' ? "%25" : NULL;
    size_t n = escape != NULL ? 3 : 1;
    memcpy(to, escape != NULL ? escape : from, n);
    to += n;
  }
  *to++ = '/';
  etcd->prefix_len = (size_t)(to - etcd->prefix);
}

static egi_etcd *make(const egi_url *url, const eg_env *env,
                      const egi_etcd_options *options) {
  egi_etcd *etcd = env->alloc(env->alloc_ud, NULL, 0, sizeof *etcd);
  egi_recall *recall = etcd != NULL ? egi_recall_new(env) : NULL;
  if (recall == NULL) {
    if (etcd != NULL)
      env->alloc(env->alloc_ud, etcd, sizeof *etcd, 0);
    return NULL;
  }
  memset(etcd, 0, sizeof *etcd);
  etcd->base.ops = &egi_etcd_ops;
  etcd->base.lease_ms = options->lease_ms;
  etcd->env = *env;
  etcd->timeout_us = options->timeout_us;
  etcd->recall = recall;
  etcd->epoch_us = env->clock->offset_us(env->clock->ctx,
                                         env->clock->now_us(env->clock->ctx));
  egi_holding_init(&etcd->holds);
  make_prefix(etcd, url->name != NULL ? url->name : "default");
  return etcd;
}

/* Is it there, does it speak /v3, and does it let us in? */
static eg_status inspect(egi_etcd *etcd, eg_error *error) {
  egi_etcd_state state;
  eg_status status = egi_etcd_fetch(etcd, (eg_bytes){"", 0},
                                    egi_real_us() + etcd->timeout_us, &state,
                                    error);
  egi_etcd_state_free(&state);
  return status;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_curl(void) { curl_global_init(CURL_GLOBAL_DEFAULT); }

static eg_status etcd_open(const egi_url *url, const eg_env *env,
                           egi_store **store, eg_error *error) {
  egi_etcd_options options;
  egi_server *server = NULL;
  pthread_once(&once, init_curl);
  eg_status status = egi_etcd_options_read(url, env, &options, error);
  if (status != EG_OK)
    return status;
  egi_etcd *etcd = make(url, env, &options);
  status = etcd != NULL
               ? egi_server_find(&egi_etcd_kind, &options, &server, error)
               : egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  egi_etcd_options_free(&options, env);
  if (server != NULL) {
    etcd->hub = (egi_etcd_hub *)server;
    etcd->generation = egi_server_generation(server);
    etcd->base.space = egi_server_space(server, etcd->prefix);
    status = inspect(etcd, error);
  }
  if (status != EG_OK) {
    if (etcd != NULL)
      release(etcd);
    return status;
  }
  *store = &etcd->base;
  return EG_OK;
}
