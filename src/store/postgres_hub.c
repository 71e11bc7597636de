/* SPDX-License-Identifier: MIT
** A PostgreSQL database as this process knows it: shared by the handles that
** name it, with at most so many connections.
*/
#include "store/postgres.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static pthread_mutex_t hubs_mutex = PTHREAD_MUTEX_INITIALIZER;
static egi_pg_hub *hubs;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* --------------------------------------------------------------- forks -- */

static void lock_all(void) {
  pthread_mutex_lock(&hubs_mutex);
  for (egi_pg_hub *hub = hubs; hub != NULL; hub = hub->next) {
    pthread_mutex_lock(&hub->mutex);
    pthread_mutex_lock(&hub->listen_mutex);
  }
}

static void unlock_all(void) {
  for (egi_pg_hub *hub = hubs; hub != NULL; hub = hub->next) {
    pthread_mutex_unlock(&hub->listen_mutex);
    pthread_mutex_unlock(&hub->mutex);
  }
  pthread_mutex_unlock(&hubs_mutex);
}

/* libpq would say good-bye in the parent's name: only the descriptors are
** closed, and what it has in memory stays there. */
static void give_up(egi_pg_hub *hub) {
  for (egi_pg_wire *wire = hub->idle; wire != NULL; wire = wire->next)
    close(PQsocket(wire->conn));
  hub->idle = NULL;
  hub->open = 0;
  hub->generation++;
}

static void in_child(void) {
  for (egi_pg_hub *hub = hubs; hub != NULL; hub = hub->next) {
    give_up(hub);
    egi_pg_listener_forked(hub);
    egi_steady_cond(&hub->cond);
  }
  unlock_all();
}

static void init_once(void) { pthread_atfork(lock_all, unlock_all, in_child); }

/* ---------------------------------------------------------------- hubs -- */

static void *plain_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud;
  (void)osize;
  if (nsize == 0) {
    free(ptr);
    return NULL;
  }
  return realloc(ptr, nsize);
}

static bool init_sync(egi_pg_hub *hub) {
  return pthread_mutex_init(&hub->mutex, NULL) == 0 &&
         pthread_mutex_init(&hub->listen_mutex, NULL) == 0 &&
         egi_steady_cond(&hub->cond) == 0 &&
         egi_steady_cond(&hub->listen_cond) == 0;
}

static void free_wires(egi_pg_hub *hub, egi_pg_wire *wire) {
  for (egi_pg_wire *next; wire != NULL; wire = next) {
    next = wire->next;
    egi_pg_wire_free(hub, wire);
  }
}

static void destroy(egi_pg_hub *hub) {
  free_wires(hub, hub->idle);
  if (hub->kick >= 0)
    close(hub->kick);
  egi_pg_options_free(&hub->options, &hub->env);
  pthread_mutex_destroy(&hub->mutex);
  pthread_mutex_destroy(&hub->listen_mutex);
  pthread_cond_destroy(&hub->cond);
  pthread_cond_destroy(&hub->listen_cond);
  plain_alloc(NULL, hub, sizeof *hub, 0);
}

static egi_pg_hub *make(const egi_pg_options *options) {
  egi_pg_hub *hub = plain_alloc(NULL, NULL, 0, sizeof *hub);
  if (hub == NULL)
    return NULL;
  memset(hub, 0, sizeof *hub);
  hub->env.alloc = plain_alloc;
  hub->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (init_sync(hub) && hub->kick >= 0 &&
      egi_pg_options_copy(&hub->options, options, &hub->env))
    return hub;
  destroy(hub);
  return NULL;
}

eg_status egi_pg_hub_find(const egi_pg_options *options, egi_pg_hub **hub_out,
                          eg_error *error) {
  pthread_once(&once, init_once);
  pthread_mutex_lock(&hubs_mutex);
  egi_pg_hub *hub = hubs;
  while (hub != NULL && !egi_pg_options_alike(&hub->options, options))
    hub = hub->next;
  if (hub == NULL) {
    hub = make(options);
    if (hub != NULL) {
      hub->next = hubs;
      hubs = hub;
    }
  }
  if (hub != NULL)
    hub->handles++;
  pthread_mutex_unlock(&hubs_mutex);
  *hub_out = hub;
  return hub != NULL
             ? EG_OK
             : egi_remote_fail(error, EG_NOMEM, errno, "not enough memory");
}

void egi_pg_hub_leave(egi_pg_hub *hub) {
  pthread_mutex_lock(&hubs_mutex);
  bool last = --hub->handles == 0;
  if (last) {
    egi_pg_hub **link = &hubs;
    while (*link != hub)
      link = &(*link)->next;
    *link = hub->next;
  }
  pthread_mutex_unlock(&hubs_mutex);
  if (!last)
    return;
  egi_pg_listener_stop(hub);
  destroy(hub);
}

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
    hub->open--;
  }
  return NULL;
}

/* A place for one more connection, or an idle one. */
static eg_status await_place(egi_pg_hub *hub, int64_t until_us,
                             egi_pg_wire **wire, eg_error *error) {
  egi_pg_wire *dead = NULL;
  struct timespec until = {until_us / 1000000, until_us % 1000000 * 1000};
  bool place = false;
  int why = 0;
  pthread_mutex_lock(&hub->mutex);
  for (;;) {
    *wire = take_idle(hub, &dead);
    place = *wire == NULL && hub->open < hub->options.connections;
    if (place)
      hub->open++;
    if (place || *wire != NULL || why == ETIMEDOUT)
      break;
    why = pthread_cond_timedwait(&hub->cond, &hub->mutex, &until);
  }
  pthread_mutex_unlock(&hub->mutex);
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
  pthread_mutex_lock(&hub->mutex);
  if (good) {
    hub->failures = 0;
    hub->not_before_us = 0;
  } else {
    hub->not_before_us = egi_real_us() + egi_backoff_us(hub->failures++);
    hub->open--;
    pthread_cond_signal(&hub->cond);
  }
  pthread_mutex_unlock(&hub->mutex);
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
  pthread_mutex_lock(&hub->mutex);
  int64_t not_before = hub->not_before_us;
  pthread_mutex_unlock(&hub->mutex);
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
  pthread_mutex_lock(&hub->mutex);
  wire->next = hub->idle;
  hub->idle = wire;
  pthread_cond_signal(&hub->cond);
  pthread_mutex_unlock(&hub->mutex);
}

void egi_pg_discard(egi_pg_hub *hub, egi_pg_wire *wire) {
  egi_pg_wire_free(hub, wire);
  pthread_mutex_lock(&hub->mutex);
  hub->open--;
  pthread_cond_signal(&hub->cond);
  pthread_mutex_unlock(&hub->mutex);
}

void egi_pg_discard_idle(egi_pg_hub *hub) {
  pthread_mutex_lock(&hub->mutex);
  egi_pg_wire *wire = hub->idle;
  hub->idle = NULL;
  for (const egi_pg_wire *w = wire; w != NULL; w = w->next)
    hub->open--;
  pthread_mutex_unlock(&hub->mutex);
  free_wires(hub, wire);
}
