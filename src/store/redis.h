/* SPDX-License-Identifier: MIT
** What the files of the redis store share: servers, connections, scripts.
**
** A record is one string value; its head is packed and read by the scripts
** (redis_script.c), which are the only ones that write.  The key is
**
**   eg:{<name>:<key>}        % and : of the name as %25 and %3A
**
** and the channel that tells of it has the same name, so both are in one hash
** slot.  (A } in name or key ends the part that is hashed early; that is as
** good.)
**
** A server (egi_hub) is shared by all handles of the process that name the
** same one in the same way: its connections, at most so many, its map of
** slots, and the thread that listens to its channels.
**
** Locks are those of remote.h; the hub's mutex guards its nodes, their idle
** connections, and the map of slots.
*/
#ifndef EG_STORE_REDIS_H
#define EG_STORE_REDIS_H

#include "store/remote.h"

#include <hiredis/hiredis.h>

enum {
  EGI_REDIS_KEY_MAX = EG_KEY_MAX + 3 * EG_NAME_MAX + 10,
  EGI_REDIS_SLOTS = 16384,
  EGI_REDIS_NODES = 64,
  EGI_REDIS_HEAD = 72,   /* bytes before the holder, see redis_script.c */
  EGI_REDIS_REPLY = 9,   /* bytes before the head in what a script says */
  EGI_REDIS_BATCH = 100, /* keys that one script call renews or ends */
  EGI_NO_SLOT = -1       /* any node will do */
};

/* What a URL says. */
typedef struct egi_redis_options {
  egi_address address;
  char *password; /* from elsewhere than the URL, or NULL */
  int db;
  int64_t timeout_us; /* of one operation, with all its new tries */
  int64_t lease_ms;
  unsigned connections; /* of this process to that server, at most */
  unsigned replicas;    /* that have to have a grant; 0: none */
  int64_t replicas_us;  /* and how long that may take */
} egi_redis_options;

typedef struct egi_wire egi_wire; /* a connection */
typedef struct egi_node egi_node; /* one server of a cluster, or the server */
typedef struct egi_hub egi_hub;

struct egi_wire {
  egi_wire *next;
  egi_node *node;
  redisContext *context;
  int64_t used_us; /* real: when it was given back */
  bool sent;       /* since it was borrowed */
  bool pending;    /* replies are still to come: not to be used again */
};

struct egi_node {
  char host[256];
  int port; /* 0: a socket */
  egi_wire *idle;
  unsigned failures;     /* to connect, one after the other */
  int64_t not_before_us; /* real: the next try */
};

struct egi_hub {
  egi_server base;
  egi_redis_options options;
  egi_node *nodes[EGI_REDIS_NODES]; /* only added to */
  unsigned n;
  unsigned seed; /* of the addresses: the one that is asked first */
  bool cluster;
  unsigned char *slots; /* number of the node + 1; 0: not known */
  bool stale;           /* the map of slots is to be asked for */
};

typedef struct egi_redis {
  egi_store base;
  eg_env env;
  egi_hub *hub;
  egi_redis_options options;
  egi_recall *recall;
  egi_holding_set holds;
  char prefix[3 * EG_NAME_MAX + 8]; /* "eg:{name:" */
  size_t prefix_len;
  unsigned generation; /* of forks, as the hub counts them */
} egi_redis;

/* A key of ours as one of theirs. */
typedef struct egi_redis_key {
  char text[EGI_REDIS_KEY_MAX];
  size_t len;
} egi_redis_key;

/* ------------------------------------------------------- redis_url.c -- */

eg_status egi_redis_options_read(const egi_url *url, const eg_env *env,
                                 egi_redis_options *options, eg_error *error);
void egi_redis_options_free(egi_redis_options *options, const eg_env *env);
/* The same server, and the same visitor? */
bool egi_redis_options_alike(const egi_redis_options *a,
                             const egi_redis_options *b);
const char *egi_redis_password(const egi_redis_options *options);

/* ------------------------------------------------------ redis_wire.c -- */

/* egi_wire_connect: connects and says who comes.  UNAVAILABLE, DENIED. */
eg_status egi_wire_connect(egi_hub *hub, egi_node *node, int64_t until_us,
                           egi_wire **wire, eg_error *error);
/* egi_wire_close: the connection, not the wire itself. */
void egi_wire_close(egi_wire *wire);

/* egi_wire_is_dead: has the other side hung up since it was last used? */
bool egi_wire_is_dead(const egi_wire *wire);

/* egi_wire_send: sends what was appended to the context.  egi_wire_read: one
** reply, or what a subscription brings; timeout is TIMEOUT, all else that goes
** wrong UNAVAILABLE. */
eg_status egi_wire_send(egi_wire *wire, int64_t until_us, eg_error *error);
eg_status egi_wire_read(egi_wire *wire, int64_t until_us, redisReply **reply,
                        eg_error *error);

/* ------------------------------------------------------- redis_hub.c -- */

extern const egi_server_kind egi_redis_kind;

/* egi_hub_node: finds or adds; NULL: too many, or no memory. */
egi_node *egi_hub_node(egi_hub *hub, const char *host, int port);

/* egi_hub_borrow: a connection to a node, idle or new; waits for one where
** there are as many as there may be.  egi_hub_return: gives it back.
** egi_hub_discard: it is of no use any more. */
eg_status egi_hub_borrow(egi_hub *hub, egi_node *node, int64_t until_us,
                         egi_wire **wire, eg_error *error);
void egi_hub_return(egi_hub *hub, egi_wire *wire);
void egi_hub_discard(egi_hub *hub, egi_wire *wire);

/* --------------------------------------------------- redis_cluster.c -- */

int egi_redis_slot(const char *key, size_t len);

/* egi_hub_route: the node that has a slot, as far as is known. */
egi_node *egi_hub_route(egi_hub *hub, int slot);

/* egi_hub_moved: reads "MOVED 1 host:port" or "ASK 1 host:port"; notes the
** former.  NULL: it cannot be read. */
egi_node *egi_hub_moved(egi_hub *hub, const char *text, const egi_node *from);

/* egi_hub_learn: asks one node for the map of slots. */
void egi_hub_learn(egi_hub *hub, egi_wire *wire, int64_t until_us);

/* egi_hub_masters: the nodes that have slots; without a cluster, the one. */
unsigned egi_hub_masters(egi_hub *hub, egi_node **nodes);

/* ------------------------------------------------------ redis_call.c -- */

/* What is asked of a server: commands that go out together, of which the
** first may be a script. */
typedef struct egi_call {
  int slot;         /* or EGI_NO_SLOT */
  egi_node *node;   /* this one, not the slot's; or NULL */
  bool hasty;       /* asked again but once: nobody waits for it */
  bool writes;      /* once sent, it may have been applied */
  const char *text; /* of the script, sent where its hash is not known */
  int argc;         /* of the first command; [0] EVALSHA where text is set */
  const char **argv;
  size_t *lens;
  const char *second; /* a formatted command, or NULL */
  size_t second_len;
} egi_call;

enum { EGI_REPLIES = 2 };

/* egi_redis_call: asks, again and again until the time is up where that is
** safe.  OK: all replies are there, and no error; the caller frees them.  They
** are NULL on any failure: UNAVAILABLE (nothing was applied), INDETERMINATE,
** DENIED, CORRUPT, INTERNAL. */
eg_status egi_redis_call(egi_hub *hub, const egi_call *call, int64_t until_us,
                         redisReply *replies[EGI_REPLIES], eg_error *error);
void egi_redis_replies_free(redisReply *replies[EGI_REPLIES]);

/* ---------------------------------------------------- redis_script.c -- */

typedef struct egi_script {
  const char *text;
  char sha[41];
} egi_script;

extern egi_script egi_script_swap, egi_script_ends, egi_script_undo;

/* egi_scripts_init: computes the hashes. */
void egi_scripts_init(void);

enum { EGI_SWAP_ARGUMENT = 52 };

/* egi_swap_pack: what the swap script is told, but for bytes and holder.
** gives_back: it shall say what was there before. */
void egi_swap_pack(const egi_swap *swap, bool gives_back, unsigned char *out);

/* egi_value_read: what a value (NULL: none) means at that time.  bytes and
** holder are borrowed.  False: it is none of ours. */
bool egi_value_read(const char *value, size_t len, int64_t now_us,
                    egi_seen *seen);

/* egi_reply_read: what a script said: whether it landed, and what is there
** now.  *value: the whole value behind the time. */
bool egi_reply_read(const redisReply *reply, bool *landed, egi_seen *seen);

/* ------------------------------------------------------ redis_sha1.c -- */

/* egi_sha1_hex: of a text, as 40 digits and a zero: what a server calls a
** script. */
void egi_sha1_hex(const char *text, char hex[41]);

uint64_t egi_unpack64(const void *at);
void egi_pack64(void *at, uint64_t number);

/* ----------------------------------------------------------- redis.c -- */

void egi_redis_key_make(const egi_redis *redis, eg_bytes key,
                        egi_redis_key *out);
eg_status egi_redis_load(egi_store *store, eg_bytes key, int64_t deadline_us,
                         egi_seen *seen, eg_error *error);
/* TIME's reply as microseconds; 0: it is none. */
int64_t egi_redis_time(const redisReply *reply);

/* ----------------------------------------------------- redis_holds.c -- */

eg_status egi_redis_renew(egi_store *store, const egi_hold_ref *holds,
                          size_t n, int64_t lease_ms, eg_status *each,
                          eg_error *error);
void egi_redis_drop_all(egi_redis *redis);

/* ------------------------------------------------------ redis_open.c -- */

/* egi_redis_inspect: looks at a server's version and settings when it is
** first met: warns of what can lose a grant. */
eg_status egi_redis_inspect(egi_redis *redis, eg_error *error);

/* ----------------------------------------------------- redis_watch.c -- */

eg_status egi_redis_watch(egi_store *store, eg_bytes key, const egi_seen *seen,
                          egi_watch **watch, int *fd, eg_error *error);
eg_status egi_redis_wait(egi_watch *watch, int64_t deadline_us,
                         eg_error *error);
void egi_redis_unwatch(egi_watch *watch);
void egi_redis_listen(egi_server *server);

/* ----------------------------------------------------- redis_count.c -- */

/* Behind the key of a record: of what is counted. */
#define EGI_REDIS_COUNTS ":n"

extern egi_script egi_script_add;
eg_status egi_redis_add(egi_store *store, eg_bytes key, const egi_counts *more,
                        int64_t deadline_us, eg_error *error);
eg_status egi_redis_counts(egi_store *store, eg_bytes prefix, bool exact,
                           int64_t deadline_us, egi_counts_fn visit, void *ctx,
                           eg_error *error);

/* ------------------------------------------------------ redis_scan.c -- */

/* egi_redis_find: calls found once for every key that begins with prefix and
** has something on the server whose name ends in that ("": its record), until
** that says no *more or fails. */
typedef eg_status (*egi_redis_found_fn)(void *ctx, eg_bytes key, bool *more,
                                        eg_error *error);
eg_status egi_redis_find(egi_redis *redis, eg_bytes prefix, const char *ending,
                         egi_redis_found_fn found, void *ctx, eg_error *error);

eg_status egi_redis_scan(egi_store *store, eg_bytes prefix, egi_visit_fn visit,
                         void *ctx, eg_error *error);

/* --------------------------------------------------- redis_history.c -- */

/* egi_redis_history_key: the list that belongs to a record's key. */
void egi_redis_history_key(const egi_redis_key *record, egi_redis_key *out);
eg_status egi_redis_history(egi_store *store, eg_bytes key, size_t n,
                            eg_visit_past visit, void *ctx, eg_error *error);

#endif
