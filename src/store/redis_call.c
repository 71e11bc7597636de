/* SPDX-License-Identifier: MIT
** One question to a server, asked until there is an answer or no more time.
**
** What is asked again: whatever was surely not applied (no connection, nothing
** sent, an error reply that says so), and whatever only reads.  A write whose
** reply did not come is INDETERMINATE: who asked finds out by looking.
*/
#include "store/redis.h"

#include <string.h>

/* What an error reply means. */
typedef enum meaning {
  AGAIN,     /* after a while, in the same place */
  ELSEWHERE, /* after a while, on another connection */
  IN_FULL,   /* at once, with the text of the script */
  MOVED,
  ASK,
  AWAY, /* not applied; the server cannot now */
  REFUSED,
  ODD, /* what is there is none of ours */
  UNKNOWN
} meaning;

static const struct {
  const char *begins;
  meaning means;
} meanings[] = {
    {"NOSCRIPT", IN_FULL},
    {"MOVED", MOVED},
    {"ASK", ASK},
    {"LOADING", AGAIN},
    {"BUSY", AGAIN},
    {"TRYAGAIN", AGAIN},
    {"CLUSTERDOWN", AGAIN},
    {"MASTERDOWN", ELSEWHERE},
    {"READONLY", ELSEWHERE},
    {"OOM", AWAY},
    {"MISCONF", AWAY},
    {"NOREPLICAS", AWAY},
    {"NOAUTH", REFUSED},
    {"NOPERM", REFUSED},
    {"WRONGPASS", REFUSED},
    {"DENIED", REFUSED},
    {"ODD", ODD},
    {"WRONGTYPE", ODD},
};

/* An error inside of a script comes as "ERR ... -CODE ..." from old servers;
** a script that was killed has not written. */
static meaning meaning_of(const char *text) {
  if (strstr(text, "Script killed") != NULL)
    return AWAY;
  if (strstr(text, "max number of clients") != NULL)
    return ELSEWHERE; /* it hangs up */
  for (int tries = 0; tries < 2 && text != NULL; tries++) {
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++) {
      size_t len = strlen(meanings[i].begins);
      if (strncmp(text, meanings[i].begins, len) == 0 &&
          (text[len] == ' ' || text[len] == '\0'))
        return meanings[i].means;
    }
    text = strstr(text, ": -");
    if (text != NULL)
      text += 3;
  }
  return UNKNOWN;
}

/* One try. */
typedef struct attempt {
  egi_node *node;
  bool asking, in_full;
  bool sent;
} attempt;

static eg_status no_memory(eg_error *error) {
  return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
}

static bool append(const egi_call *call, const attempt *a, redisContext *c) {
  static const char eval[] = "EVAL";
  const char *name = call->argv[0], *script = call->argv[1];
  size_t name_len = call->lens[0], script_len = call->lens[1];
  if (a->asking && redisAppendCommand(c, "ASKING") != REDIS_OK)
    return false;
  if (a->in_full) {
    call->argv[0] = eval;
    call->lens[0] = sizeof eval - 1;
    call->argv[1] = call->text;
    call->lens[1] = strlen(call->text);
  }
  bool good = redisAppendCommandArgv(c, call->argc, call->argv, call->lens) ==
              REDIS_OK;
  call->argv[0] = name;
  call->argv[1] = script;
  call->lens[0] = name_len;
  call->lens[1] = script_len;
  return good && (call->second == NULL ||
                  redisAppendFormattedCommand(c, call->second,
                                              call->second_len) == REDIS_OK);
}

static eg_status read_all(egi_wire *wire, const egi_call *call, bool asking,
                          int64_t until_us, redisReply *replies[EGI_REPLIES],
                          eg_error *error) {
  eg_status status = EG_OK;
  if (asking) {
    redisReply *reply = NULL;
    status = egi_wire_read(wire, until_us, &reply, error);
    if (status == EG_OK)
      freeReplyObject(reply);
  }
  int n = call->second != NULL ? 2 : 1;
  for (int i = 0; status == EG_OK && i < n; i++)
    status = egi_wire_read(wire, until_us, &replies[i], error);
  return status;
}

void egi_redis_replies_free(redisReply *replies[EGI_REPLIES]) {
  for (int i = 0; i < EGI_REPLIES; i++) {
    if (replies[i] != NULL)
      freeReplyObject(replies[i]);
    replies[i] = NULL;
  }
}

/* OK: replies are there, whatever they say. */
static eg_status try_once(egi_hub *hub, const egi_call *call, attempt *a,
                          int64_t until_us, redisReply *replies[EGI_REPLIES],
                          eg_error *error) {
  egi_wire *wire;
  a->sent = false;
  eg_status status = egi_hub_borrow(hub, a->node, until_us, &wire, error);
  if (status != EG_OK)
    return status;
  if (hub->cluster && hub->stale)
    egi_hub_learn(hub, wire, until_us);
  wire->sent = false;
  if (wire->pending || !append(call, a, wire->context)) {
    bool lost = wire->pending;
    egi_hub_discard(hub, wire);
    return lost ? egi_remote_fail(error, EG_UNAVAILABLE, 0,
                                  "redis does not answer")
                : no_memory(error);
  }
  status = egi_wire_send(wire, until_us, error);
  if (status == EG_OK)
    status = read_all(wire, call, a->asking, until_us, replies, error);
  a->sent = wire->sent;
  wire->pending = wire->pending && status != EG_OK;
  if (status == EG_OK) {
    egi_hub_return(hub, wire);
    return EG_OK;
  }
  egi_redis_replies_free(replies);
  egi_hub_discard(hub, wire);
  return EG_UNAVAILABLE;
}

/* ------------------------------------------------------------- replies -- */

static eg_status say(eg_error *error, eg_status status,
                     const redisReply *reply) {
  return egi_remote_fail(error, status, 0, "redis said: %.200s", reply->str);
}

static void give_up_idle(egi_hub *hub, egi_node *node) {
  pthread_mutex_lock(&hub->base.mutex);
  egi_wire *wire = node->idle;
  node->idle = NULL;
  for (const egi_wire *w = wire; w != NULL; w = w->next)
    hub->base.open--;
  hub->seed++;
  hub->stale = true;
  pthread_cond_broadcast(&hub->base.cond);
  pthread_mutex_unlock(&hub->base.mutex);
  while (wire != NULL) {
    egi_wire *next = wire->next;
    egi_wire_close(wire);
    hub->base.env.alloc(NULL, wire, sizeof *wire, 0);
    wire = next;
  }
}

/* What to do about an error reply: AGAIN: as *a says by now; LATER: the same,
** after a while; else how it ends. */
static eg_status judge(egi_hub *hub, const egi_call *call,
                       const redisReply *reply, attempt *a, eg_error *error) {
  egi_node *to;
  switch (meaning_of(reply->str)) {
  case IN_FULL:
    if (call->text == NULL || a->in_full)
      return say(error, EG_INTERNAL, reply);
    a->in_full = true;
    return EGI_AGAIN;
  case MOVED:
  case ASK:
    to = egi_hub_moved(hub, reply->str, a->node);
    if (to == NULL)
      return say(error, EG_UNAVAILABLE, reply);
    a->asking = reply->str[0] == 'A';
    a->node = to;
    return EGI_AGAIN;
  case ELSEWHERE:
    give_up_idle(hub, a->node);
    say(error, EG_UNAVAILABLE, reply);
    return EGI_LATER;
  case AGAIN:
    say(error, EG_UNAVAILABLE, reply);
    return EGI_LATER;
  case AWAY:
    return say(error, EG_UNAVAILABLE, reply);
  case REFUSED:
    return say(error, EG_DENIED, reply);
  case ODD:
    return egi_remote_fail(error, EG_CORRUPT, 0,
                           "the key of redis holds something that this "
                           "library did not write: %.80s",
                           reply->str);
  default:
    return say(error, EG_INTERNAL, reply);
  }
}

static const redisReply *first_error(redisReply *replies[EGI_REPLIES]) {
  for (int i = 0; i < EGI_REPLIES; i++)
    if (replies[i] != NULL && replies[i]->type == REDIS_REPLY_ERROR)
      return replies[i];
  return NULL;
}

/* A failed try without a reply: may it be made again? */
static eg_status judge_silence(const egi_call *call, eg_status status,
                               const attempt *a, eg_error *error) {
  if (status != EG_UNAVAILABLE)
    return status;
  if (!call->writes || !a->sent)
    return EGI_LATER;
  if (error != NULL)
    error->status = EG_INDETERMINATE;
  return EG_INDETERMINATE;
}

typedef struct question {
  egi_hub *hub;
  const egi_call *call;
  attempt a;
  int64_t until_us;
  redisReply **replies;
  eg_error *error;
} question;

static eg_status ask_once(void *ctx, unsigned nth) {
  question *q = ctx;
  attempt *a = &q->a;
  (void)nth;
  if (a->node == NULL)
    a->node = q->call->node != NULL ? q->call->node
                                    : egi_hub_route(q->hub, q->call->slot);
  eg_status status = try_once(q->hub, q->call, a, q->until_us, q->replies,
                              q->error);
  const redisReply *bad = first_error(q->replies);
  if (status == EG_OK && bad == NULL)
    return EG_OK;
  status = status == EG_OK ? judge(q->hub, q->call, bad, a, q->error)
                           : judge_silence(q->call, status, a, q->error);
  egi_redis_replies_free(q->replies);
  if (status == EGI_LATER) {
    a->node = NULL;
    a->asking = false;
  }
  return status;
}

eg_status egi_redis_call(egi_hub *hub, const egi_call *call, int64_t until_us,
                         redisReply *replies[EGI_REPLIES], eg_error *error) {
  enum { TURNS_MAX = 16 };
  question q = {.hub = hub,
                .call = call,
                .until_us = until_us,
                .replies = replies,
                .error = error};
  memset(replies, 0, EGI_REPLIES * sizeof *replies);
  eg_status status = egi_remote_ask(ask_once, &q, TURNS_MAX, call->hasty,
                                    until_us);
  return status == EGI_AGAIN ? EG_UNAVAILABLE : status;
}
