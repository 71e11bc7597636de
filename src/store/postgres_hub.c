/* SPDX-License-Identifier: MIT
** A PostgreSQL database as this process knows it: shared by the handles that
** name it, with at most so many connections.
*/
#include "store/postgres.h"

#include <errno.h>
#include <unistd.h>

/* libpq would say good-bye in the parent's name: only the descriptors are
** closed, and what it has in memory stays there. */
static void give_up(egi_server *server) {
  egi_pg_hub *hub = (egi_pg_hub *)server;
  for (egi_pg_wire *wire = hub->idle; wire != NULL; wire = wire->next)
    close(PQsocket(wire->conn));
  hub->idle = NULL;
}

/* ---------------------------------------------------------------- hubs -- */

static void free_wires(egi_pg_hub *hub, egi_pg_wire *wire) {
  for (egi_pg_wire *next; wire != NULL; wire = next) {
    next = wire->next;
    egi_pg_wire_free(hub, wire);
  }
}

static void empty(egi_server *server) {
  egi_pg_hub *hub = (egi_pg_hub *)server;
  free_wires(hub, hub->idle);
  egi_pg_options_free(&hub->options, &server->env);
}

static bool fill(egi_server *server, const void *options) {
  return egi_pg_options_copy(&((egi_pg_hub *)server)->options, options,
                             &server->env);
}

static bool alike(const egi_server *server, const void *options) {
  return egi_pg_options_alike(&((const egi_pg_hub *)server)->options, options);
}

const egi_server_kind egi_pg_kind = {
    .name = "postgres",
    .size = sizeof(egi_pg_hub),
    .alike = alike,
    .fill = fill,
    .empty = empty,
    .forked = give_up,
    .listen = egi_pg_listen,
};

/* --------------------------------------------------------- connections -- */

/* An idle one that still lives.  With the mutex. */
static egi_pg_wire *take_idle(egi_pg_hub *hub, egi_pg_wire **dead) {
  while (hub->idle != NULL) {
    egi_pg_wire *wire = hub->idle;
    hub->idle = wire->next;
    if (!egi_pg_wire_is_dead(wire))
      return wire;
    wire->next = *dead;
    *dead = wire;
    hub->base.open--;
  }
  return NULL;
}

/* A place for one more connection, or an idle one. */
static eg_status await_place(egi_pg_hub *hub, int64_t until_us,
                             egi_pg_wire **wire, eg_error *error) {
  egi_pg_wire *dead = NULL;
  struct timespec until = egi_timespec(until_us);
  bool place = false;
  int why = 0;
  pthread_mutex_lock(&hub->base.mutex);
  for (;;) {
    *wire = take_idle(hub, &dead);
    place = *wire == NULL && hub->base.open < hub->options.connections;
    if (place)
      hub->base.open++;
    if (place || *wire != NULL || why == ETIMEDOUT)
      break;
    why = pthread_cond_timedwait(&hub->base.cond, &hub->base.mutex, &until);
  }
  pthread_mutex_unlock(&hub->base.mutex);
  free_wires(hub, dead);
  if (place || *wire != NULL)
    return EG_OK;
  return egi_remote_fail(error, EG_UNAVAILABLE, 0,
                         "all %u connections to postgres are in use "
                         "(connections= allows more)",
                         hub->options.connections);
}

/* Notes how a try to connect ended. */
static void note_try(egi_pg_hub *hub, bool good) {
  pthread_mutex_lock(&hub->base.mutex);
  if (good) {
    hub->failures = 0;
    hub->not_before_us = 0;
  } else {
    hub->not_before_us = egi_real_us() + egi_backoff_us(hub->failures++);
    hub->base.open--;
    pthread_cond_signal(&hub->base.cond);
  }
  pthread_mutex_unlock(&hub->base.mutex);
}

eg_status egi_pg_borrow(egi_pg_hub *hub, int64_t until_us, egi_pg_wire **wire,
                        eg_error *error) {
  eg_status status = await_place(hub, until_us, wire, error);
  if (status != EG_OK)
    return status;
  if (*wire != NULL) {
    (*wire)->sent = false;
    return EG_OK;
  }
  pthread_mutex_lock(&hub->base.mutex);
  int64_t not_before = hub->not_before_us;
  pthread_mutex_unlock(&hub->base.mutex);
  int64_t now = egi_real_us();
  if (not_before > now)
    egi_remote_sleep_us((not_before < until_us ? not_before : until_us) - now);
  status = egi_pg_connect(hub, hub->options.url, until_us, wire, error);
  note_try(hub, status == EG_OK);
  return status;
}

void egi_pg_return(egi_pg_hub *hub, egi_pg_wire *wire) {
  if (PQstatus(wire->conn) != CONNECTION_OK ||
      PQtransactionStatus(wire->conn) != PQTRANS_IDLE) {
    egi_pg_discard(hub, wire);
    return;
  }
  pthread_mutex_lock(&hub->base.mutex);
  wire->next = hub->idle;
  hub->idle = wire;
  pthread_cond_signal(&hub->base.cond);
  pthread_mutex_unlock(&hub->base.mutex);
}

void egi_pg_discard(egi_pg_hub *hub, egi_pg_wire *wire) {
  egi_pg_wire_free(hub, wire);
  pthread_mutex_lock(&hub->base.mutex);
  hub->base.open--;
  pthread_cond_signal(&hub->base.cond);
  pthread_mutex_unlock(&hub->base.mutex);
}

void egi_pg_discard_idle(egi_pg_hub *hub) {
  pthread_mutex_lock(&hub->base.mutex);
  egi_pg_wire *wire = hub->idle;
  hub->idle = NULL;
  for (const egi_pg_wire *w = wire; w != NULL; w = w->next)
    hub->base.open--;
  pthread_mutex_unlock(&hub->base.mutex);
  free_wires(hub, wire);
}
