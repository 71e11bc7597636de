/* SPDX-License-Identifier: MIT
** The thread that listens to a server, and what it listens for.
**
**   wanted --> asked --> heard     a topic; back to wanted when the connection
**                                  is gone, and with it all who watch are told
**                                  that their key may have changed
*/
#include "store/remote.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* ---------------------------------------------------------- the thread -- */

static void *run(void *ctx) {
  egi_server *s = ctx;
  s->kind->listen(s);
  return NULL;
}

/* No signal is for this thread.  With the listen mutex. */
static bool start(egi_server *s) {
  sigset_t all, before;
  if (s->listening)
    return true;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  s->ends = false;
  s->listening = pthread_create(&s->listener, NULL, run, s) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return s->listening;
}

static void free_topics(egi_server *s) {
  while (s->topics != NULL)
    egi_topic_remove(s, &s->topics);
}

void egi_listener_stop(egi_server *s) {
  pthread_mutex_lock(&s->listen_mutex);
  bool listening = s->listening;
  s->ends = true;
  egi_signal_fd(s->kick);
  pthread_mutex_unlock(&s->listen_mutex);
  if (listening)
    pthread_join(s->listener, NULL);
  s->listening = false;
  free_topics(s);
}

/* The thread is not here, and its connection is the parent's.  The eventfds
** are shared with the parent: new ones are made. */
void egi_listener_forked(egi_server *s) {
  s->listening = false;
  egi_steady_cond(&s->listen_cond);
  if (s->kick >= 0)
    close(s->kick);
  s->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  for (egi_watch *w = s->watches; w != NULL; w = w->next) {
    w->topic = NULL;
    w->changed = true;
  }
  free_topics(s);
}

bool egi_listener_ends(egi_server *s) {
  pthread_mutex_lock(&s->listen_mutex);
  bool ends = s->ends;
  pthread_mutex_unlock(&s->listen_mutex);
  return ends;
}

void egi_listener_rest(egi_server *s, unsigned nth) {
  struct pollfd fd = {.fd = s->kick, .events = POLLIN};
  poll(&fd, 1, (int)(egi_backoff_us(nth) / 1000) + 1);
}

void egi_listener_want_all(egi_server *s) {
  pthread_mutex_lock(&s->listen_mutex);
  for (egi_topic *t = s->topics; t != NULL; t = t->next) {
    t->again = t->again || t->state == EGI_HEARD;
    t->state = EGI_WANTED;
  }
  for (egi_watch *w = s->watches; w != NULL; w = w->next) {
    w->look_us = 0;
    egi_watch_mark(w);
  }
  pthread_mutex_unlock(&s->listen_mutex);
}

/* -------------------------------------------------------------- topics -- */

static bool is_named(const egi_topic *t, eg_bytes name) {
  return t->len == name.len && memcmp(t->name, name.data, t->len) == 0;
}

static egi_topic *find(const egi_server *s, eg_bytes name) {
  egi_topic *t = s->topics;
  while (t != NULL && !is_named(t, name))
    t = t->next;
  return t;
}

void egi_topic_remove(egi_server *s, egi_topic **link) {
  egi_topic *t = *link;
  *link = t->next;
  s->env.alloc(NULL, t, sizeof *t + t->len + 1, 0);
}

void egi_topic_heard(egi_server *s, eg_bytes name) {
  pthread_mutex_lock(&s->listen_mutex);
  egi_topic *t = find(s, name);
  if (t != NULL && t->state == EGI_ASKED)
    t->state = EGI_HEARD;
  for (egi_watch *w = s->watches; t != NULL && t->again && w != NULL;
       w = w->next)
    if (w->topic == t)
      egi_watch_mark(w);
  if (t != NULL)
    t->again = false;
  pthread_cond_broadcast(&s->listen_cond);
  pthread_mutex_unlock(&s->listen_mutex);
}

bool egi_watch_is_of(const egi_watch *watch, eg_bytes name) {
  const egi_topic *topic = watch->topic;
  return topic != NULL && is_named(topic, name);
}

/* With the listen mutex.  NULL: no memory. */
static egi_topic *find_or_add(egi_server *s, eg_bytes name) {
  egi_topic *t = find(s, name);
  if (t != NULL)
    return t;
  t = s->env.alloc(NULL, NULL, 0, sizeof *t + name.len + 1);
  if (t == NULL)
    return NULL;
  *t = (egi_topic){.next = s->topics, .len = name.len};
  memcpy(t->name, name.data, name.len);
  t->name[name.len] = '\0';
  s->topics = t;
  return t;
}

/* With the listen mutex. */
static void leave(egi_server *s, egi_watch *watch) {
  egi_topic *topic = watch->topic;
  egi_watch_delist(watch, &s->watches);
  if (topic != NULL && --topic->watches == 0)
    egi_signal_fd(s->kick);
}

eg_status egi_watch_subscribe(egi_server *s, egi_watch *watch, eg_bytes name,
                              int64_t until_us, eg_error *error) {
  struct timespec at = egi_timespec(until_us);
  int why = 0;
  pthread_mutex_lock(&s->listen_mutex);
  egi_topic *topic = find_or_add(s, name);
  if (topic == NULL || !start(s)) {
    pthread_mutex_unlock(&s->listen_mutex);
    return egi_remote_fail(error, EG_NOMEM, 0,
                           "not enough memory to listen to %s", s->kind->name);
  }
  watch->topic = topic;
  topic->watches++;
  egi_watch_enlist(watch, &s->watches);
  if (topic->state == EGI_WANTED)
    egi_signal_fd(s->kick);
  while (watch->topic != NULL && topic->state != EGI_HEARD && why != ETIMEDOUT)
    why = pthread_cond_timedwait(&s->listen_cond, &s->listen_mutex, &at);
  bool heard = watch->topic != NULL && topic->state == EGI_HEARD;
  if (!heard)
    leave(s, watch);
  pthread_mutex_unlock(&s->listen_mutex);
  return heard ? EG_OK
               : egi_remote_fail(error, EG_UNAVAILABLE, 0,
                                 "%s did not answer a subscription",
                                 s->kind->name);
}

void egi_watch_leave(egi_server *s, egi_watch *watch) {
  pthread_mutex_lock(&s->listen_mutex);
  leave(s, watch);
  pthread_mutex_unlock(&s->listen_mutex);
  egi_watch_free(watch);
}
