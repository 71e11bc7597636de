/* SPDX-License-Identifier: MIT
** Watching keys: one thread a database listens for the namespaces in which
** keys are watched from this process, on a connection of its own that never
** has a transaction open.
**
**   watch:   LISTEN, and wait until that is done -> mark the row: somebody
**            waits -> what it says by now: has it changed already?
**   a swap finds the mark, takes it away, and notifies
**   listener: wakes the watch, and marks the row again unless the watch has
**            gone by then (REMARK_US): what came in between is seen by that
**
** A notification carries what was written, so who is woken by it can swap at
** once.  Whenever some may have been missed, because the connection broke,
** every watch is told that its key may have changed.  Every few seconds the
** rows are looked at in any case.
**
** Where a pooler is in between and does not pass notifications on (tried with
** one to ourselves), and no direct way is named (listen=), the thread looks at
** the rows of all watches in one statement, every POLL_US or so.
*/
#include "store/postgres.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  REMARK_US = 2000,
  POLL_US = 50000,
  LOOK_AFTER_US = 5000000,
  PROBE_US = 500000,
  SOME = 64
};

static int64_t nearer(int64_t a, int64_t b) { return a < b ? a : b; }

/* ------------------------------------------------------- what was seen -- */

/* That is what is there now.  What counts is the version of the row: it moves
** also from one absence to the next, as when a lock was had and released in
** between.  With the listen mutex. */
static void tell_row(egi_watch *w, const PGresult *result, int i) {
  const egi_pg *pg = (const egi_pg *)w->store;
  egi_seen seen;
  egi_row row;
  int64_t now;
  egi_seen_init(&seen);
  if (egi_pg_row_read(result, i, &row, &now))
    egi_row_see(&row, now, &seen);
  else
    egi_row_absent(now, &seen);
  egi_recall_keep(pg->recall, egi_watch_key(w), &seen);
  egi_watch_lease(w, &seen);
  if (row.version == w->told)
    return;
  w->told = row.version;
  egi_watch_mark(w);
}

/* ------------------------------------------------------- notifications -- */

static int digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

/* Decodes hexadecimal digits up to a blank or the end. */
static const char *unhex(const char *text, unsigned char *out, size_t most,
                         size_t *len) {
  *len = 0;
  for (; text[0] > ' ' && text[1] > ' ' && *len < most; text += 2)
    out[(*len)++] = (unsigned char)(digit(text[0]) * 16 + digit(text[1]));
  return text;
}

/* A message: key, version, token, stamp, last, ends of notBefore, fresh and
** life, bytes.  False: it does not say all. */
static bool read_message(const char *text, unsigned char *room, size_t most,
                         egi_row *row) {
  int64_t numbers[7];
  char *end;
  memset(row, 0, sizeof *row);
  for (int i = 0; i < 7; i++) {
    numbers[i] = strtoll(text, &end, 10);
    if (end == text)
      return false;
    text = end;
  }
  row->version = (uint64_t)numbers[0];
  row->token = (uint64_t)numbers[1];
  row->stamp = numbers[2];
  row->last = numbers[3];
  row->not_before = numbers[4];
  row->fresh = numbers[5];
  row->life = numbers[6];
  text += strspn(text, " ");
  if (*text == '-')
    return true;
  if (strcmp(text, "held") == 0 || strcmp(text, "large") == 0)
    return false;
  size_t len;
  unhex(text, room, most, &len);
  row->bytes = (eg_bytes){room, len};
  return true;
}

static void deliver(egi_pg_hub *hub, const PGnotify *message) {
  unsigned char key[EG_KEY_MAX], bytes[2048];
  size_t len;
  egi_row row;
  const char *rest = unhex(message->extra, key, sizeof key, &len);
  bool whole = read_message(rest, bytes, sizeof bytes, &row);
  pthread_mutex_lock(&hub->base.listen_mutex);
  for (egi_watch *w = hub->base.watches; w != NULL; w = w->next) {
    if (!egi_watch_is_of(w, egi_text(message->relname)) || w->key_len != len ||
        memcmp(w->key, key, len) != 0)
      continue;
    egi_pg *pg = (egi_pg *)w->store;
    egi_seen seen;
    egi_seen_init(&seen);
    if (whole) {
      egi_row_see(&row, row.last, &seen);
      egi_recall_keep(pg->recall, egi_watch_key(w), &seen);
    } else {
      egi_recall_drop(pg->recall, egi_watch_key(w));
    }
    w->told = row.version;
    w->look_us = egi_real_us() + REMARK_US;
    egi_watch_mark(w);
  }
  pthread_mutex_unlock(&hub->base.listen_mutex);
}

static bool hear(egi_pg_hub *hub, egi_pg_wire *wire) {
  PGnotify *message;
  if (PQconsumeInput(wire->conn) == 0)
    return false;
  while ((message = PQnotifies(wire->conn)) != NULL) {
    deliver(hub, message);
    PQfreemem(message);
  }
  return true;
}

/* ------------------------------------------------------------- looking -- */

/* A watch as it is named to the server while no lock is held. */
typedef struct named {
  egi_watch *watch; /* only to be compared */
  char name[EG_NAME_MAX + 1];
  unsigned char key[EG_KEY_MAX];
  size_t len;
} named;

static void name(named *n, egi_watch *w) {
  const egi_pg *pg = (const egi_pg *)w->store;
  n->watch = w;
  memcpy(n->name, pg->name, sizeof n->name);
  memcpy(n->key, w->key, w->key_len);
  n->len = w->key_len;
}

/* Is it still there, and for that key?  With the listen mutex. */
static egi_watch *find(egi_pg_hub *hub, const named *n) {
  egi_watch *w = hub->base.watches;
  while (w != NULL && w != n->watch)
    w = w->next;
  bool same = w != NULL && w->key_len == n->len &&
              memcmp(w->key, n->key, n->len) == 0;
  return same ? w : NULL;
}

static eg_status mark_row(egi_pg_hub *hub, egi_pg_wire *wire, const char *ns,
                          eg_bytes key, PGresult **result) {
  egi_pg_call call = {.statement = EGI_PG_MARK};
  int64_t until = egi_real_us() + hub->options.timeout_us;
  bool pooled = hub->pooled && *hub->options.listen == '\0';
  egi_pg_add(&call, ns, strlen(ns));
  egi_pg_add(&call, key.data, key.len);
  return egi_pg_run(wire, &call, pooled, until, result, NULL);
}

/* Those whose time has come, and what is found there. */
static bool look_at_due(egi_pg_hub *hub, egi_pg_wire *wire) {
  for (;;) {
    named due;
    int64_t now = egi_real_us();
    pthread_mutex_lock(&hub->base.listen_mutex);
    egi_watch *w = hub->base.watches;
    while (w != NULL && (w->topic == NULL || w->look_us > now))
      w = w->next;
    if (w != NULL) {
      name(&due, w);
      w->look_us = now + LOOK_AFTER_US;
    }
    pthread_mutex_unlock(&hub->base.listen_mutex);
    if (w == NULL)
      return true;
    PGresult *result;
    eg_bytes key = {due.key, due.len};
    if (mark_row(hub, wire, due.name, key, &result) != EG_OK)
      return false;
    bool good = PQntuples(result) == 1;
    pthread_mutex_lock(&hub->base.listen_mutex);
    w = find(hub, &due);
    if (w != NULL && good)
      tell_row(w, result, 0);
    pthread_mutex_unlock(&hub->base.listen_mutex);
    PQclear(result);
    if (!good)
      return false;
  }
}

/* When the next look is due.  With the listen mutex. */
static int64_t next_look(const egi_pg_hub *hub) {
  int64_t due = egi_real_us() + LOOK_AFTER_US;
  for (const egi_watch *w = hub->base.watches; w != NULL; w = w->next)
    due = nearer(due, w->look_us);
  return due;
}

/* ----------------------------------------------------------- listening -- */

static bool say(egi_pg_hub *hub, egi_pg_wire *wire, const char *verb,
                const char *channel) {
  char text[64];
  PGresult *result = NULL;
  int64_t until = egi_real_us() + hub->options.timeout_us;
  snprintf(text, sizeof text, "%s \"%s\"", verb, channel);
  bool good = egi_pg_run_text(wire, text, until, &result, NULL) == EG_OK &&
              PQresultStatus(result) == PGRES_COMMAND_OK;
  PQclear(result);
  return good;
}

/* The first topic that is not heard, or that nobody needs.  With the listen
** mutex. */
static egi_topic **odd_topic(egi_server *server) {
  egi_topic **link = &server->topics;
  while (*link != NULL && (*link)->state == EGI_HEARD && (*link)->watches > 0)
    link = &(*link)->next;
  return link;
}

static bool update_topics(egi_pg_hub *hub, egi_pg_wire *wire) {
  egi_server *server = &hub->base;
  for (;;) {
    char channel[EGI_PG_CHANNEL];
    pthread_mutex_lock(&server->listen_mutex);
    egi_topic **link = odd_topic(server), *topic = *link;
    bool gone = topic != NULL && topic->watches == 0;
    if (topic != NULL) {
      memcpy(channel, topic->name, topic->len + 1);
      topic->state = EGI_ASKED;
    }
    if (gone)
      egi_topic_remove(server, link);
    pthread_mutex_unlock(&server->listen_mutex);
    if (topic == NULL)
      return true;
    if (!hub->polls && !say(hub, wire, gone ? "UNLISTEN" : "LISTEN", channel))
      return false;
    if (!gone)
      egi_topic_heard(server, egi_text(channel));
  }
}

/* Until there is something to read, or to do. */
static void rest(egi_pg_hub *hub, const egi_pg_wire *wire) {
  struct pollfd fds[2] = {{.fd = hub->base.kick, .events = POLLIN},
                          {.fd = PQsocket(wire->conn), .events = POLLIN}};
  pthread_mutex_lock(&hub->base.listen_mutex);
  int64_t left = next_look(hub) - egi_real_us();
  if (hub->polls && hub->base.watches != NULL)
    left = nearer(left, POLL_US + egi_backoff_us(4));
  pthread_mutex_unlock(&hub->base.listen_mutex);
  poll(fds, 2, left > 0 ? (int)((left + 999) / 1000) : 0);
}

/* Polling: everybody's time has come. */
static void hasten(egi_pg_hub *hub) {
  pthread_mutex_lock(&hub->base.listen_mutex);
  for (egi_watch *w = hub->base.watches; hub->polls && w != NULL; w = w->next)
    w->look_us = 0;
  pthread_mutex_unlock(&hub->base.listen_mutex);
}

/* Listens until the connection breaks or there is nothing more to do. */
static void listen_to(egi_pg_hub *hub, egi_pg_wire *wire) {
  bool good = true;
  while (good) {
    egi_drain_fd(hub->base.kick);
    if (egi_listener_ends(&hub->base))
      return;
    good = update_topics(hub, wire) && look_at_due(hub, wire) &&
           hear(hub, wire);
    if (!good)
      return;
    rest(hub, wire);
    good = hear(hub, wire);
    hasten(hub);
  }
}

/* Does a notification that goes another way come to this connection?  One from
** itself would be told by any pooler. */
static bool passes_on(egi_pg_hub *hub, egi_pg_wire *wire) {
  char channel[EGI_PG_CHANNEL];
  PGnotify *message = NULL;
  PGresult *result;
  egi_pg_call call = {.statement = EGI_PG_NOTIFY};
  int64_t until = egi_real_us() + PROBE_US;
  snprintf(channel, sizeof channel, "eg_probe_%x_%x", (unsigned)getpid(),
           (unsigned)(egi_real_us() & 0xfffffff));
  if (!say(hub, wire, "LISTEN", channel))
    return false;
  egi_pg_add(&call, channel, strlen(channel));
  egi_pg_add(&call, "?", 1);
  if (egi_pg_ask(hub, &call, until, &result, NULL) != EG_OK)
    return false;
  PQclear(result);
  while (message == NULL && egi_real_us() < until) {
    struct pollfd fd = {.fd = PQsocket(wire->conn), .events = POLLIN};
    poll(&fd, 1, 20);
    if (PQconsumeInput(wire->conn) == 0)
      return false;
    message = PQnotifies(wire->conn);
  }
  PQfreemem(message);
  say(hub, wire, "UNLISTEN", channel);
  return message != NULL;
}

void egi_pg_listen(egi_server *server) {
  egi_pg_hub *hub = (egi_pg_hub *)server;
  const char *direct = hub->options.listen;
  unsigned failures = 0;
  bool tried = false;
  while (!egi_listener_ends(server)) {
    egi_pg_wire *wire = NULL;
    const char *url = *direct != '\0' ? direct : hub->options.url;
    int64_t until = egi_real_us() + hub->options.timeout_us;
    if (egi_pg_connect(hub, url, until, &wire, NULL) != EG_OK) {
      egi_listener_rest(server, failures++);
      continue;
    }
    failures = 0;
    if (!tried && hub->pooled && *direct == '\0')
      hub->polls = !passes_on(hub, wire);
    tried = true;
    listen_to(hub, wire);
    egi_pg_wire_free(hub, wire);
    egi_listener_want_all(server);
  }
}

/* ------------------------------------------------------------ watching -- */

/* Somebody waits, says the row from here on; and has it changed before? */
static eg_status mark_first(egi_watch *watch, eg_error *error) {
  egi_pg *pg = (egi_pg *)watch->store;
  egi_pg_call call = {.statement = EGI_PG_MARK};
  PGresult *result;
  egi_pg_add(&call, pg->name, strlen(pg->name));
  egi_pg_add(&call, watch->key, watch->key_len);
  eg_status status = egi_pg_ask(pg->hub, &call, egi_real_us() + pg->timeout_us,
                                &result, error);
  if (status != EG_OK)
    return status;
  pthread_mutex_lock(&pg->hub->base.listen_mutex);
  tell_row(watch, result, 0);
  pthread_mutex_unlock(&pg->hub->base.listen_mutex);
  PQclear(result);
  return EG_OK;
}

eg_status egi_pg_watch(egi_store *store, eg_bytes key, const egi_seen *seen,
                       egi_watch **watch_out, int *fd, eg_error *error) {
  egi_pg *pg = (egi_pg *)store;
  egi_watch *watch = egi_watch_new(store, key, &pg->env);
  if (watch == NULL)
    return egi_remote_fail(error, EG_NOMEM, 0,
                           "not enough memory for a watch");
  watch->told = seen->version;
  watch->look_us = egi_real_us() + LOOK_AFTER_US;
  eg_status status = egi_watch_subscribe(
      &pg->hub->base, watch, egi_text(pg->channel),
      egi_real_us() + pg->timeout_us, error);
  if (status != EG_OK) {
    egi_watch_free(watch);
    return status;
  }
  status = mark_first(watch, error);
  if (status != EG_OK) {
    egi_pg_unwatch(watch);
    return status;
  }
  *watch_out = watch;
  if (fd != NULL)
    *fd = watch->fd;
  return EG_OK;
}

eg_status egi_pg_wait(egi_watch *watch, int64_t deadline_us, eg_error *error) {
  (void)error;
  return egi_watch_wait(watch, deadline_us);
}

void egi_pg_unwatch(egi_watch *watch) {
  egi_watch_leave(&((egi_pg *)watch->store)->hub->base, watch);
}
