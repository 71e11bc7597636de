/* SPDX-License-Identifier: MIT
** One question to an etcd cluster, asked of one member after the other until
** there is an answer or no more time.
**
** A transaction compares revisions, so to send one again is harmless where it
** is known not to have been applied.  A write whose answer did not come at all
** is INDETERMINATE: who asked finds out by looking.
*/
#include "store/etcd.h"

#include <stdio.h>
#include <stdlib.h>

#define AGAIN EGI_AGAIN /* who we are is to be said anew */
#define LATER EGI_LATER /* somewhere else */

/* gRPC's codes. */
enum {
  CANCELLED = 1,
  UNKNOWN = 2,
  DEADLINE_EXCEEDED = 4,
  NOT_FOUND = 5,
  PERMISSION_DENIED = 7,
  RESOURCE_EXHAUSTED = 8,
  UNAVAILABLE = 14,
  UNAUTHENTICATED = 16
};

static eg_status doubt(const egi_etcd_call *call) {
  return call->writes ? EG_INDETERMINATE : LATER;
}

/* --------------------------------------------------------------- errors -- */

static eg_status denied(const egi_etcd_hub *hub, const char *says,
                        eg_error *error) {
  if (hub->options.address.user == NULL)
    return egi_remote_fail(error, EG_DENIED, 0,
                           "etcd wants a user and a password: "
                           "etcd://user:password@host (%.80s)",
                           says);
  return egi_remote_fail(error, EG_DENIED, 0,
                         "etcd refuses what user %.60s asked: %.120s",
                         hub->options.address.user, says);
}

static eg_status judge_code(const egi_etcd_hub *hub, const egi_etcd_call *call,
                            int code, const char *says, eg_error *error) {
  bool nobody = strstr(says, "user name is empty") != NULL;
  if (code == UNAUTHENTICATED || nobody)
    return hub->options.address.user != NULL ? AGAIN
                                             : denied(hub, says, error);
  if (code == PERMISSION_DENIED || strstr(says, "authentication") != NULL)
    return denied(hub, says, error);
  if (code == NOT_FOUND && strstr(says, "lease not found") != NULL)
    return EG_NOTFOUND;
  if (strstr(says, "lease already exists") != NULL)
    return EGI_ETCD_THERE;
  if (strstr(says, "no leader") != NULL ||
      strstr(says, "too many requests") != NULL)
    return egi_remote_fail(error, LATER, 0, "etcd: %.160s", says);
  if (strstr(says, "too large") != NULL ||
      strstr(says, "larger than max") != NULL)
    return egi_remote_fail(error, EG_INVALID, 0,
                           "etcd takes nothing that large (its "
                           "--max-request-bytes): %.120s",
                           says);
  if (code == RESOURCE_EXHAUSTED)
    return egi_remote_fail(error, EG_UNAVAILABLE, 0,
                           "etcd takes no writes: %.160s", says);
  egi_remote_fail(error, EG_INTERNAL, 0, "etcd: %.200s", says);
  if (code == CANCELLED || code == UNKNOWN || code == DEADLINE_EXCEEDED ||
      code == UNAVAILABLE)
    return doubt(call);
  return EG_INTERNAL;
}

/* An error of a reply, or of a stream's line. */
static eg_status judge_error(const egi_etcd_hub *hub,
                             const egi_etcd_call *call, const json_t *object,
                             eg_error *error) {
  const json_t *inner = json_object_get(object, "error");
  if (json_is_object(inner))
    object = inner;
  uint64_t code = egi_json_number(object, "code");
  if (code == 0)
    code = egi_json_number(object, "grpc_code");
  const char *says = json_string_value(json_object_get(object, "message"));
  return judge_code(hub, call, (int)code, says != NULL ? says : "an error",
                    error);
}

/* -------------------------------------------------------------- replies -- */

/* The results of a stream, as an array. */
static eg_status read_lines(const egi_etcd_hub *hub, const egi_etcd_call *call,
                            const egi_text_buf *text, json_t **reply,
                            eg_error *error) {
  json_t *list = json_array();
  eg_status status = list != NULL ? EG_OK : EG_NOMEM;
  for (size_t at = 0; status == EG_OK && at < text->len;) {
    json_error_t why;
    json_t *line = json_loadb(text->data + at, text->len - at,
                              JSON_DISABLE_EOF_CHECK, &why);
    if (line == NULL) {
      status = doubt(call);
      break;
    }
    json_t *result = json_object_get(line, "result");
    if (result == NULL)
      status = judge_error(hub, call, line, error);
    else if (json_array_append(list, result) != 0)
      status = EG_NOMEM;
    json_decref(line);
    at += (size_t)why.position;
    while (at < text->len && text->data[at] <= ' ')
      at++;
  }
  if (status != EG_OK) {
    json_decref(list);
    list = NULL;
  }
  *reply = list;
  return status;
}

static eg_status read_reply(const egi_etcd_hub *hub, const egi_etcd_call *call,
                            const egi_etcd_wire *wire,
                            const egi_etcd_reply *got, json_t **reply,
                            eg_error *error) {
  const egi_text_buf *text = &wire->reply;
  if (call->lines && got->http == 200)
    return read_lines(hub, call, text, reply, error);
  json_t *object = json_loadb(text->data != NULL ? text->data : "", text->len,
                              0, NULL);
  if (!json_is_object(object)) {
    json_decref(object);
    if (got->http == 404)
      return egi_remote_fail(error, EG_UNSUPPORTED, 0,
                             "what answers there is no etcd 3.4 or later");
    egi_remote_fail(error, EG_INTERNAL, 0, "etcd answered with HTTP %ld",
                    got->http);
    return doubt(call);
  }
  if (got->http == 200) {
    *reply = object;
    return EG_OK;
  }
  eg_status status = judge_error(hub, call, object, error);
  json_decref(object);
  return status;
}

/* Nothing came back, or not all. */
static eg_status judge_curl(const egi_etcd_hub *hub, const egi_etcd_call *call,
                            const egi_etcd_reply *got, eg_error *error) {
  char host[320];
  egi_etcd_host(hub, host, sizeof host);
  egi_remote_fail(error, EG_UNAVAILABLE, 0, "etcd at %.100s: %s", host,
                  got->why);
  if (got->stranger)
    return egi_remote_fail(error, EG_DENIED, 0,
                           "etcd at %.100s wants another certificate of the "
                           "client (cert=, key=): %.100s",
                           host, got->why);
  switch (got->curl) {
  case CURLE_OUT_OF_MEMORY:
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_CACERT_BADFILE:
  case CURLE_SSL_CERTPROBLEM:
    return egi_remote_fail(error, EG_DENIED, 0, "etcd at %.100s: %s", host,
                           got->why);
  default:
    return got->sent ? doubt(call) : LATER;
  }
}

/* --------------------------------------------------------------- tries -- */

/* How long one member is waited for, where there are others. */
static int64_t patience(const egi_etcd_hub *hub, int64_t until_us) {
  enum { LEAST_US = 300000, MOST_US = 2000000 };
  int64_t n = (int64_t)hub->options.address.n;
  int64_t share = hub->options.timeout_us / n;
  if (n == 1)
    return until_us;
  share = share < LEAST_US ? LEAST_US : share > MOST_US ? MOST_US : share;
  int64_t until = egi_real_us() + share;
  return until < until_us ? until : until_us;
}

static eg_status try_once(egi_etcd_hub *hub, egi_etcd_call *call,
                          const egi_text_buf *body, int64_t until_us,
                          json_t **reply, eg_error *error) {
  egi_etcd_wire *wire;
  egi_etcd_reply got;
  eg_status status = egi_etcd_borrow(hub, until_us, &wire, error);
  if (status != EG_OK)
    return status;
  unsigned endpoint = egi_etcd_endpoint(hub);
  egi_etcd_post(hub, wire, call->path, body, patience(hub, until_us), &got);
  call->perhaps = call->perhaps || got.perhaps;
  status = got.curl == CURLE_OK
               ? read_reply(hub, call, wire, &got, reply, error)
               : judge_curl(hub, call, &got, error);
  egi_etcd_return(hub, wire);
  if (status == LATER || status == EG_INDETERMINATE)
    egi_etcd_move_on(hub, endpoint);
  return status;
}

/* ----------------------------------------------------- who is it? -- */

static void add_text(egi_text_buf *body, const char *name, const char *value) {
  json_t *text = json_string(value);
  char *quoted = text != NULL ? json_dumps(text, JSON_ENCODE_ANY) : NULL;
  egi_text_put(body, name);
  if (quoted != NULL)
    egi_text_put(body, quoted);
  else
    body->failed = true;
  json_decref(text);
  free(quoted);
}

static void keep_token(egi_etcd_hub *hub, const char *token) {
  char *auth = NULL;
  if (token != NULL && asprintf(&auth, "Authorization: %s", token) < 0)
    auth = NULL;
  pthread_mutex_lock(&hub->base.mutex);
  free(hub->auth);
  hub->auth = auth;
  hub->auths++;
  pthread_mutex_unlock(&hub->base.mutex);
}

static eg_status log_in(egi_etcd_hub *hub, int64_t until_us, eg_error *error) {
  const char *password = egi_etcd_password(&hub->options);
  egi_etcd_call call = {.path = "auth/authenticate"};
  egi_text_buf body = {0};
  json_t *reply = NULL;
  keep_token(hub, NULL);
  add_text(&body, "{\"name\":", hub->options.address.user);
  add_text(&body, ",\"password\":", password != NULL ? password : "");
  egi_text_put(&body, "}");
  eg_status status = body.failed ? EG_NOMEM
                                 : try_once(hub, &call, &body, until_us,
                                            &reply, error);
  if (status == EG_OK)
    keep_token(hub, json_string_value(json_object_get(reply, "token")));
  json_decref(reply);
  egi_text_free(&body);
  return status == AGAIN ? denied(hub, "no such user", error) : status;
}

static bool is_stranger(egi_etcd_hub *hub) {
  if (hub->options.address.user == NULL)
    return false;
  pthread_mutex_lock(&hub->base.mutex);
  bool stranger = hub->auth == NULL;
  pthread_mutex_unlock(&hub->base.mutex);
  return stranger;
}

/* --------------------------------------------------------------- asking -- */

typedef struct question {
  egi_etcd_hub *hub;
  egi_etcd_call *call;
  const egi_text_buf *body;
  int64_t until_us;
  json_t **reply;
  eg_error *error;
} question;

static eg_status ask_once(void *ctx, unsigned nth) {
  const question *q = ctx;
  if (nth > 0 || is_stranger(q->hub)) {
    eg_status status = log_in(q->hub, q->until_us, q->error);
    if (status != AGAIN && status != EG_OK)
      return status;
  }
  return try_once(q->hub, q->call, q->body, q->until_us, q->reply, q->error);
}

eg_status egi_etcd_ask(egi_etcd_hub *hub, egi_etcd_call *call,
                       const egi_text_buf *body, int64_t until_us,
                       json_t **reply, eg_error *error) {
  enum { TURNS_MAX = 4 };
  question q = {hub, call, body, until_us, reply, error};
  *reply = NULL;
  if (body->failed)
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  eg_status status = egi_remote_ask(ask_once, &q, TURNS_MAX, call->hasty,
                                    until_us);
  if (status == AGAIN)
    status = denied(hub, "it does not keep who logs in", error);
  if (error != NULL && status != EG_OK)
    error->status = status;
  return status;
}
