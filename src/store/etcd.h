/* SPDX-License-Identifier: MIT
** What the files of the etcd store share: endpoints, requests, keys, leases.
**
** etcd is spoken to by its JSON gateway (/v3), with libcurl.  A key of ours is
** up to five of theirs (NAME with % and / as %25 and %2F):
**
**   eg/NAME/rec/KEY   the record.  No lease: it stays when its holder dies
**   eg/NAME/own/KEY   the exclusion, with a lease of its own: who holds
**   eg/NAME/nbf/KEY   notBefore still runs    )
**   eg/NAME/frs/KEY   fresh still runs        )  each with a lease of its own
**   eg/NAME/lif/KEY   life still runs         )
**
** the last runs that ended are eg/NAME/his/KEY/NN, with a lease for each day
** (etcd_history.c),
** and eg/NAME/brk is written where a grant is revoked that nobody has.
**
** etcd has no clock that can be asked, so whether a time is over is told by
** the key of that time being gone, and by nothing else.  What is left of it is
** reckoned by the clock of whoever looks, from what is written in the record:
** never more than the length that was set, never nothing while the key stands.
**
** Every swap is one transaction that compares the revision of rec, and writes
** it: the revision is the version.  The token is the revision of the swap that
** took or broke.  A rec without bytes whose own and nbf are gone, or one whose
** own and lif are gone, is absent: a ghost, until somebody sweeps it.
**
**   rec   format 1, flags 1, token 8 (0: none; all ones: its own revision),
**         stamp 8, of each time that is set: end 8, length 8 (microseconds
**         by the clock of who set it); then the bytes of the record
**   own   format 1, flags 1 (1: wake), end 8, length 8; then the holder line
**
** Numbers are little-endian.  Locks are those of remote.h; the hub's mutex
** guards idle connections, the endpoint in use, the password's token, leases
** that nobody uses, and ghosts.
*/
#ifndef EG_STORE_ETCD_H
#define EG_STORE_ETCD_H

#include "store/remote.h"

#include <curl/curl.h>
#include <jansson.h>

enum {
  EGI_ETCD_PREFIX = 3 * EG_NAME_MAX + 8, /* "eg/NAME/" */
  EGI_ETCD_KEY = EGI_ETCD_PREFIX + 4 + EG_KEY_MAX,
  EGI_ETCD_OPS = 100,       /* in one transaction; the server's limit is 128 */
  EGI_ETCD_LEASE_LEAST = 2, /* seconds */
  EGI_ETCD_SPARE = 64,      /* leases kept for the next holds */
  EGI_ETCD_GHOSTS = 1024
};

/* What a URL says. */
typedef struct egi_etcd_options {
  egi_address address;
  bool tls;
  char *password;                    /* from elsewhere than the URL, or NULL */
  char ca[512], cert[512], key[512]; /* paths; empty: the system's, none */
  int64_t timeout_us;                /* of one operation, with its new tries */
  int64_t lease_ms;
  unsigned connections;
} egi_etcd_options;

typedef struct egi_etcd_wire egi_etcd_wire; /* a connection */
typedef struct egi_etcd_hub egi_etcd_hub;

/* A text that grows; `failed` once there was no memory. */
typedef struct egi_text_buf {
  char *data;
  size_t len, cap;
  bool failed;
} egi_text_buf;

struct egi_etcd_wire {
  egi_etcd_wire *next;
  CURL *easy;
  struct curl_slist *headers;
  char why[CURL_ERROR_SIZE]; /* what curl says of an error */
  unsigned token;            /* that the headers have; of the hub's count */
  bool used;                 /* there was a connection before */
  egi_text_buf reply;
};

/* A lease of ours that no key has. */
typedef struct egi_etcd_lease {
  uint64_t id; /* 0: none */
  int64_t seconds;
  int64_t fresh_us; /* real: when it had all its time */
} egi_etcd_lease;

struct egi_etcd_hub {
  egi_server base;
  egi_etcd_options options;
  egi_etcd_wire *idle;
  unsigned endpoint; /* in use */
  char *auth;        /* "Authorization: ...", or NULL */
  unsigned auths;    /* how many there were */
  egi_etcd_lease spare[EGI_ETCD_SPARE];
  unsigned n_spare;
  struct {
    uint64_t hash, revision;
  } ghosts[EGI_ETCD_GHOSTS];
};

typedef struct egi_etcd {
  egi_store base;
  eg_env env;
  egi_etcd_hub *hub;
  int64_t timeout_us;
  int64_t epoch_us; /* wall minus steady, when it was opened: a wall clock that
                       is set back prolongs nothing */
  egi_recall *recall;
  egi_holding_set holds;
  char prefix[EGI_ETCD_PREFIX];
  size_t prefix_len;
  int64_t sweep_us;    /* steady; tend's alone */
  unsigned generation; /* of forks, as the hub counts them */
} egi_etcd;

/* -------------------------------------------------------- etcd_url.c -- */

eg_status egi_etcd_options_read(const egi_url *url, const eg_env *env,
                                egi_etcd_options *options, eg_error *error);
void egi_etcd_options_free(egi_etcd_options *options, const eg_env *env);
bool egi_etcd_options_copy(egi_etcd_options *to, const egi_etcd_options *from,
                           const eg_env *env);
bool egi_etcd_options_alike(const egi_etcd_options *a,
                            const egi_etcd_options *b);
const char *egi_etcd_password(const egi_etcd_options *options);

/* ------------------------------------------------------- etcd_text.c -- */

void egi_text_free(egi_text_buf *text);
void egi_text_clear(egi_text_buf *text);
void egi_text_add(egi_text_buf *text, const char *data, size_t len);
void egi_text_put(egi_text_buf *text, const char *string);
void egi_text_number(egi_text_buf *text, uint64_t number); /* in quotes */
/* Bytes in base 64, in quotes; two parts as one. */
void egi_text_bytes(egi_text_buf *text, eg_bytes a, eg_bytes b);

/* egi_unbase64: in memory of malloc; false: it is none, or no memory. */
bool egi_unbase64(const char *text, unsigned char **out, size_t *len);

uint64_t egi_json_number(const json_t *object, const char *name);
uint64_t egi_json_revision(const json_t *reply);

/* ------------------------------------------------------- etcd_wire.c -- */

/* egi_etcd_wire_new: no connection is made yet.  egi_etcd_easy: what all
** requests have in common; false: no memory. */
egi_etcd_wire *egi_etcd_wire_new(egi_etcd_hub *hub);
void egi_etcd_wire_free(egi_etcd_hub *hub, egi_etcd_wire *wire);
/* In the child of a fork: the connection is the parent's. */
void egi_etcd_wire_abandon(egi_etcd_wire *wire);

/* What came of a request. */
typedef struct egi_etcd_reply {
  CURLcode curl;
  long http;
  bool sent;    /* some of it */
  bool perhaps; /* curl may have sent it twice */
  char why[160];
  bool stranger; /* TLS: it wants a certificate, or another one */
} egi_etcd_reply;

/* egi_etcd_aim: sets the URL and headers of a handle. */
bool egi_etcd_aim(egi_etcd_hub *hub, egi_etcd_wire *wire, const char *path);
void egi_etcd_post(egi_etcd_hub *hub, egi_etcd_wire *wire, const char *path,
                   const egi_text_buf *body, int64_t until_us,
                   egi_etcd_reply *reply);
/* egi_etcd_host: "host:port", for messages. */
const char *egi_etcd_host(const egi_etcd_hub *hub, char *text, size_t size);

/* -------------------------------------------------------- etcd_hub.c -- */

extern const egi_server_kind egi_etcd_kind;

eg_status egi_etcd_borrow(egi_etcd_hub *hub, int64_t until_us,
                          egi_etcd_wire **wire, eg_error *error);
void egi_etcd_return(egi_etcd_hub *hub, egi_etcd_wire *wire);
/* egi_etcd_move_on: `endpoint` did not answer: the next one is used. */
void egi_etcd_move_on(egi_etcd_hub *hub, unsigned endpoint);
unsigned egi_etcd_endpoint(egi_etcd_hub *hub);

/* The revision that a key was seen with when it was absent; 0: none. */
uint64_t egi_etcd_ghost(egi_etcd_hub *hub, uint64_t hash);
void egi_etcd_ghost_note(egi_etcd_hub *hub, uint64_t hash, uint64_t revision);

/* ------------------------------------------------------- etcd_call.c -- */

typedef struct egi_etcd_call {
  const char *path; /* behind /v3 */
  bool writes;      /* once sent, it may have been applied */
  bool hasty;       /* asked again but once: nobody waits for it */
  bool lines;       /* a stream: all of it is in `text` of the wire */
  bool perhaps;     /* set: what it says of itself may be an older self's */
} egi_etcd_call;

/* egi_etcd_ask: asks, again and again until the time is up where that is safe.
** OK: *reply is an object, and the caller's.  UNAVAILABLE (nothing was
** applied), INDETERMINATE, DENIED, INTERNAL; NOTFOUND: there is no such lease;
** EGI_ETCD_THERE: there is one of that number.  Of a stream, *reply is an
** array of its results. */
#define EGI_ETCD_THERE EG_CACHED
eg_status egi_etcd_ask(egi_etcd_hub *hub, egi_etcd_call *call,
                       const egi_text_buf *body, int64_t until_us,
                       json_t **reply, eg_error *error);

/* ------------------------------------------------------ etcd_lease.c -- */

/* egi_etcd_lease_take: a lease that is used by nobody, with all its time but
** stale_us.  egi_etcd_lease_give: one that is not used any more. */
eg_status egi_etcd_lease_take(egi_etcd_hub *hub, int64_t seconds,
                              int64_t stale_us, int64_t until_us,
                              egi_etcd_lease *lease, eg_error *error);
void egi_etcd_lease_give(egi_etcd_hub *hub, const egi_etcd_lease *lease);
/* egi_etcd_lease_keep: all their time again; seconds[i] 0: it is over. */
eg_status egi_etcd_lease_keep(egi_etcd_hub *hub, const uint64_t *ids, size_t n,
                              int64_t until_us, int64_t *seconds,
                              eg_error *error);
/* egi_etcd_lease_make: one of that number, whoever makes it first. */
eg_status egi_etcd_lease_make(egi_etcd_hub *hub, uint64_t id, int64_t seconds,
                              int64_t until_us, eg_error *error);
int64_t egi_etcd_seconds(int64_t ms);

/* ------------------------------------------------------ etcd_state.c -- */

enum { EGI_NBF, EGI_FRS, EGI_LIF, EGI_TIMES };

/* A token that is the revision of the transaction that writes it. */
#define EGI_ETCD_THIS UINT64_MAX

/* What there is of a key.  Times are microseconds. */
typedef struct egi_etcd_state {
  uint64_t revision; /* of rec; 0: there is none */
  uint64_t token;
  int64_t stamp;
  int64_t end[EGI_TIMES], length[EGI_TIMES]; /* length 0: not set */
  bool runs[EGI_TIMES];
  uint64_t own; /* token of who holds; 0: nobody does */
  uint64_t lease;
  int64_t lease_end, lease_length; /* length 0: none */
  eg_bytes bytes, holder;
  unsigned char *rec_text, *own_text; /* what they are in; malloc */
} egi_etcd_state;

/* EGI_CNT: what is counted, none of the parts of a record. */
enum {
  EGI_REC,
  EGI_OWN,
  EGI_TIME,
  EGI_KINDS = EGI_TIME + EGI_TIMES,
  EGI_CNT = EGI_KINDS
};

/* A key of theirs. */
typedef struct egi_etcd_key {
  char text[EGI_ETCD_KEY];
  size_t len;
} egi_etcd_key;

void egi_etcd_key_make(const egi_etcd *etcd, int kind, eg_bytes key,
                       egi_etcd_key *out);
/* egi_etcd_key_read: of a key behind the prefix: its kind, and ours; -1: it is
** none of ours. */
int egi_etcd_key_read(const unsigned char *text, size_t len, eg_bytes *key);
/* "key":"...", of the record's parts. */
void egi_etcd_key_put(egi_text_buf *body, const egi_etcd *etcd, int kind,
                      eg_bytes key);
/* egi_etcd_ranges: EGI_KINDS of them, or EGI_TIME without those of times. */
void egi_etcd_ranges(egi_text_buf *body, const egi_etcd *etcd, eg_bytes key,
                     int n);

void egi_etcd_state_free(egi_etcd_state *state);
/* egi_etcd_state_read: of the responses to egi_etcd_ranges.  CORRUPT. */
eg_status egi_etcd_state_read(const json_t *responses, egi_etcd_state *state,
                              eg_error *error);
bool egi_etcd_read_rec(const json_t *kv, egi_etcd_state *state);
bool egi_etcd_read_own(const json_t *kv, egi_etcd_state *state);
void egi_etcd_pack_rec(const egi_etcd_state *state, unsigned char *head,
                       size_t *len);
enum { EGI_ETCD_HEAD = 18 + 16 * EGI_TIMES, EGI_ETCD_OWN_HEAD = 18 };
void egi_etcd_pack_own(const egi_etcd_state *state, bool wake,
                       unsigned char *head);
bool egi_etcd_own_wakes(const json_t *kv);

/* egi_etcd_is_timed: is a time set, over or not? */
bool egi_etcd_is_timed(const egi_etcd_state *state);
bool egi_etcd_is_absent(const egi_etcd_state *state);
/* egi_etcd_see: borrows bytes and holder. */
void egi_etcd_see(const egi_etcd *etcd, const egi_etcd_state *state,
                  eg_bytes key, egi_seen *seen);
/* egi_etcd_recall: what was last seen, as a state; false: nothing. */
bool egi_etcd_recall_state(egi_etcd *etcd, eg_bytes key, uint64_t version,
                           egi_seen *seen, egi_etcd_state *state);

/* -------------------------------------------------------- etcd_swap.c -- */

int64_t egi_etcd_now(const egi_etcd *etcd); /* wall, of the handle */
eg_status egi_etcd_fetch(egi_etcd *etcd, eg_bytes key, int64_t until_us,
                         egi_etcd_state *state, eg_error *error);
eg_status egi_etcd_swap(egi_store *store, eg_bytes key, const egi_swap *swap,
                        int64_t deadline_us, egi_seen *seen, eg_error *error);

/* ------------------------------------------------------------- etcd.c -- */

void egi_etcd_notice_fork(egi_etcd *etcd);
eg_status egi_etcd_load(egi_store *store, eg_bytes key, int64_t deadline_us,
                        egi_seen *seen, eg_error *error);

/* ------------------------------------------------------ etcd_holds.c -- */

eg_status egi_etcd_renew(egi_store *store, const egi_hold_ref *holds, size_t n,
                         int64_t lease_ms, eg_status *each, eg_error *error);
void egi_etcd_drop_all(egi_etcd *etcd);

/* ------------------------------------------------------ etcd_watch.c -- */

eg_status egi_etcd_watch(egi_store *store, eg_bytes key, const egi_seen *seen,
                         egi_watch **watch, int *fd, eg_error *error);
eg_status egi_etcd_wait(egi_watch *watch, int64_t deadline_us,
                        eg_error *error);
void egi_etcd_unwatch(egi_watch *watch);
void egi_etcd_listen(egi_server *server);

/* ------------------------------------------------------ etcd_count.c -- */

eg_status egi_etcd_add(egi_store *store, eg_bytes key, const egi_counts *more,
                       int64_t deadline_us, eg_error *error);
eg_status egi_etcd_counts(egi_store *store, eg_bytes prefix, bool exact,
                          int64_t deadline_us, egi_counts_fn visit, void *ctx,
                          eg_error *error);

/* ------------------------------------------------------- etcd_scan.c -- */

eg_status egi_etcd_scan(egi_store *store, eg_bytes prefix, egi_visit_fn visit,
                        void *ctx, eg_error *error);
/* egi_etcd_sweep: deletes ghosts, and what was counted of them. */
void egi_etcd_sweep(egi_etcd *etcd);

/* ---------------------------------------------------- etcd_history.c -- */

/* egi_etcd_past_put: "key":"...", where what is kept of that run goes, and
** "lease":..., that of its day, which egi_etcd_past_lease makes. */
void egi_etcd_past_put(egi_text_buf *body, const egi_etcd *etcd, eg_bytes key,
                       uint32_t count);
eg_status egi_etcd_past_lease(const egi_etcd *etcd, int64_t until_us,
                              eg_error *error);
eg_status egi_etcd_history(egi_store *store, eg_bytes key, size_t n,
                           eg_visit_past visit, void *ctx, eg_error *error);

#endif
