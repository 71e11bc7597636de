/* SPDX-License-Identifier: MIT
** Leases of etcd: granted, kept, and used again.
**
** Every hold has a lease of its own, so that it ends when it is renewed no
** more, whatever else the process holds.  To be granted one costs as much as
** to take the key, so a lease whose hold has ended serves the next one.
*/
#include "store/etcd.h"

int64_t egi_etcd_seconds(int64_t ms) {
  int64_t seconds = ms / 1000 + (ms % 1000 > 0);
  return seconds > EGI_ETCD_LEASE_LEAST ? seconds : EGI_ETCD_LEASE_LEAST;
}

/* ---------------------------------------------------------------- spare -- */

void egi_etcd_lease_give(egi_etcd_hub *hub, const egi_etcd_lease *lease) {
  if (lease->id == 0)
    return;
  pthread_mutex_lock(&hub->base.mutex);
  if (hub->n_spare < EGI_ETCD_SPARE) /* else its time ends it */
    hub->spare[hub->n_spare++] = *lease;
  pthread_mutex_unlock(&hub->base.mutex);
}

/* The one that was last given. */
static bool take_spare(egi_etcd_hub *hub, int64_t seconds,
                       egi_etcd_lease *lease) {
  bool found = false;
  pthread_mutex_lock(&hub->base.mutex);
  for (unsigned i = hub->n_spare; !found && i-- > 0;) {
    found = hub->spare[i].seconds == seconds;
    if (found) {
      *lease = hub->spare[i];
      hub->spare[i] = hub->spare[--hub->n_spare];
    }
  }
  pthread_mutex_unlock(&hub->base.mutex);
  return found;
}

/* -------------------------------------------------------------- keeping -- */

static eg_status no_answer(eg_error *error) {
  return egi_remote_fail(error, EG_INTERNAL, 0,
                         "etcd did not say what became of a lease");
}

/* One request for all: a stream of questions, and as many answers. */
eg_status egi_etcd_lease_keep(egi_etcd_hub *hub, const uint64_t *ids, size_t n,
                              int64_t until_us, int64_t *seconds,
                              eg_error *error) {
  egi_etcd_call call = {.path = "lease/keepalive", .lines = true};
  egi_text_buf body = {0};
  json_t *reply = NULL;
  for (size_t i = 0; i < n; i++) {
    egi_text_put(&body, "{\"ID\":");
    egi_text_number(&body, ids[i]);
    egi_text_put(&body, "}\n");
  }
  eg_status status = egi_etcd_ask(hub, &call, &body, until_us, &reply, error);
  egi_text_free(&body);
  if (status == EG_OK && json_array_size(reply) != n)
    status = no_answer(error);
  for (size_t i = 0; status == EG_OK && i < n; i++) {
    const json_t *one = json_array_get(reply, i);
    if (egi_json_number(one, "ID") != ids[i])
      status = no_answer(error);
    seconds[i] = (int64_t)egi_json_number(one, "TTL");
  }
  json_decref(reply);
  return status;
}

/* id 0: etcd chooses. */
static eg_status grant(egi_etcd_hub *hub, uint64_t id, int64_t seconds,
                       int64_t until_us, egi_etcd_lease *lease,
                       eg_error *error) {
  egi_etcd_call call = {.path = "lease/grant"};
  egi_text_buf body = {0};
  json_t *reply = NULL;
  egi_text_put(&body, "{\"TTL\":");
  egi_text_number(&body, (uint64_t)seconds);
  egi_text_put(&body, ",\"ID\":");
  egi_text_number(&body, id);
  egi_text_put(&body, "}");
  *lease = (egi_etcd_lease){.seconds = seconds, .fresh_us = egi_real_us()};
  eg_status status = egi_etcd_ask(hub, &call, &body, until_us, &reply, error);
  egi_text_free(&body);
  if (status == EG_OK)
    lease->id = egi_json_number(reply, "ID");
  json_decref(reply);
  return status == EG_OK && lease->id == 0 ? no_answer(error) : status;
}

eg_status egi_etcd_lease_make(egi_etcd_hub *hub, uint64_t id, int64_t seconds,
                              int64_t until_us, eg_error *error) {
  egi_etcd_lease lease;
  eg_status status = grant(hub, id, seconds, until_us, &lease, error);
  return status == EGI_ETCD_THERE ? EG_OK : status;
}

eg_status egi_etcd_lease_take(egi_etcd_hub *hub, int64_t seconds,
                              int64_t stale_us, int64_t until_us,
                              egi_etcd_lease *lease, eg_error *error) {
  while (take_spare(hub, seconds, lease)) {
    int64_t now = egi_real_us(), left = 0;
    if (now - lease->fresh_us < stale_us)
      return EG_OK;
    eg_status status = egi_etcd_lease_keep(hub, &lease->id, 1, until_us, &left,
                                           error);
    if (status != EG_OK) {
      egi_etcd_lease_give(hub, lease);
      return status;
    }
    lease->fresh_us = now;
    if (left >= seconds)
      return EG_OK;
  }
  return grant(hub, 0, seconds, until_us, lease, error);
}
