/* SPDX-License-Identifier: MIT
** Server-sent events: one copy of each for all who listen.
**
** A listener is a cursor: the event that it gets next, and how much of that it
** has.  With nothing to send it is suspended, and stands in the list `idle`;
** whoever adds an event resumes that list.  Both happen under the mutex, so
** that no event falls in between.
*/
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/serve.h"

void ec_put(ec_request **list, ec_request *request) {
  request->before = NULL;
  request->next = *list;
  if (*list != NULL)
    (*list)->before = request;
  *list = request;
  request->listed = true;
}

void ec_take(ec_request **list, ec_request *request) {
  if (!request->listed)
    return;
  if (request->before != NULL)
    request->before->next = request->next;
  else
    *list = request->next;
  if (request->next != NULL)
    request->next->before = request->before;
  request->listed = false;
}

void ec_resume(ec_request **list) {
  while (*list != NULL) {
    ec_request *request = *list;
    ec_take(list, request);
    MHD_resume_connection(request->connection);
  }
}

/* ------------------------------------------------------------- telling -- */

static ec_event *event_at(ec_server *server, uint64_t number) {
  return &server->events[number % EC_EVENTS];
}

static void drop_oldest(ec_server *server) {
  ec_event *event = event_at(server, server->oldest++);
  server->event_bytes -= event->len;
  free(event->text);
  *event = (ec_event){0};
}

void ec_tell_all(ec_server *server, const char *kind, ec_text *data) {
  ec_text text = {0};
  uint64_t number = server->number + 1;
  ec_text_say(&text, "event: %s\nid: %" PRIu64 "\ndata: ", kind, number);
  ec_text_add(&text, data->at, data->len);
  ec_text_add(&text, "\n\n", 2);
  if (text.broken || data->broken) { /* all begin again, when there is room */
    ec_text_free(&text);
    while (server->oldest <= server->number)
      drop_oldest(server);
    server->number = number;
    server->oldest = number + 1;
    ec_resume(&server->idle);
    return;
  }
  while (server->oldest <= server->number &&
         (number - server->oldest >= EC_EVENTS ||
          server->event_bytes + text.len > EC_EVENT_BYTES))
    drop_oldest(server);
  server->number = number;
  *event_at(server, number) = (ec_event){number, text.at, text.len};
  server->event_bytes += text.len;
  ec_resume(&server->idle);
}

/* ----------------------------------------------------------- listening -- */

static size_t copy(char *out, size_t max, const char *from, size_t len,
                   size_t *offset) {
  size_t n = len - *offset < max ? len - *offset : max;
  memcpy(out, from + *offset, n);
  *offset += n;
  return n;
}

/* What there is for this one.  0: nothing; -1: it fell too far behind. */
static ssize_t next_piece(ec_request *r, char *out, size_t max) {
  ec_server *server = r->server;
  size_t hello = strlen(r->hello);
  if (hello > 0) {
    size_t n = copy(out, max, r->hello, hello, &r->offset);
    if (r->offset == hello)
      r->hello[0] = '\0', r->offset = 0;
    return (ssize_t)n;
  }
  if (r->at > server->number)
    return 0;
  if (r->at < server->oldest)
    return -1;
  const ec_event *event = event_at(server, r->at);
  size_t n = copy(out, max, event->text, event->len, &r->offset);
  if (r->offset == event->len)
    r->at++, r->offset = 0;
  return (ssize_t)n;
}

static ssize_t read_events(void *ctx, uint64_t position, char *out,
                           size_t max) {
  ec_request *r = ctx;
  ec_server *server = r->server;
  size_t had = 0;
  ssize_t n = 0;
  (void)position;
  pthread_mutex_lock(&server->mutex);
  while (had < max && (n = next_piece(r, out + had, max - had)) > 0)
    had += (size_t)n;
  if (server->stopping || n < 0) {
    n = had > 0 ? (ssize_t)had : MHD_CONTENT_READER_END_OF_STREAM;
  } else if (had == 0) {
    ec_put(&server->idle, r);
    MHD_suspend_connection(r->connection);
    n = 0;
  } else {
    n = (ssize_t)had;
  }
  pthread_mutex_unlock(&server->mutex);
  return n;
}

enum MHD_Result ec_listen_to_events(ec_request *r) {
  ec_server *server = r->server;
  struct MHD_Response *response = MHD_create_response_from_callback(
      MHD_SIZE_UNKNOWN, 8192, read_events, r, NULL);
  if (response == NULL)
    return MHD_NO;
  MHD_add_response_header(response, "Content-Type", "text/event-stream");
  MHD_add_response_header(response, "X-Accel-Buffering", "no");
  MHD_add_response_header(response, "Cache-Control", "no-store");
  MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
  pthread_mutex_lock(&server->mutex);
  if (!r->listens) {
    r->listens = true;
    server->listeners++;
  }
  r->at = server->number + 1;
  snprintf(r->hello, sizeof r->hello,
           "retry: 1000\nevent: hello\ndata: {\"number\":%" PRIu64
           ",\"nowMs\":%" PRId64 "}\n\n",
           server->number, eg_wall_us() / 1000);
  ec_wake_collector(server);
  pthread_mutex_unlock(&server->mutex);
  enum MHD_Result result = MHD_queue_response(r->connection, MHD_HTTP_OK,
                                              response);
  MHD_destroy_response(response);
  return result;
}
