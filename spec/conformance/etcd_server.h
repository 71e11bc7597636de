/* SPDX-License-Identifier: MIT
** Real etcd servers for tests: one, or the members of a cluster.
*/
#ifndef SPEC_ETCD_SERVER_H
#define SPEC_ETCD_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

enum { ETCD_MEMBERS_MAX = 3 };

enum {
  ETCD_TLS = 1,     /* with the certificate in dir/cert.pem */
  ETCD_CLIENTS = 2, /* and only for who has that one, too (dir/key.pem) */
  ETCD_APART = 4    /* each in a network namespace of its own; see there */
};

typedef struct etcd_cluster {
  char dir[64];
  int n;
  int ports[ETCD_MEMBERS_MAX]; /* of clients; peers: the next one */
  pid_t pids[ETCD_MEMBERS_MAX];
  int kind;
  char hosts[ETCD_MEMBERS_MAX][16];
} etcd_cluster;

/* Starts n members and waits until they answer.  False: they do not.
** Apart: the calling thread, and those that it starts from here on, are in a
** namespace with nothing but the way to the members.  False also where that is
** not allowed: etcd_may_part says so before. */
bool etcd_start(etcd_cluster *c, int n, int kind);
bool etcd_may_part(void);
/* Of members that are apart: away: nobody reaches it, or it anybody; alone: it
** does not reach the other members any more, who uses it does; else as in the
** beginning.  False: that could not be done. */
typedef enum { ETCD_TOGETHER, ETCD_ALONE, ETCD_AWAY } etcd_cut;
bool etcd_cut_off(const etcd_cluster *c, int member, etcd_cut how);
/* Again, with its data, and waits until it answers. */
bool etcd_restart(etcd_cluster *c, int member);
void etcd_signal(const etcd_cluster *c, int member, int signal_number);
void etcd_kill(etcd_cluster *c, int member);
/* Kills them all and removes their directory. */
void etcd_end(etcd_cluster *c);

/* The store's URL of all members, with a query. */
const char *etcd_url(const etcd_cluster *c, const char *user,
                     const char *query);
int etcd_leader(const etcd_cluster *c);
/* Runs etcdctl on a member; its output is valid until the next call.  words:
** as a shell takes them. */
const char *etcd_say(const etcd_cluster *c, int member, const char *words);

#endif
