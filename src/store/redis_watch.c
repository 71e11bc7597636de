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

struct egi_watch {
  egi_watch *next, *prev; /* all of the hub */
  egi_redis *redis;
  egi_topic *topic; /* NULL: of before a fork */
  int fd;
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  bool changed;
  int64_t lease_end_us; /* on the clock of env; EG_FOREVER: not known */
  size_t key_len;
  unsigned char key[];
};

enum { PING_AFTER_US = 5000000 };

/* --------------------------------------------------------------- waking -- */

static void signal_fd(int fd) {
  uint64_t one = 1;
  if (write(fd, &one, sizeof one) < 0) {
    /* it is full: who waits for it is awake */
  }
}

static void drain_fd(int fd) {
  uint64_t count;
  if (read(fd, &count, sizeof count) < 0) {
    /* it was empty */
  }
}

static void mark(egi_watch *watch) {
  const eg_clock *clock = watch->redis->env.clock;
  pthread_mutex_lock(&watch->mutex);
  watch->changed = true;
  signal_fd(watch->fd);
  clock->wake(clock->ctx, &watch->cond);
  pthread_mutex_unlock(&watch->mutex);
}

/* With the listen mutex. */
static void mark_all(egi_hub *hub) {
  for (egi_watch *w = hub->watches; w != NULL; w = w->next)
    mark(w);
}

/* A message: time and value, or time and head of a value that is large. */
static void hear(egi_watch *watch, const char *data, size_t len) {
  const eg_clock *clock = watch->redis->env.clock;
  eg_bytes key = {watch->key, watch->key_len};
  egi_seen seen;
  egi_seen_init(&seen);
  if (len <= 8 ||
      !egi_value_read(data + 8, len - 8, (int64_t)egi_unpack64(data), &seen)) {
    egi_recall_drop(watch->redis->recall, key);
    return;
  }
  if (len > 8 + EGI_REDIS_HEAD)
    egi_recall_keep(watch->redis->recall, key, &seen);
  else
    egi_recall_drop(watch->redis->recall, key);
  pthread_mutex_lock(&watch->mutex);
  if (seen.at.held && seen.at.left_us >= 0)
    watch->lease_end_us = clock->now_us(clock->ctx) + seen.at.left_us;
  pthread_mutex_unlock(&watch->mutex);
}

static void deliver(egi_hub *hub, const redisReply *channel,
                    const redisReply *message) {
  pthread_mutex_lock(&hub->listen_mutex);
  for (egi_watch *w = hub->watches; w != NULL; w = w->next)
    if (w->topic != NULL && w->topic->len == (size_t)channel->len &&
        memcmp(w->topic->name, channel->str, w->topic->len) == 0) {
      hear(w, message->str, (size_t)message->len);
      mark(w);
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
    drain_fd(hub->kick);
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
  signal_fd(hub->kick);
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

static void enlist(egi_hub *hub, egi_watch *watch) {
  watch->topic->watches++;
  watch->prev = NULL;
  watch->next = hub->watches;
  if (watch->next != NULL)
    watch->next->prev = watch;
  hub->watches = watch;
}

/* With the listen mutex. */
static void delist(egi_hub *hub, egi_watch *watch) {
  if (watch->prev != NULL)
    watch->prev->next = watch->next;
  else
    hub->watches = watch->next;
  if (watch->next != NULL)
    watch->next->prev = watch->prev;
  if (watch->topic != NULL && --watch->topic->watches == 0)
    signal_fd(hub->kick);
}

/* Has the server said that it will tell? */
static eg_status subscribe(egi_watch *watch, eg_error *error) {
  egi_redis *redis = watch->redis;
  egi_hub *hub = redis->hub;
  egi_redis_key name;
  int64_t until = egi_real_us() + redis->options.timeout_us;
  struct timespec at = {until / 1000000, until % 1000000 * 1000};
  eg_bytes key = {watch->key, watch->key_len};
  int why = 0;
  egi_redis_key_make(redis, key, &name);
  pthread_mutex_lock(&hub->listen_mutex);
  egi_topic *topic = find_topic(hub, &name);
  if (topic == NULL || !start(hub)) {
    pthread_mutex_unlock(&hub->listen_mutex);
    return egi_remote_fail(error, EG_NOMEM, 0,
                           "not enough memory to listen to redis");
  }
  watch->topic = topic;
  enlist(hub, watch);
  if (topic->state == WANTED)
    signal_fd(hub->kick);
  while (watch->topic != NULL && topic->state != HEARD && why != ETIMEDOUT)
    why = pthread_cond_timedwait(&hub->listen_cond, &hub->listen_mutex, &at);
  bool heard = watch->topic != NULL && topic->state == HEARD;
  if (!heard)
    delist(hub, watch);
  pthread_mutex_unlock(&hub->listen_mutex);
  return heard ? EG_OK
               : egi_remote_fail(error, EG_UNAVAILABLE, 0,
                                 "redis did not answer a subscription");
}

static egi_watch *make(egi_redis *redis, eg_bytes key) {
  const eg_env *env = &redis->env;
  egi_watch *watch = env->alloc(env->alloc_ud, NULL, 0,
                                sizeof *watch + key.len);
  if (watch == NULL)
    return NULL;
  *watch = (egi_watch){
      .redis = redis, .lease_end_us = EG_FOREVER, .key_len = key.len};
  memcpy(watch->key, key.data, key.len);
  watch->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (watch->fd >= 0 && pthread_mutex_init(&watch->mutex, NULL) == 0 &&
      egi_steady_cond(&watch->cond) == 0)
    return watch;
  if (watch->fd >= 0)
    close(watch->fd);
  env->alloc(env->alloc_ud, watch, sizeof *watch + key.len, 0);
  return NULL;
}

static void destroy(egi_watch *watch) {
  const eg_env *env = &watch->redis->env;
  close(watch->fd);
  pthread_mutex_destroy(&watch->mutex);
  pthread_cond_destroy(&watch->cond);
  env->alloc(env->alloc_ud, watch, sizeof *watch + watch->key_len, 0);
}

/* Did it change before the server began to tell? */
static eg_status look_again(egi_watch *watch, const egi_seen *seen,
                            eg_error *error) {
  egi_redis *redis = watch->redis;
  const eg_clock *clock = redis->env.clock;
  eg_bytes key = {watch->key, watch->key_len};
  egi_seen now;
  egi_seen_init(&now);
  eg_status status = egi_redis_load(&redis->base, key, EG_FOREVER, &now,
                                    error);
  if (status == EG_OK) {
    if (now.version != seen->version || now.at.held != seen->at.held)
      mark(watch);
    pthread_mutex_lock(&watch->mutex);
    if (now.at.held && now.at.left_us >= 0)
      watch->lease_end_us = clock->now_us(clock->ctx) + now.at.left_us;
    pthread_mutex_unlock(&watch->mutex);
  }
  egi_seen_free(&now, &redis->env);
  return status;
}

eg_status egi_redis_watch(egi_store *store, eg_bytes key, const egi_seen *seen,
                          egi_watch **watch_out, int *fd, eg_error *error) {
  egi_redis *redis = (egi_redis *)store;
  egi_watch *watch = make(redis, key);
  if (watch == NULL)
    return egi_remote_fail(error, EG_NOMEM, 0,
                           "not enough memory for a watch");
  eg_status status = subscribe(watch, error);
  if (status != EG_OK) {
    destroy(watch);
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
  const eg_clock *clock = watch->redis->env.clock;
  eg_status status = EG_CHANGED;
  (void)error;
  pthread_mutex_lock(&watch->mutex);
  while (!watch->changed) {
    int64_t now = clock->now_us(clock->ctx), end = watch->lease_end_us;
    if (now >= end) { /* nobody else tells of it */
      watch->lease_end_us = EG_FOREVER;
      break;
    }
    if (now >= deadline_us) {
      status = EG_TIMEOUT;
      break;
    }
    clock->wait(clock->ctx, &watch->cond, &watch->mutex,
                end < deadline_us ? end : deadline_us);
  }
  watch->changed = false;
  drain_fd(watch->fd);
  pthread_mutex_unlock(&watch->mutex);
  return status;
}

void egi_redis_unwatch(egi_watch *watch) {
  egi_hub *hub = watch->redis->hub;
  pthread_mutex_lock(&hub->listen_mutex);
  delist(hub, watch);
  pthread_mutex_unlock(&hub->listen_mutex);
  destroy(watch);
}
