/* SPDX-License-Identifier: MIT
** What the stores that are reached over a connection share: addresses and
** secrets, errors, deadlines in real time, and the recollection of what was
** last seen of a key.
**
** These stores are objects of their own, loaded when a URL names them
** (stores.c); each has its own copy of what is here, and uses nothing of the
** library but what it is handed.
*/
#ifndef EG_STORE_REMOTE_H
#define EG_STORE_REMOTE_H

#include "store/store.h"

#include <string.h>

enum { EGI_HOSTS_MAX = 8, EGI_LEASE_MS = 15000 };

/* 100 years: a duration beyond that is as good as for ever, and a time so far
** away still fits a double. */
#define EGI_LONG_US (INT64_C(100) * 366 * 24 * 3600 * 1000000)

/* ---------------------------------------------------------- remote.c -- */

/* egi_remote_fail: fills an error, and returns its status. */
eg_status egi_remote_fail(eg_error *error, eg_status status, int os_errno,
                          const char *format, ...)
    __attribute__((format(printf, 4, 5)));

void egi_remote_warn(const eg_env *env, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* egi_real_us: the machine's steady clock: a network does not wait for a clock
** that is moved by hand. */
int64_t egi_real_us(void);

/* egi_real_deadline: a deadline on the clock of env as one in real time, at
** most limit_us from now. */
int64_t egi_real_deadline(const eg_env *env, int64_t deadline_us,
                          int64_t limit_us);

static inline eg_bytes egi_text(const char *text) {
  return (eg_bytes){text, strlen(text)};
}

/* egi_timespec: microseconds as the system wants them. */
struct timespec egi_timespec(int64_t us);

/* egi_backoff_us: how long to wait before the nth new try (0: the first): it
** doubles up to a quarter of a second, and a random half of it is left out. */
int64_t egi_backoff_us(unsigned nth);

/* egi_remote_sleep_us: in real time. */
void egi_remote_sleep_us(int64_t us);

/* What a try came to, beside statuses that end it. */
#define EGI_AGAIN EG_CHANGED  /* at once */
#define EGI_LATER EG_CONFLICT /* after a while, perhaps somewhere else */

/* egi_remote_ask: tries, again and again, until a try ends it or the time is
** up: at once at most `turns` times one after the other, hasty: after a pause
** once.  A status, or EGI_AGAIN where there were so many turns. */
eg_status egi_remote_ask(eg_status (*once)(void *ctx, unsigned nth), void *ctx,
                         unsigned turns, bool hasty, int64_t until_us);

/* egi_wipe: zeroes that no compiler leaves out. */
void egi_wipe(void *data, size_t size);

/* --------------------------------------------------- remote_address.c -- */

typedef struct egi_host {
  const char *name; /* host, or the path of a socket */
  int port;         /* 0: a socket */
} egi_host;

/*
** Where a store is and who comes, taken from a URL:
**
**   //[user[:password]@]host[:port][,host...][/path][?parameter=value...]
**   //[user[:password]@]/path/of/a/socket[?...]             (sockets)
**
** In parts: what stands for %XX in user, password, path and values.
*/
typedef struct egi_address {
  egi_host hosts[EGI_HOSTS_MAX];
  size_t n;
  const char *user, *password; /* NULL: not given */
  const char *path;            /* behind the hosts' `/`; NULL: none */
  char *text;                  /* all of the above are in it */
  size_t size;
} egi_address;

/* egi_address_copy: false: no memory, and egi_address_free is due all the
** same.  egi_address_alike: the same hosts and user, whatever password. */
bool egi_address_copy(egi_address *to, const egi_address *from,
                      const eg_env *env);
bool egi_address_alike(const egi_address *a, const egi_address *b);

typedef struct egi_parameter {
  const char *name;
  /* Takes a value: NULL, or what it should be. */
  const char *(*take)(void *ctx, const char *value);
} egi_parameter;

/* egi_address_read: socket: the URL names the path of one.  Messages show
** nothing but hosts: what stands before `@` may be a password. */
eg_status egi_address_read(const egi_url *url, bool socket, int default_port,
                           const eg_env *env, egi_address *address,
                           eg_error *error);

/* egi_address_free: wipes it, too. */
void egi_address_free(egi_address *address, const eg_env *env);

/* egi_parameters_read: hands every parameter of the query to the entry of the
** list that has its name; the list ends with a NULL name. */
eg_status egi_parameters_read(const egi_url *url, const egi_parameter *list,
                              void *ctx, const eg_env *env, eg_error *error);

/* egi_parse_seconds: "2.5" as microseconds; -1: that is none.  egi_parse_count
** likewise. */
int64_t egi_parse_seconds(const char *text);
long egi_parse_count(const char *text, long most);

/* egi_secret_file: the first line of a file, in memory of env.  *secret NULL:
** it cannot be read, and error says why. */
eg_status egi_secret_file(const char *path, const eg_env *env, char **secret,
                          eg_error *error);
void egi_secret_free(char *secret, const eg_env *env);

/* ------------------------------------------------------- remote_row.c -- */

/* What a store keeps of a key.  Times are microseconds since the epoch by the
** store's clock; 0: none. */
typedef struct egi_row {
  uint64_t version, token;
  bool held;
  int64_t stamp, last; /* when bytes were put; the clock's highest so far */
  int64_t lease, not_before, fresh, life; /* ends */
  eg_bytes holder, bytes;
} egi_row;

/* egi_row_absent: what is seen where there is nothing.  egi_row_see: what a
** row means at that time; `now` may be earlier than what the row says already.
** bytes and holder are borrowed. */
void egi_row_absent(int64_t now_us, egi_seen *seen);
void egi_row_see(const egi_row *row, int64_t now_us, egi_seen *seen);

/* ------------------------------------------------------ remote_past.c -- */

enum {
  EGI_PAST_ERROR = 500, /* bytes that are kept of an error */
  EGI_PAST_KEPT = 100,  /* runs of a key, and as many as are shown */
  EGI_PAST_TAIL = 22 + EGI_PAST_ERROR,
  EGI_PAST_MAX = 10 + EGI_HOLDER_MAX + EGI_PAST_TAIL
};

/* egi_past_is_due: does the swap end a run?  egi_past_head, egi_past_tail: the
** two parts of the bytes that are kept of it; each returns how many.
** egi_past_read: borrows from them, and leaves key; false: they are none. */
bool egi_past_is_due(const egi_swap *swap);
size_t egi_past_head(uint64_t token, eg_bytes holder, unsigned char *out);
size_t egi_past_tail(const egi_swap *swap, unsigned char *out);
bool egi_past_read(eg_bytes bytes, eg_past *past);

/* Runs that were read in any order, of which the newest are shown.
** egi_pasts_add: false: no memory; what is none of ours is left out. */
typedef struct egi_pasts {
  eg_past **list;
  size_t n, cap, most;
} egi_pasts;

void egi_pasts_init(egi_pasts *pasts, size_t most);
bool egi_pasts_add(egi_pasts *pasts, eg_bytes key, eg_bytes bytes);
void egi_pasts_show(egi_pasts *pasts, eg_visit_past visit, void *ctx);
void egi_pasts_free(egi_pasts *pasts);

/* ----------------------------------------------------- remote_watch.c -- */

/*
** One who waits for a key to change, woken by the thread that listens to the
** store.  In a list of the store's, under a lock of the store's; `mutex`
** guards changed and lease_end_us.
*/
struct egi_watch {
  egi_watch *next, *prev;
  egi_store *store;
  eg_env env;
  void *topic; /* the store's; NULL: of before a fork */
  int fd;
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  bool changed;
  int64_t lease_end_us; /* on the clock of env; EG_FOREVER: not known */
  uint64_t told;        /* the store's: the version last told of */
  int64_t look_us;      /* the store's: real; look at the key then */
  size_t key_len;
  unsigned char key[];
};

egi_watch *egi_watch_new(egi_store *store, eg_bytes key, const eg_env *env);
void egi_watch_free(egi_watch *watch);
void egi_watch_enlist(egi_watch *watch, egi_watch **list);
void egi_watch_delist(egi_watch *watch, egi_watch **list);

static inline eg_bytes egi_watch_key(const egi_watch *watch) {
  return (eg_bytes){watch->key, watch->key_len};
}

/* egi_watch_mark: its key has changed, or may have.  egi_watch_lease: this is
** what is there now: the end of a lease wakes, too. */
void egi_watch_mark(egi_watch *watch);
void egi_watch_lease(egi_watch *watch, const egi_seen *seen);

/* egi_watch_wait: as egi_store_ops.wait. */
eg_status egi_watch_wait(egi_watch *watch, int64_t deadline_us);

/* egi_signal_fd, egi_drain_fd: of an eventfd that says "there is some". */
void egi_signal_fd(int fd);
void egi_drain_fd(int fd);

/* ---------------------------------------------------- remote_server.c -- */

/*
** A server as this process knows it, shared by the handles that name it in the
** same way; every store has a struct of its own that begins with this.
**
** LOCKING
**
**   1. servers_mutex (remote_server.c) guards the list of servers, their
**      counts of handles and their namespaces.
**   2. server->mutex guards `open` and what the store adds.  A connection that
**      is in use belongs to who uses it.
**   3. server->listen_mutex guards topics, the watches, and the state of the
**      listener; a watch's mutex what is said there.
**   4. Order: servers, server, listen, watch; the recollection and the holds
**      of a handle come last.  None is held while a server is awaited, but
**      servers_mutex by who prepares a fork.
*/
typedef struct egi_server egi_server;

/* What is listened for, with those who watch it: a channel, a prefix. */
typedef struct egi_topic egi_topic;
struct egi_topic {
  egi_topic *next;
  unsigned watches;
  enum { EGI_WANTED, EGI_ASKED, EGI_HEARD } state;
  bool again; /* it was heard before: something may have been missed */
  size_t len;
  char name[]; /* and a zero */
};

typedef struct egi_namespace egi_namespace; /* a namespace */

typedef struct egi_server_kind {
  const char *name; /* for people */
  size_t size;
  bool (*alike)(const egi_server *server, const void *options);
  /* Of zeroes; false: no memory, and empty is called. */
  bool (*fill)(egi_server *server, const void *options);
  void (*empty)(egi_server *server);
  /* In the child of a fork: idle connections are the parent's. */
  void (*forked)(egi_server *server);
  /* On a thread of its own, until egi_listener_ends. */
  void (*listen)(egi_server *server);
} egi_server_kind;

struct egi_server {
  const egi_server_kind *kind;
  egi_server *next;
  unsigned handles;
  egi_namespace *spaces;
  eg_env env; /* the process's allocator; no log */
  pthread_mutex_t mutex;
  pthread_cond_t cond; /* a connection was given back */
  unsigned open;       /* connections, in use or idle */
  unsigned generation; /* of forks */
  pthread_mutex_t listen_mutex;
  pthread_cond_t listen_cond; /* a topic is heard */
  egi_topic *topics;
  egi_watch *watches;
  pthread_t listener;
  bool listening, ends;
  int kick; /* eventfd: there is something to do for the listener */
};

/* egi_server_find: the server of these options, made where there is none.
** egi_server_leave: with its last handle it is gone.
** egi_server_space: what the handles of a namespace have in common, as
** egi_store.space; for egi_server_leave.  NULL: no memory, and so nothing. */
eg_status egi_server_find(const egi_server_kind *kind, const void *options,
                          egi_server **server, eg_error *error);
const void *egi_server_space(egi_server *server, const char *name);
void egi_server_leave(egi_server *server, const void *space);

/* egi_server_is_new_child: was there a fork since *generation was read?  True
** once, in the child. */
unsigned egi_server_generation(const egi_server *server);
bool egi_server_is_new_child(const egi_server *server, unsigned *generation);

/* ---------------------------------------------------- remote_listen.c -- */

void egi_listener_stop(egi_server *server);
void egi_listener_forked(egi_server *server);
bool egi_listener_ends(egi_server *server);

/* egi_listener_rest: a while without a connection, or until there is something
** to do.  egi_listener_want_all: after the connection is gone: all is to be
** asked for again, and what was missed meanwhile nobody knows. */
void egi_listener_rest(egi_server *server, unsigned nth);
void egi_listener_want_all(egi_server *server);

/* egi_topic_remove: with the listen mutex.  egi_topic_heard: the server has
** said that it will tell; who watched it before is told to look once more, for
** who looked when the connection broke did so before this one. */
void egi_topic_remove(egi_server *server, egi_topic **link);
void egi_topic_heard(egi_server *server, eg_bytes name);

/* egi_watch_subscribe: enlists it, and waits until its topic is heard; on a
** failure it is not in the list.  egi_watch_leave: ends and frees it.
** egi_watch_is_of: is that its topic?  With the listen mutex. */
eg_status egi_watch_subscribe(egi_server *server, egi_watch *watch,
                              eg_bytes name, int64_t until_us,
                              eg_error *error);
void egi_watch_leave(egi_server *server, egi_watch *watch);
bool egi_watch_is_of(const egi_watch *watch, eg_bytes name);

/* ---------------------------------------------------- remote_recall.c -- */

/*
** What was last seen of keys from here.  It may be long outdated: a guess to
** swap from, never an answer.  Bounded: EGI_RECALL_KEYS keys, none with more
** than EGI_RECALL_BYTES of record, the oldest goes first.  Thread-safe.
*/
enum { EGI_RECALL_KEYS = 512, EGI_RECALL_BYTES = 2048 };

typedef struct egi_recall egi_recall;

egi_recall *egi_recall_new(const eg_env *env);
void egi_recall_free(egi_recall *recall);

/* egi_recall_keep: this was seen; of an absent key nothing is kept. */
void egi_recall_keep(egi_recall *recall, eg_bytes key, const egi_seen *seen);

/* egi_recall_swapped: this swap landed, and left that (without bytes). */
void egi_recall_swapped(egi_recall *recall, eg_bytes key, const egi_swap *swap,
                        const egi_seen *seen);

void egi_recall_drop(egi_recall *recall, eg_bytes key);

/* egi_recall_get: fills seen, as it would look by now if nobody else had been
** there.  False: nothing is known, or there is no memory. */
bool egi_recall_get(egi_recall *recall, eg_bytes key, egi_seen *seen);

/* egi_recall_forked: in the child of a fork. */
void egi_recall_forked(egi_recall *recall);

/* ----------------------------------------------------- remote_holds.c -- */

/*
** The holds of a handle, so that its end can end them.
*/
typedef struct egi_holding egi_holding;
struct egi_holding {
  egi_holding *next;
  uint64_t hash, token; /* token 0: not known (yet) */
  /* The store's own: */
  uint64_t lease;
  int64_t seconds, fresh_us, end_us;
  bool bare;
  size_t len;
  unsigned char key[];
};

enum { EGI_HOLDING_BUCKETS = 64 };

typedef struct egi_holding_set {
  pthread_mutex_t mutex;
  egi_holding *buckets[EGI_HOLDING_BUCKETS];
} egi_holding_set;

/* egi_holding_new: an entry that egi_holding_add or egi_holding_free takes.
** NULL: no memory. */
egi_holding *egi_holding_new(eg_bytes key, const eg_env *env);
void egi_holding_free(egi_holding *held, const eg_env *env);

bool egi_holding_init(egi_holding_set *set);
void egi_holding_clear(egi_holding_set *set, const eg_env *env);
void egi_holding_add(egi_holding_set *set, egi_holding *held, uint64_t token,
                     const eg_env *env);
/* egi_holding_look: what is noted there under that token; next is not to be
** used.  egi_holding_note: notes another lease and end. */
bool egi_holding_look(egi_holding_set *set, eg_bytes key, uint64_t token,
                      egi_holding *out);
void egi_holding_note(egi_holding_set *set, eg_bytes key,
                      const egi_holding *news);
/* token 0: whichever is held there. */
void egi_holding_remove(egi_holding_set *set, eg_bytes key, uint64_t token,
                        const eg_env *env);
/* egi_holding_take: takes out at most n; returns how many. */
size_t egi_holding_take(egi_holding_set *set, egi_holding **out, size_t n);

#endif
