/* SPDX-License-Identifier: MIT
** Watching keys: one thread a cluster keeps a watch on the prefix of every
** namespace of which keys are watched from this process, each a stream of its
** own.
**
** Who waits for a key is woken by the end of an exclusion, whoever or whatever
** ended it, by that of its notBefore, and by a record that was written, unless
** that only tells of somebody who takes the key and does not say that he wakes
** others.  What a release leaves comes with the event, so who is woken can
** swap at once.  Whenever events may have been missed, because a stream broke
** or its member has no leader any more, every watch is told that its key may
** have changed.
*/
#include "store/etcd.h"

#include <stdlib.h>

enum { CREATED_US = 1000000, STREAMS = 64, LOOK_MS = 1000 };

/* A watch of etcd's: a stream of lines. */
typedef struct stream {
  egi_etcd_wire *wire; /* NULL: this place is free */
  char name[EGI_ETCD_PREFIX];
  size_t len;
  egi_text_buf body;
  unsigned endpoint;
  int64_t begun_us;
  bool created, ended;
} stream;

typedef struct listening {
  egi_etcd_hub *hub;
  CURLM *multi;
  stream streams[STREAMS];
  unsigned failures;
} listening;

/* --------------------------------------------------------------- events -- */

/* An event, as far as it is understood. */
typedef struct event {
  const json_t *kv;
  unsigned char *text; /* the key in it; malloc */
  int kind;            /* -1: none of ours */
  eg_bytes key;
  bool deleted;
} event;

static void read_event(const json_t *object, size_t prefix, event *e) {
  size_t len;
  const char *type = json_string_value(json_object_get(object, "type"));
  *e = (event){.kv = json_object_get(object, "kv"), .kind = -1};
  const char *key = json_string_value(json_object_get(e->kv, "key"));
  e->deleted = type != NULL && strcmp(type, "DELETE") == 0;
  if (key != NULL && egi_unbase64(key, &e->text, &len) && len > prefix)
    e->kind = egi_etcd_key_read(e->text + prefix, len - prefix, &e->key);
}

static bool same_key(const event *a, const event *b) {
  return a->key.len == b->key.len &&
         memcmp(a->key.data, b->key.data, a->key.len) == 0;
}

/* What the same transaction did to another key of the record. */
static const event *beside(const event *events, size_t n, const event *e,
                           int kind) {
  for (size_t i = 0; i < n; i++)
    if (events[i].kind == kind && same_key(&events[i], e) &&
        egi_json_number(events[i].kv, "mod_revision") ==
            egi_json_number(e->kv, "mod_revision"))
      return &events[i];
  return NULL;
}

static bool wakes(const event *events, size_t n, const event *e) {
  const event *own = NULL;
  switch (e->kind) {
  case EGI_OWN: /* a put: with that of rec */
  case EGI_TIME + EGI_NBF:
    return e->deleted;
  case EGI_REC:
    own = beside(events, n, e, EGI_OWN);
    return own == NULL || own->deleted || egi_etcd_own_wakes(own->kv);
  default:
    return false;
  }
}

/* What a release has left, as load would show it: a guess for who is woken. */
static void learn(const egi_watch *w, const event *e, const event *own) {
  egi_etcd *etcd = (egi_etcd *)w->store;
  egi_etcd_state state = {0};
  egi_seen seen;
  egi_seen_init(&seen);
  bool known = e->kind == EGI_REC && own != NULL && own->deleted;
  if (known && !e->deleted)
    known = egi_etcd_read_rec(e->kv, &state);
  for (int i = 0; i < EGI_TIMES; i++)
    state.runs[i] = state.length[i] > 0;
  if (known && !e->deleted) {
    egi_etcd_see(etcd, &state, egi_watch_key(w), &seen);
    egi_recall_keep(etcd->recall, egi_watch_key(w), &seen);
  } else {
    egi_recall_drop(etcd->recall, egi_watch_key(w));
  }
  egi_etcd_state_free(&state);
}

static void deliver(egi_etcd_hub *hub, const stream *s, const event *events,
                    size_t n, const event *e) {
  eg_bytes name = {s->name, s->len};
  const event *own = beside(events, n, e, EGI_OWN);
  /* rec tells it all, where it was written too. */
  if (e->kind == EGI_OWN && beside(events, n, e, EGI_REC) != NULL)
    return;
  pthread_mutex_lock(&hub->base.listen_mutex);
  for (egi_watch *w = hub->base.watches; w != NULL; w = w->next)
    if (egi_watch_is_of(w, name) && w->key_len == e->key.len &&
        memcmp(w->key, e->key.data, e->key.len) == 0) {
      learn(w, e, own);
      egi_watch_mark(w);
    }
  pthread_mutex_unlock(&hub->base.listen_mutex);
}

static void take_events(egi_etcd_hub *hub, const stream *s,
                        const json_t *list) {
  size_t n = json_array_size(list);
  event *events = n > 0 ? calloc(n, sizeof *events) : NULL;
  if (n > 0 && events == NULL) {
    egi_listener_want_all(&hub->base);
    return;
  }
  for (size_t i = 0; i < n; i++)
    read_event(json_array_get(list, i), s->len, &events[i]);
  for (size_t i = 0; i < n; i++)
    if (wakes(events, n, &events[i]))
      deliver(hub, s, events, n, &events[i]);
  for (size_t i = 0; i < n; i++)
    free(events[i].text);
  free(events);
}

/* One line of a stream. */
static void take_line(egi_etcd_hub *hub, stream *s, const char *text,
                      size_t len) {
  json_t *line = json_loadb(text, len, 0, NULL);
  const json_t *result = json_object_get(line, "result");
  s->ended = s->ended || result == NULL ||
             json_is_true(json_object_get(result, "canceled"));
  if (json_is_true(json_object_get(result, "created")) && !s->ended) {
    s->created = true;
    egi_topic_heard(&hub->base, (eg_bytes){s->name, s->len});
  }
  take_events(hub, s, json_object_get(result, "events"));
  json_decref(line);
}

static void take_lines(egi_etcd_hub *hub, stream *s) {
  egi_text_buf *text = &s->wire->reply;
  size_t at = 0;
  for (char *end; at < text->len &&
                  (end = memchr(text->data + at, '\n', text->len - at));) {
    size_t len = (size_t)(end - text->data) - at;
    if (len > 0)
      take_line(hub, s, text->data + at, len);
    at += len + 1;
  }
  if (at > 0) {
    memmove(text->data, text->data + at, text->len - at);
    text->len -= at;
  }
}

/* -------------------------------------------------------------- streams -- */

static void end_stream(listening *l, stream *s) {
  curl_multi_remove_handle(l->multi, s->wire->easy);
  egi_etcd_wire_free(l->hub, s->wire);
  egi_text_free(&s->body);
  memset(s, 0, sizeof *s);
}

static bool begin_stream(listening *l, stream *s, const egi_topic *topic) {
  eg_bytes key = {topic->name, topic->len}, none = {NULL, 0};
  char end[EGI_ETCD_PREFIX];
  memcpy(end, topic->name, topic->len);
  end[topic->len - 1]++;
  memcpy(s->name, topic->name, topic->len);
  s->len = topic->len;
  egi_text_put(&s->body, "{\"create_request\":{\"key\":");
  egi_text_bytes(&s->body, key, none);
  egi_text_put(&s->body, ",\"range_end\":");
  egi_text_bytes(&s->body, (eg_bytes){end, topic->len}, none);
  egi_text_put(&s->body, "}}");
  s->wire = egi_etcd_wire_new(l->hub);
  s->endpoint = egi_etcd_endpoint(l->hub);
  s->begun_us = egi_real_us();
  bool good = s->wire != NULL && !s->body.failed &&
              egi_etcd_aim(l->hub, s->wire, "watch") &&
              curl_easy_setopt(s->wire->easy, CURLOPT_POSTFIELDS,
                               s->body.data) == CURLE_OK &&
              curl_easy_setopt(s->wire->easy, CURLOPT_POSTFIELDSIZE,
                               (long)s->body.len) == CURLE_OK &&
              curl_easy_setopt(s->wire->easy, CURLOPT_CONNECTTIMEOUT_MS,
                               (long)(CREATED_US / 1000)) == CURLE_OK &&
              curl_multi_add_handle(l->multi, s->wire->easy) == CURLM_OK;
  if (good)
    return true;
  if (s->wire != NULL)
    egi_etcd_wire_free(l->hub, s->wire);
  egi_text_free(&s->body);
  memset(s, 0, sizeof *s);
  return false;
}

static stream *find_stream(listening *l, const egi_topic *topic) {
  for (int i = 0; i < STREAMS; i++) {
    stream *s = &l->streams[i];
    if (topic == NULL ? s->wire == NULL
                      : s->wire != NULL && s->len == topic->len &&
                            memcmp(s->name, topic->name, s->len) == 0)
      return s;
  }
  return NULL;
}

/* Begins the streams that are wanted, and ends those that are not. */
static void update_topics(listening *l) {
  egi_server *server = &l->hub->base;
  pthread_mutex_lock(&server->listen_mutex);
  for (egi_topic **link = &server->topics; *link != NULL;) {
    egi_topic *t = *link;
    stream *s = find_stream(l, t);
    if (t->watches == 0) {
      if (s != NULL)
        end_stream(l, s);
      egi_topic_remove(server, link);
      continue;
    }
    if (t->state == EGI_WANTED && s == NULL) {
      s = find_stream(l, NULL);
      if (s != NULL && begin_stream(l, s, t))
        t->state = EGI_ASKED;
    }
    link = &t->next;
  }
  pthread_mutex_unlock(&server->listen_mutex);
}

/* One is broken: all begin anew, with the member that answers others. */
static void begin_anew(listening *l, unsigned endpoint) {
  for (int i = 0; i < STREAMS; i++)
    if (l->streams[i].wire != NULL)
      end_stream(l, &l->streams[i]);
  egi_etcd_move_on(l->hub, endpoint);
  egi_listener_want_all(&l->hub->base);
  egi_listener_rest(&l->hub->base, l->failures++);
}

/* What came, and whether all streams still stand. */
static void look_around(listening *l) {
  int left;
  bool broken = false;
  unsigned endpoint = egi_etcd_endpoint(l->hub);
  for (CURLMsg *m; (m = curl_multi_info_read(l->multi, &left)) != NULL;)
    for (int i = 0; i < STREAMS; i++)
      if (l->streams[i].wire != NULL &&
          l->streams[i].wire->easy == m->easy_handle)
        l->streams[i].ended = true;
  for (int i = 0; i < STREAMS; i++) {
    stream *s = &l->streams[i];
    if (s->wire == NULL)
      continue;
    size_t before = s->wire->reply.len;
    take_lines(l->hub, s);
    if (s->wire->reply.len < before)
      l->failures = 0;
    bool late = !s->created && egi_real_us() - s->begun_us > CREATED_US;
    if (s->ended || late || s->wire->reply.failed || s->endpoint != endpoint) {
      broken = true;
      endpoint = s->endpoint;
    }
  }
  if (broken)
    begin_anew(l, endpoint);
}

void egi_etcd_listen(egi_server *server) {
  listening *l = server->env.alloc(NULL, NULL, 0, sizeof *l);
  if (l == NULL)
    return;
  memset(l, 0, sizeof *l);
  l->hub = (egi_etcd_hub *)server;
  l->multi = curl_multi_init();
  while (l->multi != NULL && !egi_listener_ends(server)) {
    struct curl_waitfd kick = {.fd = server->kick, .events = CURL_WAIT_POLLIN};
    int running;
    egi_drain_fd(server->kick);
    update_topics(l);
    curl_multi_perform(l->multi, &running);
    look_around(l);
    if (!egi_listener_ends(server))
      curl_multi_poll(l->multi, &kick, 1, LOOK_MS, NULL);
  }
  for (int i = 0; i < STREAMS && l->multi != NULL; i++)
    if (l->streams[i].wire != NULL)
      end_stream(l, &l->streams[i]);
  curl_multi_cleanup(l->multi);
  server->env.alloc(NULL, l, sizeof *l, 0);
}

/* ------------------------------------------------------------- watching -- */

/* Did it change before the server began to tell? */
static eg_status look_again(egi_watch *watch, const egi_seen *seen,
                            eg_error *error) {
  egi_etcd *etcd = (egi_etcd *)watch->store;
  egi_seen now;
  egi_seen_init(&now);
  eg_status status = egi_etcd_load(&etcd->base, egi_watch_key(watch),
                                   EG_FOREVER, &now, error);
  if (status == EG_OK &&
      (now.version != seen->version || now.at.held != seen->at.held))
    egi_watch_mark(watch);
  egi_seen_free(&now, &etcd->env);
  return status;
}

eg_status egi_etcd_watch(egi_store *store, eg_bytes key, const egi_seen *seen,
                         egi_watch **watch_out, int *fd, eg_error *error) {
  egi_etcd *etcd = (egi_etcd *)store;
  egi_etcd_notice_fork(etcd);
  egi_watch *watch = egi_watch_new(store, key, &etcd->env);
  if (watch == NULL)
    return egi_remote_fail(error, EG_NOMEM, 0,
                           "not enough memory for a watch");
  eg_status status = egi_watch_subscribe(
      &etcd->hub->base, watch, (eg_bytes){etcd->prefix, etcd->prefix_len},
      egi_real_us() + etcd->timeout_us, error);
  if (status != EG_OK) {
    egi_watch_free(watch);
    return status;
  }
  status = look_again(watch, seen, error);
  if (status != EG_OK) {
    egi_etcd_unwatch(watch);
    return status;
  }
  *watch_out = watch;
  if (fd != NULL)
    *fd = watch->fd;
  return EG_OK;
}

eg_status egi_etcd_wait(egi_watch *watch, int64_t deadline_us,
                        eg_error *error) {
  (void)error;
  return egi_watch_wait(watch, deadline_us);
}

void egi_etcd_unwatch(egi_watch *watch) {
  egi_watch_leave(&((egi_etcd *)watch->store)->hub->base, watch);
}
