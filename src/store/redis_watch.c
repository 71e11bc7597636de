/* SPDX-License-Identifier: MIT
** Watching keys: one thread a server listens to the channels of all keys that
** are watched from this process, on a connection of its own.
**
** A message carries what was written, so who is woken by it can swap at once.
** Whenever messages may have been missed, because the connection broke or was
** made anew, every watch is told that its key may have changed.
*/
#include "store/redis.h"

#include <poll.h>
#include <string.h>

enum { PING_AFTER_US = 5000000 };

/* --------------------------------------------------------------- waking -- */

/* A message: time and value, or time and head of a value that is large. */
static void hear(egi_watch *watch, const char *data, size_t len) {
  egi_redis *redis = (egi_redis *)watch->store;
  eg_bytes key = egi_watch_key(watch);
  egi_seen seen;
  egi_seen_init(&seen);
  if (len <= 8 ||
      !egi_value_read(data + 8, len - 8, (int64_t)egi_unpack64(data), &seen)) {
    egi_recall_drop(redis->recall, key);
    return;
  }
  if (len > 8 + EGI_REDIS_HEAD)
    egi_recall_keep(redis->recall, key, &seen);
  else
    egi_recall_drop(redis->recall, key);
  egi_watch_lease(watch, &seen);
}

static void deliver(egi_hub *hub, const redisReply *channel,
                    const redisReply *message) {
  eg_bytes name = {channel->str, (size_t)channel->len};
  pthread_mutex_lock(&hub->base.listen_mutex);
  for (egi_watch *w = hub->base.watches; w != NULL; w = w->next)
    if (egi_watch_is_of(w, name)) {
      hear(w, message->str, (size_t)message->len);
      egi_watch_mark(w);
    }
  pthread_mutex_unlock(&hub->base.listen_mutex);
}

static void take_message(egi_hub *hub, const redisReply *reply) {
  if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 3)
    return;
  redisReply *const *e = reply->element;
  if (e[0]->type != REDIS_REPLY_STRING || e[1]->type != REDIS_REPLY_STRING)
    return;
  if (strcmp(e[0]->str, "message") == 0 && e[2]->type == REDIS_REPLY_STRING)
    deliver(hub, e[1], e[2]);
  else if (strcmp(e[0]->str, "subscribe") == 0)
    egi_topic_heard(&hub->base, (eg_bytes){e[1]->str, e[1]->len});
}

/* -------------------------------------------------------- the listener -- */

static bool say(egi_wire *wire, const char *verb, const egi_topic *topic) {
  const char *argv[] = {verb, topic->name};
  size_t lens[] = {strlen(verb), topic->len};
  return redisAppendCommandArgv(wire->context, 2, argv, lens) == REDIS_OK;
}

/* Asks for the channels that are wanted, and no more for those that are not.
** With the listen mutex. */
static bool update_topics(egi_hub *hub, egi_wire *wire) {
  bool good = true;
  for (egi_topic **link = &hub->base.topics; good && *link != NULL;) {
    egi_topic *t = *link;
    if (t->watches == 0) {
      good = t->state == EGI_WANTED || say(wire, "UNSUBSCRIBE", t);
      egi_topic_remove(&hub->base, link);
      continue;
    }
    if (t->state == EGI_WANTED) {
      good = say(wire, "SUBSCRIBE", t);
      t->state = EGI_ASKED;
    }
    link = &t->next;
  }
  return good;
}

/* Waits for something to read or to do.  1: to read, 0: to do, -1: neither for
** a while. */
static int listen_once(const egi_hub *hub, const egi_wire *wire) {
  struct pollfd fds[2] = {{.fd = hub->base.kick, .events = POLLIN},
                          {.fd = wire->context->fd, .events = POLLIN}};
  int n = poll(fds, 2, PING_AFTER_US / 1000);
  if (n == 0)
    return -1;
  return n > 0 && fds[1].revents != 0 ? 1 : 0;
}

static bool read_messages(egi_hub *hub, egi_wire *wire) {
  void *reply = NULL;
  if (redisBufferRead(wire->context) != REDIS_OK)
    return false;
  while (redisGetReplyFromReader(wire->context, &reply) == REDIS_OK &&
         reply != NULL) {
    take_message(hub, reply);
    freeReplyObject(reply);
    reply = NULL;
  }
  return wire->context->err == 0;
}

/* Listens until the connection breaks or there is nothing more to do. */
static void listen_to(egi_hub *hub, egi_wire *wire) {
  bool good = true, asked = false;
  while (good) {
    egi_drain_fd(hub->base.kick);
    pthread_mutex_lock(&hub->base.listen_mutex);
    bool ends = hub->base.ends;
    good = update_topics(hub, wire);
    pthread_mutex_unlock(&hub->base.listen_mutex);
    if (ends)
      return;
    int64_t until = egi_real_us() + hub->options.timeout_us;
    good = good && egi_wire_send(wire, until, NULL) == EG_OK;
    int got = good ? listen_once(hub, wire) : 0;
    if (got == 1) {
      good = read_messages(hub, wire);
      asked = false;
    } else if (got < 0) { /* is anybody there? */
      good = !asked && redisAppendCommand(wire->context, "PING") == REDIS_OK;
      asked = true;
    }
  }
}

void egi_redis_listen(egi_server *server) {
  egi_hub *hub = (egi_hub *)server;
  unsigned failures = 0;
  while (!egi_listener_ends(server)) {
    egi_wire *wire = NULL;
    egi_node *node = egi_hub_route(hub, EGI_NO_SLOT);
    int64_t until = egi_real_us() + hub->options.timeout_us;
    if (egi_wire_connect(hub, node, until, &wire, NULL) != EG_OK) {
      egi_listener_rest(server, failures++);
      continue;
    }
    failures = 0;
    listen_to(hub, wire);
    egi_wire_close(wire);
    server->env.alloc(NULL, wire, sizeof *wire, 0);
    egi_listener_want_all(server);
  }
}

/* --------------------------------------------------------------- watching */

/* Did it change before the server began to tell? */
static eg_status look_again(egi_watch *watch, const egi_seen *seen,
                            eg_error *error) {
  egi_redis *redis = (egi_redis *)watch->store;
  egi_seen now;
  egi_seen_init(&now);
  eg_status status = egi_redis_load(&redis->base, egi_watch_key(watch),
                                    EG_FOREVER, &now, error);
  if (status == EG_OK) {
    if (now.version != seen->version || now.at.held != seen->at.held)
      egi_watch_mark(watch);
    egi_watch_lease(watch, &now);
  }
  egi_seen_free(&now, &redis->env);
  return status;
}

eg_status egi_redis_watch(egi_store *store, eg_bytes key, const egi_seen *seen,
                          egi_watch **watch_out, int *fd, eg_error *error) {
  egi_redis *redis = (egi_redis *)store;
  egi_watch *watch = egi_watch_new(store, key, &redis->env);
  egi_redis_key name;
  if (watch == NULL)
    return egi_remote_fail(error, EG_NOMEM, 0,
                           "not enough memory for a watch");
  egi_redis_key_make(redis, key, &name);
  eg_status status = egi_watch_subscribe(
      &redis->hub->base, watch, (eg_bytes){name.text, name.len},
      egi_real_us() + redis->options.timeout_us, error);
  if (status != EG_OK) {
    egi_watch_free(watch);
    return status;
  }
  status = look_again(watch, seen, error);
  if (status != EG_OK) {
    egi_redis_unwatch(watch);
    return status;
  }
  *watch_out = watch;
  if (fd != NULL)
    *fd = watch->fd;
  return EG_OK;
}

eg_status egi_redis_wait(egi_watch *watch, int64_t deadline_us,
                         eg_error *error) {
  (void)error;
  return egi_watch_wait(watch, deadline_us);
}

void egi_redis_unwatch(egi_watch *watch) {
  egi_watch_leave(&((egi_redis *)watch->store)->hub->base, watch);
}
