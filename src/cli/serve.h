/* SPDX-License-Identifier: MIT
** What the files of eguard serve share: the page and the figures over HTTP.
**
** THREADS
**
**   web        libmicrohttpd's own, one: every connection, by epoll.  It never
**              calls the store; what is not at hand it suspends.
**   collector  scans the store, for all clients together, as long as anybody
**              looks, and publishes: the state, the runs, and events.
**   clerk      does what is asked of the store for one client: a key, the
**              metrics.
**
** ONE MUTEX (ec_server.mutex) guards what they share.  It is never held while
** the store is called or a response is built; libmicrohttpd's resume and
** suspend are called with it held (they take its own locks, and call nothing
** back), so that no resume comes before its suspend.
*/
#ifndef EG_CLI_SERVE_H
#define EG_CLI_SERVE_H

#include <microhttpd.h>
#include <pthread.h>
#include <sys/socket.h>

#include "cli/cli.h"

/* ---- serve_text.c: text that grows, and escapes ---- */

typedef struct ec_text {
  char *at;
  size_t len, room;
  bool broken; /* there was no memory: what it has is not all */
} ec_text;

void ec_text_add(ec_text *text, const void *data, size_t n);
void ec_text_say(ec_text *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* As a JSON string, quotes included; what is no UTF-8 becomes U+FFFD. */
void ec_text_quote(ec_text *text, eg_bytes bytes);
/* Every byte but letters, digits and -._~ as %XX. */
void ec_text_percent(ec_text *text, eg_bytes bytes);
/* As one word of a shell's command line. */
void ec_text_shell(ec_text *text, eg_bytes bytes);
void ec_text_free(ec_text *text);

/* ---- serve_access.c: who may ask ---- */

typedef struct ec_access {
  bool guarded;      /* a token is asked for */
  bool form;         /* it may be typed in: it is in a file */
  char token[256];   /* the file's, or one that was made */
  char session[65];  /* what the cookie has */
  char link[65];     /* of the one-time link; "": it was used */
  const char *names; /* hosts beside addresses and localhost: "a,b" */
} ec_access;

/* Prepares what the options ask for.  Returns 0, or an exit status after
** saying why. */
int ec_access_setup(ec_access *access, const ec_options *options,
                    bool loopback);

typedef enum ec_verdict {
  EC_WELCOME,
  EC_STRANGER,   /* no token, no cookie, or a wrong one */
  EC_WRONG_HOST, /* a name that is not ours: DNS rebinding */
  EC_WRONG_SITE  /* another site's page asks */
} ec_verdict;

ec_verdict ec_access_judge(const ec_access *access,
                           struct MHD_Connection *connection);
/* Is this name in a Host header ours? */
bool ec_host_is_ours(const char *host, const char *names);
/* Does not tell by its time how much of it is right. */
bool ec_same_secret(const char *right, const char *given, size_t given_len);

/* ---- serve_listen.c: where to listen ---- */

typedef struct ec_place {
  struct sockaddr_storage address;
  socklen_t size;
  bool loopback;
} ec_place;

bool ec_parse_place(const char *text, ec_place *place, char *message,
                    size_t size);
/* A listening socket, or -1 and errno. */
int ec_listen(const ec_place *place);
/* "http://127.0.0.1:9464" of a socket. */
char *ec_place_url(int fd, char *text, size_t size);

/* ---- serve_rows.c: what the last scan saw, by key ---- */

typedef struct ec_known_row {
  char *json; /* an array, as ec_known_columns names it */
  size_t json_len;
  uint64_t version, hash, round;
  int64_t last_us;
  uint32_t blocked, waiters;
  double progress;
  uint16_t key_len;
  uint8_t status;
  bool locked, corrupt;
  unsigned char key[];
} ec_known_row;

typedef struct ec_known {
  ec_known_row **all; /* dense */
  size_t count, room;
  uint32_t *index; /* of all, by hash; places + 1, 0: free */
  size_t index_size;
  uint64_t round;
  bool broken; /* no memory for one */
} ec_known;

extern const char ec_known_columns[];

/* Takes what a scan shows.  *ended: a run of it ended since the last time.
** Returns the row if anything of it is new, else NULL. */
const ec_known_row *ec_known_see(ec_known *rows, const eg_record *record,
                                 uint32_t waiters, bool *ended);
/* After a whole scan: drops what was not seen, and adds the keys, as JSON, to
** gone.  Returns how many. */
size_t ec_known_sweep(ec_known *rows, ec_text *gone);
void ec_known_free(ec_known *rows);
/* What names a key in the page: its text; when that is none, or begins with
** it, a NUL and its bytes as ec_text_percent has them. */
void ec_text_key(ec_text *text, eg_bytes key);

/* ---- serve_runs.c: what ended within the hour ---- */

enum { EC_RUNS = 20000, EC_MINUTES = 60 };

typedef struct ec_ended {
  int64_t end_us;
  char *json;
  size_t json_len;
} ec_ended;

typedef struct ec_runs {
  ec_ended *ring; /* EC_RUNS of them, oldest first from `first` */
  size_t first, count;
  uint64_t newest; /* what the store's history began with, last time */
  bool unkept;     /* the store remembers none: those of the rows */
  bool cut;        /* there were more than it has room for */
} ec_runs;

/* Adds one, and its JSON to fresh (after a comma). */
void ec_runs_add(ec_runs *runs, const eg_past *past, ec_text *fresh);
/* Those of the store's history that are new.  False: there are none, or the
** store does not say. */
bool ec_runs_ask(ec_runs *runs, eg_guard *guard, ec_text *fresh);
void ec_runs_forget(ec_runs *runs, int64_t before_us);
void ec_runs_print(const ec_runs *runs, ec_text *text);
void ec_runs_free(ec_runs *runs);

/* ---- serve_waiters.c: processes that wait for locks in files ---- */

typedef struct ec_waiters {
  int dir;          /* the folder of lock files; -1: it is another store */
  const char *name; /* of the namespace */
  uint64_t *inodes; /* one for each process that waits */
  size_t count, room;
} ec_waiters;

void ec_waiters_open(ec_waiters *waiters, const ec_options *options);
void ec_waiters_look(ec_waiters *waiters);
uint32_t ec_waiters_of(const ec_waiters *waiters, eg_bytes key);
void ec_waiters_close(ec_waiters *waiters);

/* ---- serve.c, serve_web.c, serve_events.c, serve_collect.c, clerk ---- */

typedef struct ec_event {
  uint64_t number;
  char *text; /* as it goes over the wire */
  size_t len;
} ec_event;

/* What has happened, for all who listen: one copy of each event.  Who falls
** further behind than this is hung up on, and begins again. */
enum { EC_EVENTS = 256, EC_EVENT_BYTES = 4 * 1024 * 1024 };

typedef struct ec_request ec_request;

typedef struct ec_server {
  const ec_options *options;
  eg_guard *guard;
  ec_access access;
  ec_waiters waiters;
  char store[4300]; /* the URL, without what is secret */
  struct MHD_Daemon *daemon;
  pthread_t collector, clerk;
  pthread_mutex_t mutex;
  pthread_cond_t look, ask; /* wake the collector, the clerk */
  _Atomic bool stopping;    /* is set under the mutex */
  /* the rest under the mutex */
  struct MHD_Response *state, *runs; /* as they were last */
  uint64_t number;                   /* of the latest event */
  int64_t published_us, asked_us;    /* steady */
  ec_event events[EC_EVENTS];        /* a ring: the number tells the place */
  uint64_t oldest;                   /* number of the oldest that is kept */
  size_t event_bytes;
  ec_request *idle;    /* listeners with nothing to send: suspended */
  ec_request *waiting; /* for the next round of the collector */
  ec_request *asking, **asking_end; /* for the clerk, in order */
  unsigned listeners;
} ec_server;

typedef enum ec_what {
  EC_ASK_STATE,
  EC_ASK_RUNS,
  EC_ASK_KEY,
  EC_ASK_METRICS,
  EC_ASK_OPENMETRICS
} ec_what;

struct ec_request {
  ec_server *server;
  struct MHD_Connection *connection;
  ec_request *next, *before; /* in one of the lists */
  bool listed;
  ec_what what;
  unsigned char key[EG_KEY_MAX];
  size_t key_len;
  bool asked;                  /* and it has been suspended for it */
  struct MHD_Response *answer; /* by the clerk */
  unsigned code;
  /* a listener */
  bool listens;
  uint64_t at;     /* the event that it is to get, or gets */
  size_t offset;   /* in it */
  char hello[128]; /* before the first one */
  /* a form */
  char form[1024];
  size_t form_len;
};

/* serve_web.c */
struct MHD_Daemon *ec_web_start(ec_server *server, int fd);
/* Text becomes the response's.  NULL: no memory. */
struct MHD_Response *ec_respond(ec_text *text, const char *type);

/* serve_files.c: the page, in the program */
typedef struct ec_file {
  const char *path, *type;
  const unsigned char *data;
  const unsigned *size;
} ec_file;
const ec_file *ec_find_file(const char *path);

/* serve_events.c: under the mutex, but for listen and left */
void ec_tell_all(ec_server *server, const char *kind, ec_text *data);
enum MHD_Result ec_listen_to_events(ec_request *request);
void ec_resume(ec_request **list);
void ec_put(ec_request **list, ec_request *request);
void ec_take(ec_request **list, ec_request *request);

/* serve_collect.c, serve_clerk.c: the threads */
void *ec_collect(void *server);
void *ec_answer(void *server);
void ec_wake_collector(ec_server *server); /* under the mutex */

/* In the program that has libmicrohttpd; in the others it is not there. */
int ec_serve_here(ec_options *options) __attribute__((weak));

#endif
