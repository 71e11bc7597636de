/* SPDX-License-Identifier: MIT
** An etcd cluster as this process knows it: shared by the handles that name
** it, with at most so many connections, all to the member that answers.
*/
#include "store/etcd.h"

#include <errno.h>
#include <stdlib.h>

static void free_wires(egi_etcd_hub *hub, egi_etcd_wire *wire) {
  for (egi_etcd_wire *next; wire != NULL; wire = next) {
    next = wire->next;
    egi_etcd_wire_free(hub, wire);
  }
}

static void empty(egi_server *server) {
  egi_etcd_hub *hub = (egi_etcd_hub *)server;
  free_wires(hub, hub->idle);
  if (hub->auth != NULL)
    egi_wipe(hub->auth, strlen(hub->auth));
  free(hub->auth);
  egi_etcd_options_free(&hub->options, &server->env);
}

static bool fill(egi_server *server, const void *options) {
  return egi_etcd_options_copy(&((egi_etcd_hub *)server)->options, options,
                               &server->env);
}

static bool alike(const egi_server *server, const void *options) {
  return egi_etcd_options_alike(&((const egi_etcd_hub *)server)->options,
                                options);
}

static void forked(egi_server *server) {
  egi_etcd_hub *hub = (egi_etcd_hub *)server;
  for (egi_etcd_wire *wire = hub->idle; wire != NULL; wire = wire->next)
    egi_etcd_wire_abandon(wire);
  hub->idle = NULL;
  hub->n_spare = 0;
}

const egi_server_kind egi_etcd_kind = {
    .name = "etcd",
    .size = sizeof(egi_etcd_hub),
    .alike = alike,
    .fill = fill,
    .empty = empty,
    .forked = forked,
    .listen = egi_etcd_listen,
};

/* --------------------------------------------------------- connections -- */

/* With the mutex.  ETIMEDOUT: there are as many as there may be. */
static int await_place(egi_etcd_hub *hub, int64_t until_us,
                       egi_etcd_wire **wire) {
  struct timespec until = egi_timespec(until_us);
  for (int why = 0;;) {
    *wire = hub->idle;
    if (*wire != NULL) {
      hub->idle = (*wire)->next;
      return 0;
    }
    if (hub->base.open < hub->options.connections) {
      hub->base.open++;
      return 0;
    }
    if (why == ETIMEDOUT)
      return why;
    why = pthread_cond_timedwait(&hub->base.cond, &hub->base.mutex, &until);
  }
}

eg_status egi_etcd_borrow(egi_etcd_hub *hub, int64_t until_us,
                          egi_etcd_wire **wire, eg_error *error) {
  pthread_mutex_lock(&hub->base.mutex);
  int why = await_place(hub, until_us, wire);
  pthread_mutex_unlock(&hub->base.mutex);
  if (why != 0)
    return egi_remote_fail(error, EG_UNAVAILABLE, 0,
                           "all %u connections to etcd are in use "
                           "(connections= allows more)",
                           hub->options.connections);
  if (*wire == NULL)
    *wire = egi_etcd_wire_new(hub);
  if (*wire != NULL)
    return EG_OK;
  pthread_mutex_lock(&hub->base.mutex);
  hub->base.open--;
  pthread_mutex_unlock(&hub->base.mutex);
  return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
}

void egi_etcd_return(egi_etcd_hub *hub, egi_etcd_wire *wire) {
  pthread_mutex_lock(&hub->base.mutex);
  wire->next = hub->idle;
  hub->idle = wire;
  pthread_cond_signal(&hub->base.cond);
  pthread_mutex_unlock(&hub->base.mutex);
}

/* ----------------------------------------------------------- endpoints -- */

unsigned egi_etcd_endpoint(egi_etcd_hub *hub) {
  return __atomic_load_n(&hub->endpoint, __ATOMIC_RELAXED);
}

void egi_etcd_move_on(egi_etcd_hub *hub, unsigned endpoint) {
  unsigned next = (endpoint + 1) % (unsigned)hub->options.address.n;
  __atomic_compare_exchange_n(&hub->endpoint, &endpoint, next, false,
                              __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* -------------------------------------------------------------- ghosts -- */

uint64_t egi_etcd_ghost(egi_etcd_hub *hub, uint64_t hash) {
  uint64_t at = hash % EGI_ETCD_GHOSTS;
  pthread_mutex_lock(&hub->base.mutex);
  uint64_t revision = hub->ghosts[at].hash == hash ? hub->ghosts[at].revision
                                                   : 0;
  pthread_mutex_unlock(&hub->base.mutex);
  return revision;
}

void egi_etcd_ghost_note(egi_etcd_hub *hub, uint64_t hash, uint64_t revision) {
  uint64_t at = hash % EGI_ETCD_GHOSTS;
  pthread_mutex_lock(&hub->base.mutex);
  if (revision != 0 || hub->ghosts[at].hash == hash) {
    hub->ghosts[at].hash = hash;
    hub->ghosts[at].revision = revision;
  }
  pthread_mutex_unlock(&hub->base.mutex);
}
