/* SPDX-License-Identifier: MIT
** The collector: one scan of the store for all who look, and what it published
** of it.
**
** It rests as long as nobody listens and nothing was asked for lately.  Else
** it scans as often as a third of its time allows, four times a second at
** most; so a store that needs two seconds for a scan is scanned every six.
** The tables are its own: what others see is text.
*/
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/serve.h"

#define OFTEN_US INT64_C(250000)
#define SELDOM_US INT64_C(30000000)
#define TICK_US INT64_C(2000000)
#define HOUR_US INT64_C(3600000000)
#define KEEP_GOING_US INT64_C(5000000)  /* after a request */
#define ASK_HISTORY_US INT64_C(3000000) /* after the last run that ended */

/* More than that is a reason to load all of it again. */
enum { MANY_ROWS = 2000 };

typedef struct collecting {
  ec_server *server;
  ec_known rows;
  ec_runs runs;
  ec_text changed, gone, fresh; /* of this round */
  size_t changes;
  uint64_t by_status[EG_RUN_COUNT], held, only_locked, corrupt;
  int64_t scan_us; /* how long it took */
  int64_t ended_us, told_us;
  bool first;
  char trouble[300]; /* why it could not be scanned; "" */
  bool was_trouble;
  unsigned listeners;
} collecting;

/* ------------------------------------------------------------ one round -- */

static void note_ended(collecting *c, const eg_record *record) {
  c->ended_us = eg_now_us();
  if (!c->runs.unkept || record->last_us < eg_wall_us() - HOUR_US)
    return;
  eg_past past = {.key = record->key,
                  .status = record->status == EG_RUN_COMPLETED  ? EG_OK
                            : record->status == EG_RUN_TIMEDOUT ? EG_TIMEOUT
                                                                : EG_FAILED,
                  .start_us = record->last_us - record->duration_us,
                  .duration_us = record->duration_us};
  ec_runs_add(&c->runs, &past, &c->fresh);
}

static bool see(void *ctx, const eg_record *record) {
  collecting *c = ctx;
  bool ended;
  uint32_t waiters = record->locked
                         ? ec_waiters_of(&c->server->waiters, record->key)
                         : 0;
  const ec_known_row *row = ec_known_see(&c->rows, record, waiters, &ended);
  if (record->corrupt)
    c->corrupt++;
  else if (!record->only_locked)
    c->by_status[record->status]++;
  c->held += record->locked;
  c->only_locked += record->only_locked;
  if (row != NULL && c->changes++ < MANY_ROWS) {
    if (c->changed.len > 0)
      ec_text_add(&c->changed, ",", 1);
    ec_text_add(&c->changed, row->json, row->json_len);
  }
  if (ended && record->last_us > 0)
    note_ended(c, record);
  return !c->server->stopping; /* seen late is early enough */
}

static bool scan(collecting *c) {
  static const eg_bytes all = {"", 0};
  eg_error error = {0};
  int64_t before = eg_now_us();
  memset(c->by_status, 0, sizeof c->by_status);
  c->held = c->only_locked = c->corrupt = 0;
  c->changes = 0;
  c->changed.len = c->gone.len = c->fresh.len = 0;
  c->rows.round++;
  ec_waiters_look(&c->server->waiters);
  eg_status status = eg_scan_held(c->server->guard, all, see, c, &error);
  c->scan_us = eg_now_us() - before;
  if (status == EG_OK)
    c->changes += ec_known_sweep(&c->rows, &c->gone);
  if (status == EG_OK && (c->first || before < c->ended_us + ASK_HISTORY_US))
    ec_runs_ask(&c->runs, c->server->guard, &c->fresh);
  ec_runs_forget(&c->runs, eg_wall_us() - HOUR_US);
  c->trouble[0] = '\0';
  if (status != EG_OK)
    snprintf(c->trouble, sizeof c->trouble, "%s",
             error.message[0] != '\0' ? error.message
                                      : eg_status_text(status));
  return status == EG_OK;
}

/* ----------------------------------------------------------- publishing -- */

/* What state and events begin with. */
static void add_head(const collecting *c, ec_text *text, uint64_t number) {
  ec_text_say(text, "{\"number\":%" PRIu64 ",\"nowMs\":%" PRId64, number,
              eg_wall_us() / 1000);
  ec_text_say(text, ",\"scanMs\":%" PRId64 ".%03" PRId64, c->scan_us / 1000,
              c->scan_us % 1000);
  ec_text_say(text,
              ",\"totalRecords\":%" PRIu64 ",\"held\":%" PRIu64
              ",\"onlyLocked\":%" PRIu64 ",\"corrupt\":%" PRIu64
              ",\"byStatus\":[",
              (uint64_t)c->rows.count - c->only_locked, c->held,
              c->only_locked, c->corrupt);
  for (int i = 0; i < EG_RUN_COUNT; i++)
    ec_text_say(text, "%s%" PRIu64, i > 0 ? "," : "", c->by_status[i]);
  ec_text_say(text, "],\"listeners\":%u,\"trouble\":", c->listeners);
  if (c->trouble[0] != '\0')
    ec_text_quote(text, eg_str(c->trouble));
  else
    ec_text_say(text, "null");
}

static struct MHD_Response *state_of(const collecting *c, uint64_t number) {
  ec_text text = {0};
  const ec_server *server = c->server;
  add_head(c, &text, number);
  ec_text_say(&text, ",\"version\":\"%s\",\"store\":", EG_VERSION);
  ec_text_quote(&text, eg_str(server->store));
  ec_text_say(&text, ",\"name\":");
  if (server->options->name != NULL)
    ec_text_quote(&text, eg_str(server->options->name));
  else
    ec_text_say(&text, "null");
  ec_text_say(&text, ",\"waitersKnown\":%s,\"columns\":%s,\"rows\":[",
              server->waiters.dir >= 0 ? "true" : "false", ec_known_columns);
  for (size_t i = 0, n = 0; i < c->rows.count; i++) {
    const ec_known_row *row = c->rows.all[i];
    if (row->json == NULL)
      continue; /* there was no memory: the next round has it */
    if (n++ > 0)
      ec_text_add(&text, ",", 1);
    ec_text_add(&text, row->json, row->json_len);
  }
  ec_text_say(&text, "]}\n");
  return ec_respond(&text, "application/json");
}

static struct MHD_Response *runs_of(const collecting *c, uint64_t number) {
  ec_text text = {0};
  ec_runs_print(&c->runs, &text);
  ec_text_say(&text, ",\"number\":%" PRIu64 ",\"nowMs\":%" PRId64 "}\n",
              number, eg_wall_us() / 1000);
  return ec_respond(&text, "application/json");
}

static void add_change(const collecting *c, ec_text *text, uint64_t number) {
  add_head(c, text, number);
  ec_text_say(text, ",\"rows\":[");
  ec_text_add(text, c->changed.at, c->changed.len);
  ec_text_say(text, "],\"gone\":[");
  ec_text_add(text, c->gone.at, c->gone.len);
  ec_text_say(text, "],\"runs\":[");
  ec_text_add(text, c->fresh.at, c->fresh.len);
  ec_text_say(text, "]}");
}

static void replace(struct MHD_Response **old, struct MHD_Response *new) {
  if (new == NULL)
    return; /* no memory: the old one is better than none */
  if (*old != NULL)
    MHD_destroy_response(*old);
  *old = new;
}

/* All of it: the texts are made before the mutex is taken. */
static void publish(collecting *c) {
  ec_server *server = c->server;
  ec_text event = {0};
  uint64_t number = server->number + 1; /* only we change it */
  bool many = c->changes > MANY_ROWS || c->fresh.len > EC_EVENT_BYTES / 4;
  bool trouble = c->trouble[0] != '\0';
  bool news = c->changes > 0 || c->fresh.len > 0 || c->first ||
              trouble != c->was_trouble;
  bool tick = eg_now_us() >= c->told_us + TICK_US;
  struct MHD_Response *state = NULL, *runs = NULL;
  if (news)
    state = state_of(c, number);
  if (c->fresh.len > 0 || c->first)
    runs = runs_of(c, number);
  if (news && !many) {
    add_change(c, &event, number);
  } else if (news || tick) {
    add_head(c, &event, number);
    ec_text_say(&event, "}");
  }
  pthread_mutex_lock(&server->mutex);
  replace(&server->state, state);
  replace(&server->runs, runs);
  if (event.len > 0) {
    ec_tell_all(server, !news ? "tick" : many ? "reload" : "change", &event);
    c->told_us = eg_now_us();
  }
  server->published_us = eg_now_us();
  ec_resume(&server->waiting);
  pthread_mutex_unlock(&server->mutex);
  ec_text_free(&event);
  c->first = false;
  c->was_trouble = trouble;
}

/* -------------------------------------------------------------- thread -- */

void ec_wake_collector(ec_server *server) {
  pthread_cond_signal(&server->look);
}

static void sleep_until(ec_server *server, int64_t steady_us) {
  struct timespec at = {(time_t)(steady_us / 1000000),
                        (long)(steady_us % 1000000) * 1000};
  pthread_cond_timedwait(&server->look, &server->mutex, &at);
}

/* Under the mutex.  Until the next round; false: it is time to end. */
static bool rest(const collecting *c, int64_t before) {
  ec_server *server = c->server;
  int64_t pause = c->scan_us * 3;
  pause = pause < OFTEN_US ? OFTEN_US : pause > SELDOM_US ? SELDOM_US : pause;
  while (!server->stopping) {
    int64_t now = eg_now_us();
    bool wanted = server->listeners > 0 || server->waiting != NULL ||
                  now < server->asked_us + KEEP_GOING_US;
    if (wanted && now >= before + pause)
      return true;
    if (wanted)
      sleep_until(server, before + pause);
    else
      pthread_cond_wait(&server->look, &server->mutex);
  }
  return false;
}

void *ec_collect(void *arg) {
  ec_server *server = arg;
  collecting c = {.server = server, .first = true};
  bool goes_on = true;
  while (goes_on) {
    int64_t before = eg_now_us();
    scan(&c);
    publish(&c);
    pthread_mutex_lock(&server->mutex);
    goes_on = rest(&c, before);
    c.listeners = server->listeners;
    pthread_mutex_unlock(&server->mutex);
  }
  ec_known_free(&c.rows);
  ec_runs_free(&c.runs);
  ec_text_free(&c.changed);
  ec_text_free(&c.gone);
  ec_text_free(&c.fresh);
  return NULL;
}
