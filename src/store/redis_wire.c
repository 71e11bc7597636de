/* SPDX-License-Identifier: MIT
** One connection to a Redis server: bytes out, replies in, never longer than
** until a deadline.
*/
#include "store/redis.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <hiredis/sds.h>

/* A connection blocks, but not longer than that at a time: a call that is
** answered soon, as nearly all are, needs no poll. */
enum { BLOCK_US = 100000 };

/* How long it may be idle before it is looked at: one that a server closed
** just now costs a doubt, which is then resolved. */
enum { FRESH_US = 100000 };

static void block_a_while(int fd) {
  struct timeval most = {0, BLOCK_US};
  int flags = fcntl(fd, F_GETFL);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
  fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}

/* ------------------------------------------------------------- waiting -- */

/* 1: ready, 0: the time is up, -1: errno. */
static int await(const egi_wire *wire, short events, int64_t until_us) {
  for (;;) {
    int64_t left = until_us - egi_real_us();
    struct pollfd fd = {.fd = wire->context->fd, .events = events};
    int ms = left <= 0           ? 0
             : left > 3600000000 ? 3600000
                                 : (int)((left + 999) / 1000);
    int n = poll(&fd, 1, ms);
    if (n > 0 || (n < 0 && errno != EINTR))
      return n;
    if (n == 0 && left <= 0)
      return 0;
  }
}

static const char *where(const egi_wire *wire, char *text, size_t size) {
  const egi_node *node = wire->node;
  if (node->port == 0)
    snprintf(text, size, "%s", node->host);
  else
    snprintf(text, size, "%s:%d", node->host, node->port);
  return text;
}

static eg_status broken(const egi_wire *wire, const char *what, int os_errno,
                        eg_error *error) {
  char at[300];
  return egi_remote_fail(error, EG_UNAVAILABLE, os_errno,
                         "the connection to redis at %.120s %s",
                         where(wire, at, sizeof at), what);
}

/* ----------------------------------------------------- bytes, replies -- */

/* hiredis's own redisBufferWrite would raise SIGPIPE in a program that may
** not expect it. */
eg_status egi_wire_send(egi_wire *wire, int64_t until_us, eg_error *error) {
  redisContext *c = wire->context;
  while (sdslen(c->obuf) > 0) {
    ssize_t n = send(c->fd, c->obuf, sdslen(c->obuf), MSG_NOSIGNAL);
    if (n > 0) {
      wire->sent = wire->pending = true;
      sdsrange(c->obuf, (int)n,
               -1); /* as hiredis does: its length is an int */
      continue;
    }
    if (errno == EINTR)
      continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK)
      return broken(wire, "broke while it was written to", errno, error);
    int ready = await(wire, POLLOUT, until_us);
    if (ready < 0)
      return broken(wire, "cannot be polled", errno, error);
    if (ready == 0)
      return broken(wire, "took no more bytes in time", ETIMEDOUT, error);
  }
  return EG_OK;
}

eg_status egi_wire_read(egi_wire *wire, int64_t until_us, redisReply **reply,
                        eg_error *error) {
  redisContext *c = wire->context;
  for (;;) {
    void *got = NULL;
    if (redisGetReplyFromReader(c, &got) != REDIS_OK)
      return broken(wire, "brought what is no reply", 0, error);
    *reply = got;
    if (got != NULL)
      return EG_OK;
    int ready = until_us - egi_real_us() > BLOCK_US
                    ? 1 /* the read waits, and not too long */
                    : await(wire, POLLIN, until_us);
    if (ready == 0) {
      broken(wire, "brought no reply in time", ETIMEDOUT, error);
      return EG_TIMEOUT;
    }
    if (ready < 0)
      return broken(wire, "cannot be polled", errno, error);
    if (redisBufferRead(c) != REDIS_OK)
      return broken(wire, "was closed by the other side", errno, error);
  }
}

bool egi_wire_is_dead(const egi_wire *wire) {
  char byte;
  if (egi_real_us() - wire->used_us < FRESH_US)
    return false;
  ssize_t n = recv(wire->context->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

/* ---------------------------------------------------------- connecting -- */

/* One command with its answer, at the begin. */
static eg_status say(egi_wire *wire, int64_t until_us, int argc,
                     const char **argv, eg_error *error) {
  redisReply *reply = NULL;
  char at[300];
  if (redisAppendCommandArgv(wire->context, argc, argv, NULL) != REDIS_OK)
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  eg_status status = egi_wire_send(wire, until_us, error);
  if (status == EG_OK)
    status = egi_wire_read(wire, until_us, &reply, error);
  if (status != EG_OK)
    return EG_UNAVAILABLE;
  /* It is ready for nothing yet: the first real command will be told so. */
  bool later = reply->type == REDIS_REPLY_ERROR &&
               (strncmp(reply->str, "LOADING", 7) == 0 ||
                strncmp(reply->str, "MASTERDOWN", 10) == 0 ||
                strncmp(reply->str, "BUSY", 4) == 0);
  if (reply->type == REDIS_REPLY_ERROR && !later)
    status = egi_remote_fail(error, EG_DENIED, 0,
                             "redis at %.120s refused %s: %.80s",
                             where(wire, at, sizeof at), argv[0], reply->str);
  else if (later)
    status = egi_remote_fail(error, EG_UNAVAILABLE, 0,
                             "redis at %.120s is not ready: %.80s",
                             where(wire, at, sizeof at), reply->str);
  freeReplyObject(reply);
  return status;
}

static eg_status introduce(const egi_hub *hub, egi_wire *wire,
                           int64_t until_us, eg_error *error) {
  const egi_redis_options *options = &hub->options;
  const char *password = egi_redis_password(options);
  const char *user = options->address.user;
  char number[16];
  eg_status status = EG_OK;
  if (password != NULL && user != NULL) {
    const char *auth[] = {"AUTH", user, password};
    status = say(wire, until_us, 3, auth, error);
  } else if (password != NULL) {
    const char *auth[] = {"AUTH", password};
    status = say(wire, until_us, 2, auth, error);
  }
  if (status == EG_OK && options->db != 0) {
    snprintf(number, sizeof number, "%d", options->db);
    const char *select_db[] = {"SELECT", number};
    status = say(wire, until_us, 2, select_db, error);
  }
  return status;
}

static redisContext *begin(const egi_node *node) {
  return node->port == 0 ? redisConnectUnixNonBlock(node->host)
                         : redisConnectNonBlock(node->host, node->port);
}

/* Has what was begun become a connection?  0 or an errno. */
static int end_connecting(const egi_wire *wire, int64_t until_us) {
  int why = 0;
  socklen_t size = sizeof why;
  int ready = await(wire, POLLOUT, until_us);
  if (ready <= 0)
    return ready == 0 ? ETIMEDOUT : errno;
  if (getsockopt(wire->context->fd, SOL_SOCKET, SO_ERROR, &why, &size) != 0)
    return errno;
  return why;
}

eg_status egi_wire_connect(egi_hub *hub, egi_node *node, int64_t until_us,
                           egi_wire **wire_out, eg_error *error) {
  char at[300];
  *wire_out = NULL;
  egi_wire *wire = hub->base.env.alloc(hub->base.env.alloc_ud, NULL, 0,
                                       sizeof *wire);
  if (wire == NULL)
    return egi_remote_fail(error, EG_NOMEM, 0, "not enough memory");
  *wire = (egi_wire){.node = node, .context = begin(node)};
  int why = ENOMEM;
  if (wire->context != NULL)
    why = wire->context->err != 0 ? (errno != 0 ? errno : EHOSTUNREACH)
                                  : end_connecting(wire, until_us);
  eg_status status = EG_OK;
  if (why != 0)
    status = egi_remote_fail(error, EG_UNAVAILABLE, why,
                             "no connection to redis at %.120s: %s",
                             where(wire, at, sizeof at), strerror(why));
  else {
    block_a_while(wire->context->fd);
    status = introduce(hub, wire, until_us, error);
  }
  if (status == EG_OK && node->port != 0)
    redisEnableKeepAlive(wire->context);
  if (status != EG_OK) {
    if (wire->context != NULL)
      redisFree(wire->context);
    hub->base.env.alloc(hub->base.env.alloc_ud, wire, sizeof *wire, 0);
    return status;
  }
  wire->sent = wire->pending = false;
  *wire_out = wire;
  return EG_OK;
}

void egi_wire_close(egi_wire *wire) {
  if (wire->context != NULL)
    redisFree(wire->context);
  wire->context = NULL;
}
