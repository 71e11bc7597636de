/* SPDX-License-Identifier: MIT
** A Redis server, or cluster, as this process knows it: shared by the handles
** that name it, with at most so many connections.
*/
#include "store/redis.h"

#include <errno.h>
#include <string.h>

/* Descriptors are closed, which says nothing to the other side while the
** parent has them open too.  Connections that another thread was using are
** lost with that thread: their descriptors stay, unused, until exec or exit;
** they are marked to be closed by that. */
static void give_up(egi_server *server) {
  egi_hub *hub = (egi_hub *)server;
  for (unsigned i = 0; i < hub->n; i++) {
    egi_wire *wire = hub->nodes[i]->idle;
    hub->nodes[i]->idle = NULL;
    while (wire != NULL) {
      egi_wire *next = wire->next;
      redisFree(wire->context);
      hub->base.env.alloc(hub->base.env.alloc_ud, wire, sizeof *wire, 0);
      wire = next;
    }
  }
}

/* ---------------------------------------------------------------- hubs -- */

static void empty(egi_server *server) {
  egi_hub *hub = (egi_hub *)server;
  const eg_env env = server->env;
  for (unsigned i = 0; i < hub->n; i++) {
    egi_node *node = hub->nodes[i];
    for (egi_wire *wire = node->idle, *next; wire != NULL; wire = next) {
      next = wire->next;
      redisFree(wire->context);
      env.alloc(env.alloc_ud, wire, sizeof *wire, 0);
    }
    env.alloc(env.alloc_ud, node, sizeof *node, 0);
  }
  if (hub->slots != NULL)
    env.alloc(env.alloc_ud, hub->slots, EGI_REDIS_SLOTS, 0);
  egi_redis_options_free(&hub->options, &env);
}

/* A secret of its own: what a handle was told goes with the handle. */
static bool copy_options(egi_hub *hub, const egi_redis_options *from) {
  egi_redis_options *to = &hub->options;
  *to = *from;
  to->password = NULL;
  if (!egi_address_copy(&to->address, &from->address, &hub->base.env))
    return false;
  if (from->password != NULL) {
    to->password = hub->base.env.alloc(NULL, NULL, 0, 4096);
    if (to->password == NULL)
      return false;
    memcpy(to->password, from->password, strlen(from->password) + 1);
  }
  return true;
}

static bool fill(egi_server *server, const void *ctx) {
  egi_hub *hub = (egi_hub *)server;
  const egi_redis_options *options = ctx;
  bool good = copy_options(hub, options);
  for (size_t i = 0; good && i < options->address.n; i++)
    good = egi_hub_node(hub, options->address.hosts[i].name,
                        options->address.hosts[i].port) != NULL;
  return good;
}

static bool alike(const egi_server *server, const void *options) {
  return egi_redis_options_alike(&((const egi_hub *)server)->options, options);
}

const egi_server_kind egi_redis_kind = {
    .name = "redis",
    .size = sizeof(egi_hub),
    .alike = alike,
    .fill = fill,
    .empty = empty,
    .forked = give_up,
    .listen = egi_redis_listen,
};

static egi_node *find_node(const egi_hub *hub, const char *host, int port) {
  for (unsigned i = 0; i < hub->n; i++)
    if (hub->nodes[i]->port == port && strcmp(hub->nodes[i]->host, host) == 0)
      return hub->nodes[i];
  return NULL;
}

egi_node *egi_hub_node(egi_hub *hub, const char *host, int port) {
  size_t len = strlen(host);
  pthread_mutex_lock(&hub->base.mutex);
  egi_node *node = find_node(hub, host, port);
  bool fresh = node == NULL && hub->n < EGI_REDIS_NODES &&
               len < sizeof node->host;
  if (fresh)
    node = hub->base.env.alloc(NULL, NULL, 0, sizeof *node);
  if (fresh && node != NULL) {
    memset(node, 0, sizeof *node);
    memcpy(node->host, host, len + 1);
    node->port = port;
    hub->nodes[hub->n++] = node;
  }
  pthread_mutex_unlock(&hub->base.mutex);
  return node;
}

/* --------------------------------------------------------- connections -- */

/* An idle one that still lives.  With the mutex. */
static egi_wire *take_idle(egi_hub *hub, egi_node *node, egi_wire **dead) {
  while (node->idle != NULL) {
    egi_wire *wire = node->idle;
    node->idle = wire->next;
    if (!egi_wire_is_dead(wire))
      return wire;
    wire->next = *dead;
    *dead = wire;
    hub->base.open--;
  }
  return NULL;
}

/* One of another node, where there may be no more.  With the mutex. */
static egi_wire *take_any(egi_hub *hub) {
  for (unsigned i = 0; i < hub->n; i++) {
    egi_wire *wire = hub->nodes[i]->idle;
    if (wire != NULL) {
      hub->nodes[i]->idle = wire->next;
      hub->base.open--;
      return wire;
    }
  }
  return NULL;
}

static void close_wire(egi_hub *hub, egi_wire *wire) {
  redisFree(wire->context);
  hub->base.env.alloc(NULL, wire, sizeof *wire, 0);
}

static void close_list(egi_hub *hub, egi_wire *wire) {
  for (egi_wire *next; wire != NULL; wire = next) {
    next = wire->next;
    close_wire(hub, wire);
  }
}

/* Notes how a try to connect ended. */
static void note_try(egi_hub *hub, egi_node *node, bool good) {
  pthread_mutex_lock(&hub->base.mutex);
  if (good) {
    node->failures = 0;
    node->not_before_us = 0;
  } else {
    node->not_before_us = egi_real_us() + egi_backoff_us(node->failures++);
    hub->base.open--;
    hub->seed++; /* the next try goes to the next address */
    hub->stale = true;
    pthread_cond_signal(&hub->base.cond);
  }
  pthread_mutex_unlock(&hub->base.mutex);
}

/* A place for one more connection, or an idle one.  UNAVAILABLE: neither in
** time. */
static eg_status await_place(egi_hub *hub, egi_node *node, int64_t until_us,
                             egi_wire **wire, eg_error *error) {
  egi_wire *dead = NULL;
  struct timespec until = egi_timespec(until_us);
  bool place = false;
  int why = 0;
  pthread_mutex_lock(&hub->base.mutex);
  for (;;) {
    *wire = take_idle(hub, node, &dead);
    if (*wire != NULL)
      break;
    if (hub->base.open >= hub->options.connections) {
      egi_wire *other = take_any(hub);
      if (other != NULL) {
        other->next = dead;
        dead = other;
      }
    }
    place = hub->base.open < hub->options.connections;
    if (place)
      hub->base.open++;
    if (place || why == ETIMEDOUT)
      break;
    why = pthread_cond_timedwait(&hub->base.cond, &hub->base.mutex, &until);
  }
  pthread_mutex_unlock(&hub->base.mutex);
  close_list(hub, dead);
  if (place || *wire != NULL)
    return EG_OK;
  return egi_remote_fail(error, EG_UNAVAILABLE, 0,
                         "all %u connections to redis are in use "
                         "(connections= allows more)",
                         hub->options.connections);
}

eg_status egi_hub_borrow(egi_hub *hub, egi_node *node, int64_t until_us,
                         egi_wire **wire, eg_error *error) {
  eg_status status = await_place(hub, node, until_us, wire, error);
  if (status != EG_OK)
    return status;
  if (*wire != NULL) {
    (*wire)->sent = false;
    return EG_OK;
  }
  pthread_mutex_lock(&hub->base.mutex);
  int64_t not_before = node->not_before_us;
  pthread_mutex_unlock(&hub->base.mutex);
  int64_t now = egi_real_us();
  if (not_before > now)
    egi_remote_sleep_us((not_before < until_us ? not_before : until_us) - now);
  status = egi_wire_connect(hub, node, until_us, wire, error);
  note_try(hub, node, status == EG_OK);
  return status;
}

void egi_hub_return(egi_hub *hub, egi_wire *wire) {
  if (wire->pending) {
    egi_hub_discard(hub, wire);
    return;
  }
  wire->used_us = egi_real_us();
  pthread_mutex_lock(&hub->base.mutex);
  wire->next = wire->node->idle;
  wire->node->idle = wire;
  pthread_cond_signal(&hub->base.cond);
  pthread_mutex_unlock(&hub->base.mutex);
}

void egi_hub_discard(egi_hub *hub, egi_wire *wire) {
  close_wire(hub, wire);
  pthread_mutex_lock(&hub->base.mutex);
  hub->base.open--;
  pthread_cond_signal(&hub->base.cond);
  pthread_mutex_unlock(&hub->base.mutex);
}
