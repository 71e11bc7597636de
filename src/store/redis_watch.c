/* SPDX-License-Identifier: MIT
** Watching keys: one thread a server listens to the channels of all keys that
** are watched from this process, on a connection of its own.
**
** A message carries what was written, so who is woken by it can swap at once.
** Whenever messages may have been missed, because the connection broke or was
** made anew, every watch is told that its key may have changed.
*/
#include "store/redis.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* A channel, with those who watch its key. */
struct egi_topic {
  egi_topic *next;
  unsigned watches;
  enum { WANTED, ASKED, HEARD } state;
  size_t len;
  char name[];
};

enum { PING_AFTER_US = 5000000 };

/* --------------------------------------------------------------- waking -- */

/* With the listen mutex. */
static void mark_all(egi_hub *hub) {
  for (egi_watch *w = hub->watches; w != NULL; w = w->next)
    egi_watch_mark(w);
}

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
  pthread_mutex_lock(&hub->listen_mutex);
  for (egi_watch *w = hub->watches; w != NULL; w = w->next) {
    const egi_topic *topic = w->topic;
    if (topic != NULL && topic->len == (size_t)channel->len &&
        memcmp(topic->name, channel->str, topic->len) == 0) {
      hear(w, message->str, (size_t)message->len);
      egi_watch_mark(w);
    }
  }
  pthread_mutex_unlock(&hub->listen_mutex);
}

static void subscribed(egi_hub *hub, const redisReply *channel) {
  pthread_mutex_lock(&hub->listen_mutex);
  for (egi_topic *t = hub->topics; t != NULL; t = t->next)
    if (t->state == ASKED && t->len == (size_t)channel->len &&
        memcmp(t->name, channel->str, t->len) == 0)
      t->state = HEARD;
  pthread_cond_broadcast(&hub->listen_cond);
  pthread_mutex_unlock(&hub->listen_mutex);
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
    subscribed(hub, e[1]);
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
  for (egi_topic **link = &hub->topics; good && *link != NULL;) {
    egi_topic *t = *link;
    if (t->watches == 0) {
      good = t->state == WANTED || say(wire, "UNSUBSCRIBE", t);
      *link = t->next;
      hub->env.alloc(NULL, t, sizeof *t + t->len, 0);
      continue;
    }
    if (t->state == WANTED) {
      good = say(wire, "SUBSCRIBE", t);
      t->state = ASKED;
    }
    link = &t->next;
  }
  return good;
}

/* After the connection is gone: all is to be asked for again, and what was
** missed meanwhile nobody knows.  With the listen mutex. */
static void want_all(egi_hub *hub) {
  for (egi_topic *t = hub->topics; t != NULL; t = t->next)
    t->state = WANTED;
  mark_all(hub);
}

/* Waits for something to read or to do.  1: to read, 0: to do, -1: neither for
** a while. */
static int listen_once(const egi_hub *hub, const egi_wire *wire) {
  struct pollfd fds[2] = {{.fd = hub->kick, .events = POLLIN},
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
    egi_drain_fd(hub->kick);
    pthread_mutex_lock(&hub->listen_mutex);
    bool ends = hub->ends;
    good = update_topics(hub, wire);
    pthread_mutex_unlock(&hub->listen_mutex);
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

/* A while without a connection, or until the end. */
static void rest(egi_hub *hub, unsigned nth) {
  struct pollfd fd = {.fd = hub->kick, .events = POLLIN};
  poll(&fd, 1, (int)(egi_backoff_us(nth) / 1000) + 1);
}

static void *listener(void *ctx) {
  egi_hub *hub = ctx;
  unsigned failures = 0;
  for (;;) {
    egi_wire *wire = NULL;
    pthread_mutex_lock(&hub->listen_mutex);
    bool ends = hub->ends;
    pthread_mutex_unlock(&hub->listen_mutex);
    if (ends)
      return NULL;
    egi_node *node = egi_hub_route(hub, EGI_NO_SLOT);
    int64_t until = egi_real_us() + hub->options.timeout_us;
    if (egi_wire_connect(hub, node, until, &wire, NULL) != EG_OK) {
      rest(hub, failures++);
      continue;
    }
    failures = 0;
    listen_to(hub, wire);
    egi_wire_close(wire);
    hub->env.alloc(NULL, wire, sizeof *wire, 0);
    pthread_mutex_lock(&hub->listen_mutex);
    want_all(hub);
    pthread_mutex_unlock(&hub->listen_mutex);
  }
}

/* No signal is for this thread.  With the listen mutex. */
static bool start(egi_hub *hub) {
  sigset_t all, before;
  if (hub->listening)
    return true;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  hub->ends = false;
  hub->listening = pthread_create(&hub->listener, NULL, listener, hub) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return hub->listening;
}

static void free_topics(egi_hub *hub) {
  while (hub->topics != NULL) {
    egi_topic *t = hub->topics;
    hub->topics = t->next;
    hub->env.alloc(NULL, t, sizeof *t + t->len, 0);
  }
}

void egi_listener_stop(egi_hub *hub) {
  pthread_mutex_lock(&hub->listen_mutex);
  bool listening = hub->listening;
  hub->ends = true;
  egi_signal_fd(hub->kick);
  pthread_mutex_unlock(&hub->listen_mutex);
  if (listening)
    pthread_join(hub->listener, NULL);
  hub->listening = false;
  free_topics(hub);
}

/* The thread is not here, and its connection is the parent's.  The eventfds
** are shared with the parent: new ones are made. */
void egi_listener_forked(egi_hub *hub) {
  hub->listening = false;
  egi_steady_cond(&hub->listen_cond);
  if (hub->kick >= 0)
    close(hub->kick);
  hub->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  for (egi_watch *w = hub->watches; w != NULL; w = w->next) {
    w->topic = NULL;
    w->changed = true;
  }
  free_topics(hub);
}

/* --------------------------------------------------------------- watching */

/* With the listen mutex.  NULL: no memory. */
static egi_topic *find_topic(egi_hub *hub, const egi_redis_key *name) {
  for (egi_topic *t = hub->topics; t != NULL; t = t->next)
    if (t->len == name->len && memcmp(t->name, name->text, t->len) == 0)
      return t;
  egi_topic *t = hub->env.alloc(NULL, NULL, 0, sizeof *t + name->len);
  if (t == NULL)
    return NULL;
  *t = (egi_topic){.next = hub->topics, .state = WANTED, .len = name->len};
  memcpy(t->name, name->text, name->len);
  hub->topics = t;
  return t;
}

/* With the listen mutex. */
static void leave_topic(egi_hub *hub, egi_watch *watch) {
  egi_topic *topic = watch->topic;
  egi_watch_delist(watch, &hub->watches);
  if (topic != NULL && --topic->watches == 0)
    egi_signal_fd(hub->kick);
}

/* Has the server said that it will tell? */
static eg_status subscribe(egi_watch *watch, eg_error *error) {
  egi_redis *redis = (egi_redis *)watch->store;
  egi_hub *hub = redis->hub;
  egi_redis_key name;
  int64_t until = egi_real_us() + redis->options.timeout_us;
  struct timespec at = {until / 1000000, until % 1000000 * 1000};
  int why = 0;
  egi_redis_key_make(redis, egi_watch_key(watch), &name);
  pthread_mutex_lock(&hub->listen_mutex);
  egi_topic *topic = find_topic(hub, &name);
  if (topic == NULL || !start(hub)) {
    pthread_mutex_unlock(&hub->listen_mutex);
    return egi_remote_fail(error, EG_NOMEM, 0,
                           "not enough memory to listen to redis");
  }
  watch->topic = topic;
  topic->watches++;
  egi_watch_enlist(watch, &hub->watches);
  if (topic->state == WANTED)
    egi_signal_fd(hub->kick);
  while (watch->topic != NULL && topic->state != HEARD && why != ETIMEDOUT)
    why = pthread_cond_timedwait(&hub->listen_cond, &hub->listen_mutex, &at);
  bool heard = watch->topic != NULL && topic->state == HEARD;
  if (!heard)
    leave_topic(hub, watch);
  pthread_mutex_unlock(&hub->listen_mutex);
  return heard ? EG_OK
               : egi_remote_fail(error, EG_UNAVAILABLE, 0,
                                 "redis did not answer a subscription");
}

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
  if (watch == NULL)
    return egi_remote_fail(error, EG_NOMEM, 0,
                           "not enough memory for a watch");
  eg_status status = subscribe(watch, error);
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
  egi_hub *hub = ((egi_redis *)watch->store)->hub;
  pthread_mutex_lock(&hub->listen_mutex);
  leave_topic(hub, watch);
  pthread_mutex_unlock(&hub->listen_mutex);
  egi_watch_free(watch);
}
