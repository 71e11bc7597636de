/* SPDX-License-Identifier: MIT
** The clerk: what one client asks of the store, off the web's thread: a key
** with its record, its history and the commands for it; the metrics.
*/
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/serve.h"

enum { HISTORY_SHOWN = 200 };

/* ------------------------------------------------------------- commands -- */

/* "eguard WORDS --store=... --name=... [--token=N] KEY" */
static void add_command(ec_text *text, const ec_request *r, const char *words,
                        uint64_t token) {
  const ec_server *server = r->server;
  eg_bytes key = {r->key, r->key_len};
  ec_text_say(text, "eguard %s --store=", words);
  ec_text_shell(text, eg_str(server->store));
  if (server->options->name != NULL) {
    ec_text_say(text, " --name=");
    ec_text_shell(text, eg_str(server->options->name));
  }
  if (token != 0)
    ec_text_say(text, " --token=%" PRIu64, token);
  ec_text_say(text, r->key[0] == '-' ? " -- " : " ");
  ec_text_shell(text, key);
}

static void print_command(ec_json *json, const char *name, const ec_request *r,
                          const char *words, uint64_t token) {
  ec_text text = {0};
  add_command(&text, r, words, token);
  if (text.broken)
    ec_json_null(json, name);
  else
    ec_json_bytes(json, name, (eg_bytes){text.at, text.len});
  ec_text_free(&text);
}

/* No command line has a NUL. */
static void print_commands(ec_json *json, const ec_request *r,
                           const eg_record *record) {
  ec_json_open(json, "commands", '{');
  if (memchr(r->key, '\0', r->key_len) == NULL) {
    if (record->locked)
      print_command(json, "release", r, "release --force", record->token);
    print_command(json, "reset", r, "reset", 0);
    print_command(json, "show", r, "show", 0);
    print_command(json, "history", r, "history", 0);
  }
  ec_json_close(json, '}');
}

/* ------------------------------------------------------------ one key -- */

static bool print_past(void *ctx, const eg_past *past) {
  ec_json_past(ctx, past);
  return true;
}

static eg_status print_key(ec_json *json, ec_request *r, eg_error *error) {
  eg_record record;
  eg_bytes key = {r->key, r->key_len};
  eg_status status = eg_fetch(r->server->guard, key, &record, error);
  if (status == EG_OK || status == EG_NOTFOUND || status == EG_CORRUPT) {
    record.key = key;
    record.corrupt = status == EG_CORRUPT;
    ec_json_open(json, NULL, '{');
    ec_json_integer(json, "nowMs", eg_wall_us() / 1000);
    ec_json_bool(json, "found", status != EG_NOTFOUND);
    ec_json_name(json, eg_str("record"));
    ec_json_record(json, &record);
    print_commands(json, r, &record);
    ec_json_open(json, "history", '[');
    eg_status told = eg_history(r->server->guard, key, HISTORY_SHOWN,
                                print_past, json, NULL);
    ec_json_close(json, ']');
    ec_json_bool(json, "remembered", told != EG_UNSUPPORTED);
    ec_json_close(json, '}');
  }
  eg_record_free(&record);
  return status;
}

static void say_trouble(ec_request *r, eg_status status,
                        const eg_error *error) {
  ec_text text = {0};
  r->code = MHD_HTTP_SERVICE_UNAVAILABLE;
  ec_text_say(&text, "{\"error\":");
  ec_text_quote(&text,
                eg_str(error->message[0] != '\0' ? error->message
                                                 : eg_status_text(status)));
  ec_text_say(&text, "}\n");
  r->answer = ec_respond(&text, "application/json");
}

static void answer_key(ec_request *r) {
  ec_text text = {0};
  ec_json json;
  eg_error error = {0};
  FILE *to = open_memstream(&text.at, &text.len);
  if (to == NULL)
    return;
  ec_json_begin(&json, to);
  eg_status status = print_key(&json, r, &error);
  bool good = ec_json_end(&json) == 0;
  good = fclose(to) == 0 && good;
  if (!good || (EG_IS_FAILURE(status) && status != EG_CORRUPT)) {
    ec_text_free(&text);
    if (good)
      say_trouble(r, status, &error);
    return;
  }
  r->code = status == EG_NOTFOUND ? MHD_HTTP_NOT_FOUND : MHD_HTTP_OK;
  r->answer = ec_respond(&text, "application/json");
}

/* ------------------------------------------------------------- metrics -- */

typedef struct scrape {
  ec_text text; /* the last one, and when */
  int64_t at_us;
} scrape;

static bool add_piece(void *ctx, const void *data, size_t n) {
  ec_text_add(ctx, data, n);
  return true;
}

/* Many who ask at once are given the same: each is a scan of the store. */
static void answer_metrics(ec_request *r, scrape last[2]) {
  enum { SAME_US = 250000 };
  ec_text copy = {0};
  eg_error error = {0};
  bool open = r->what == EC_ASK_OPENMETRICS;
  eg_metrics_format format = open ? EG_METRICS_OPENMETRICS : EG_METRICS_TEXT;
  scrape *same = &last[open];
  if (same->text.len == 0 || same->text.broken ||
      same->at_us + SAME_US < eg_now_us()) {
    same->text.len = 0;
    eg_status status = eg_write_metrics(r->server->guard, EG_METRICS_TOP,
                                        format, add_piece, &same->text,
                                        &error);
    if (status != EG_OK) {
      same->text.len = 0;
      say_trouble(r, status, &error);
      return;
    }
    same->at_us = eg_now_us();
  }
  ec_text_add(&copy, same->text.at, same->text.len);
  copy.broken = copy.broken || same->text.broken;
  r->code = MHD_HTTP_OK;
  r->answer = ec_respond(&copy, eg_metrics_type(format));
}

/* -------------------------------------------------------------- thread -- */

void *ec_answer(void *arg) {
  ec_server *server = arg;
  scrape last[2] = {{.at_us = 0}};
  pthread_mutex_lock(&server->mutex);
  while (!server->stopping) {
    ec_request *r = server->asking;
    if (r == NULL) {
      pthread_cond_wait(&server->ask, &server->mutex);
      continue;
    }
    server->asking = r->next;
    if (r->next == NULL)
      server->asking_end = &server->asking;
    pthread_mutex_unlock(&server->mutex);
    r->code = MHD_HTTP_INTERNAL_SERVER_ERROR;
    if (r->what == EC_ASK_KEY)
      answer_key(r);
    else
      answer_metrics(r, last);
    pthread_mutex_lock(&server->mutex);
    /* a suspended connection cannot go away: the request is there */
    MHD_resume_connection(r->connection);
  }
  pthread_mutex_unlock(&server->mutex);
  ec_text_free(&last[0].text);
  ec_text_free(&last[1].text);
  return NULL;
}
