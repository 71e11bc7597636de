/* SPDX-License-Identifier: MIT
** The web's side: routes, what may be asked by whom, and the headers of every
** answer.  Read-only: the one thing that is taken is a token.
*/
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/serve.h"

typedef enum MHD_Result result;

enum { CLIENTS = 900, IDLE_SECONDS = 30, MEMORY = 16 * 1024 };

/* ----------------------------------------------------------- responses -- */

/* Nothing but our own files runs or is loaded; text never becomes markup, by
** the browser's own word (trusted types). */
static const char policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'";

/* Without any referrer a form would be sent with Origin: null. */
static void add_headers(struct MHD_Response *response, const char *type) {
  static const char *const headers[][2] = {
      {"Content-Security-Policy", policy},
      {"X-Content-Type-Options", "nosniff"},
      {"X-Frame-Options", "DENY"},
      {"Referrer-Policy", "same-origin"},
      {"Cross-Origin-Resource-Policy", "same-origin"},
      {"Cross-Origin-Opener-Policy", "same-origin"},
      {"Cache-Control", "no-store"}};
  for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
    MHD_add_response_header(response, headers[i][0], headers[i][1]);
  MHD_add_response_header(response, "Content-Type", type);
}

struct MHD_Response *ec_respond(ec_text *text, const char *type) {
  struct MHD_Response *response = NULL;
  if (!text->broken && text->at != NULL)
    response = MHD_create_response_from_buffer(text->len, text->at,
                                               MHD_RESPMEM_MUST_FREE);
  if (response == NULL) {
    ec_text_free(text);
    return NULL;
  }
  *text = (ec_text){0};
  add_headers(response, type);
  return response;
}

/* The response is the caller's still, unless it is given away. */
static result queue(struct MHD_Connection *connection, unsigned code,
                    struct MHD_Response *response, bool give_away) {
  if (response == NULL)
    return MHD_NO;
  result done = MHD_queue_response(connection, code, response);
  if (give_away)
    MHD_destroy_response(response);
  return done;
}

static result say(struct MHD_Connection *connection, unsigned code,
                  const char *why) {
  ec_text text = {0};
  ec_text_say(&text, "{\"error\":");
  ec_text_quote(&text, eg_str(why));
  ec_text_say(&text, "}\n");
  struct MHD_Response *response = ec_respond(&text, "application/json");
  if (response != NULL && code == MHD_HTTP_METHOD_NOT_ALLOWED)
    MHD_add_response_header(response, "Allow", "GET, HEAD");
  if (response != NULL && code == MHD_HTTP_UNAUTHORIZED)
    MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
  return queue(connection, code, response, true);
}

static result send_file(struct MHD_Connection *connection, unsigned code,
                        const ec_file *file) {
  struct MHD_Response *response = MHD_create_response_from_buffer(
      *file->size, (void *)file->data, MHD_RESPMEM_PERSISTENT);
  if (response != NULL)
    add_headers(response, file->type);
  return queue(connection, code, response, true);
}

/* --------------------------------------------------------------- token -- */

/* The page goes on to / by itself: a redirection would leave out the cookie
** where the link stood on another site's page. */
static result welcome(ec_request *r) {
  char cookie[160];
  const ec_file *file = ec_find_file("/welcome");
  struct MHD_Response *response = MHD_create_response_from_buffer(
      *file->size, (void *)file->data, MHD_RESPMEM_PERSISTENT);
  if (response == NULL)
    return MHD_NO;
  add_headers(response, file->type);
  snprintf(cookie, sizeof cookie,
           "eguard=%s; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000",
           r->server->access.session);
  MHD_add_response_header(response, "Set-Cookie", cookie);
  return queue(r->connection, MHD_HTTP_OK, response, true);
}

static result ask_for_token(const ec_request *r, unsigned code) {
  bool form = r->server->access.form;
  return send_file(r->connection, code,
                   ec_find_file(form ? "/enter" : "/closed"));
}

/* The link's code is good once. */
static result follow_link(ec_request *r, bool head) {
  ec_access *access = &r->server->access; /* only the web's thread uses it */
  const char *code = NULL;
  size_t n = 0;
  MHD_lookup_connection_value_n(r->connection, MHD_GET_ARGUMENT_KIND, "code",
                                4, &code, &n);
  if (head || code == NULL || !ec_same_secret(access->link, code, n))
    return ask_for_token(r, code != NULL && !head ? MHD_HTTP_FORBIDDEN
                                                  : MHD_HTTP_OK);
  access->link[0] = '\0';
  return welcome(r);
}

static result take_form(ec_request *r) {
  const ec_access *access = &r->server->access;
  bool right = false;
  if (access->form && r->form_len < sizeof r->form &&
      strncmp(r->form, "token=", 6) == 0) {
    char *given = r->form + 6;
    for (char *at = given; *at != '\0'; at++)
      *at = *at == '+' ? ' ' : *at;
    size_t n = MHD_http_unescape(given);
    right = ec_same_secret(access->token, given, n);
  }
  return right ? welcome(r) : ask_for_token(r, MHD_HTTP_FORBIDDEN);
}

/* ----------------------------------------------------------------- api -- */

/* What the collector published, if it is not too old; else after its next
** round. */
static result send_published(ec_request *r) {
  enum { FRESH_US = 1000000 };
  ec_server *server = r->server;
  struct MHD_Response *response;
  result done = MHD_YES;
  pthread_mutex_lock(&server->mutex);
  server->asked_us = eg_now_us();
  response = r->what == EC_ASK_STATE ? server->state : server->runs;
  if (server->stopping) {
    done = MHD_NO;
  } else if (!r->asked && (response == NULL ||
                           server->published_us < eg_now_us() - FRESH_US)) {
    r->asked = true;
    ec_put(&server->waiting, r);
    ec_wake_collector(server);
    MHD_suspend_connection(r->connection);
  } else {
    done = queue(r->connection, MHD_HTTP_OK, response, false);
  }
  pthread_mutex_unlock(&server->mutex);
  return done;
}

static result ask_clerk(ec_request *r) {
  ec_server *server = r->server;
  if (r->asked) { /* and it has answered */
    struct MHD_Response *response = r->answer;
    r->answer = NULL;
    return response != NULL
               ? queue(r->connection, r->code, response, true)
               : say(r->connection, MHD_HTTP_INTERNAL_SERVER_ERROR,
                     "not enough memory");
  }
  r->asked = true;
  pthread_mutex_lock(&server->mutex);
  bool stopping = server->stopping;
  if (!stopping) {
    r->next = NULL;
    *server->asking_end = r;
    server->asking_end = &r->next;
    pthread_cond_signal(&server->ask);
    MHD_suspend_connection(r->connection);
  }
  pthread_mutex_unlock(&server->mutex);
  return stopping ? MHD_NO : MHD_YES;
}

static result send_key(ec_request *r) {
  const char *key = NULL;
  size_t n = 0;
  MHD_lookup_connection_value_n(r->connection, MHD_GET_ARGUMENT_KIND, "key", 3,
                                &key, &n);
  if (key == NULL || n == 0 || n > EG_KEY_MAX)
    return say(r->connection, MHD_HTTP_BAD_REQUEST,
               "/api/key?key=KEY: a key has 1 to 512 bytes");
  memcpy(r->key, key, n);
  r->key_len = n;
  return ask_clerk(r);
}

/* In the form that is asked for. */
static result send_metrics(ec_request *r) {
  const char *accept = MHD_lookup_connection_value(r->connection,
                                                   MHD_HEADER_KIND, "Accept");
  bool open = accept != NULL &&
              strstr(accept, "application/openmetrics-text") != NULL;
  r->what = open ? EC_ASK_OPENMETRICS : EC_ASK_METRICS;
  return ask_clerk(r);
}

static result route_api(ec_request *r, const char *path) {
  if (strcmp(path, "state") == 0 || strcmp(path, "runs") == 0) {
    r->what = path[0] == 's' ? EC_ASK_STATE : EC_ASK_RUNS;
    return send_published(r);
  }
  if (strcmp(path, "key") == 0) {
    r->what = EC_ASK_KEY;
    return send_key(r);
  }
  if (strcmp(path, "events") == 0)
    return ec_listen_to_events(r);
  return say(r->connection, MHD_HTTP_NOT_FOUND,
             "there are /api/state, /api/runs, /api/key and /api/events");
}

/* -------------------------------------------------------------- routes -- */

/* What the page that asks for a token is made of. */
static bool is_for_all(const char *url) {
  return strcmp(url, "/page.css") == 0 || strcmp(url, "/icon.svg") == 0;
}

static result route(ec_request *r, const char *url, const char *method) {
  bool head = strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
  bool post = strcmp(method, MHD_HTTP_METHOD_POST) == 0;
  ec_access *access = &r->server->access;
  ec_verdict verdict = ec_access_judge(access, r->connection);
  if (verdict == EC_WRONG_HOST)
    return say(r->connection, MHD_HTTP_MISDIRECTED_REQUEST,
               "this name is not known here; if it is yours, start eguard "
               "serve with --host=NAME");
  if (verdict == EC_WRONG_SITE)
    return say(r->connection, MHD_HTTP_FORBIDDEN,
               "another site's page may not ask here");
  if (access->guarded && strcmp(url, "/login") == 0)
    return post ? take_form(r) : follow_link(r, head);
  if (verdict == EC_STRANGER && strcmp(url, "/") == 0)
    return ask_for_token(r, MHD_HTTP_UNAUTHORIZED);
  if (verdict == EC_STRANGER && !is_for_all(url))
    return say(r->connection, MHD_HTTP_UNAUTHORIZED, "a token is needed");
  if (strncmp(url, "/api/", 5) == 0)
    return route_api(r, url + 5);
  if (strcmp(url, "/metrics") == 0)
    return send_metrics(r);
  const ec_file *file = ec_find_file(url);
  if (file != NULL && strchr(url, '.') == NULL && strcmp(url, "/") != 0)
    file = NULL; /* not by itself */
  return file != NULL
             ? send_file(r->connection, MHD_HTTP_OK, file)
             : say(r->connection, MHD_HTTP_NOT_FOUND,
                   "there is nothing here; there are /, /api/ and /metrics");
}

static bool is_allowed(const ec_server *server, const char *url,
                       const char *method) {
  return strcmp(method, MHD_HTTP_METHOD_GET) == 0 ||
         strcmp(method, MHD_HTTP_METHOD_HEAD) == 0 ||
         (server->access.guarded && strcmp(url, "/login") == 0 &&
          strcmp(method, MHD_HTTP_METHOD_POST) == 0);
}

static void take_body(ec_request *r, const char *data, size_t n) {
  size_t room = sizeof r->form - r->form_len;
  if (n < room) {
    memcpy(r->form + r->form_len, data, n);
    r->form_len += n;
  } else {
    r->form_len = sizeof r->form; /* too long: it is none of ours */
  }
}

static result handle(void *ctx, struct MHD_Connection *connection,
                     const char *url, const char *method, const char *version,
                     const char *data, size_t *data_len, void **place) {
  ec_server *server = ctx;
  ec_request *r = *place;
  (void)version;
  if (r == NULL) {
    r = calloc(1, sizeof *r);
    if (r == NULL)
      return MHD_NO;
    r->server = server;
    r->connection = connection;
    *place = r;
    if (!is_allowed(server, url, method))
      return say(connection, MHD_HTTP_METHOD_NOT_ALLOWED,
                 "nothing can be changed here");
    return MHD_YES;
  }
  if (*data_len > 0) {
    take_body(r, data, *data_len);
    *data_len = 0;
    return MHD_YES;
  }
  return route(r, url, method);
}

static void completed(void *ctx, struct MHD_Connection *connection,
                      void **place, enum MHD_RequestTerminationCode how) {
  ec_server *server = ctx;
  ec_request *r = *place;
  (void)connection;
  (void)how;
  if (r == NULL)
    return;
  pthread_mutex_lock(&server->mutex);
  if (r->listens) {
    ec_take(&server->idle, r);
    server->listeners--;
  } else {
    ec_take(&server->waiting, r);
  }
  pthread_mutex_unlock(&server->mutex);
  if (r->answer != NULL)
    MHD_destroy_response(r->answer);
  free(r);
  *place = NULL;
}

__attribute__((format(printf, 2, 0))) static void
log_line(void *ctx, const char *format, va_list args) {
  char line[300];
  (void)ctx;
  vsnprintf(line, sizeof line, format, args);
  line[strcspn(line, "\n")] = '\0';
  ec_detail("%s", line);
}

struct MHD_Daemon *ec_web_start(ec_server *server, int fd) {
  return MHD_start_daemon(
      MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME |
          MHD_USE_ERROR_LOG,
      0, NULL, NULL, handle, server, MHD_OPTION_EXTERNAL_LOGGER, log_line,
      NULL, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED,
      completed, server, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CLIENTS,
      MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY, MHD_OPTION_END);
}
