/* SPDX-License-Identifier: MIT
** Real etcd servers for tests: one, or the members of a cluster.
*/
#ifndef SPEC_ETCD_SERVER_H
#define SPEC_ETCD_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

enum { ETCD_MEMBERS_MAX = 3 };

typedef struct etcd_cluster {
  char dir[64];
  int n;
  int ports[ETCD_MEMBERS_MAX]; /* of clients; peers: the next one */
  pid_t pids[ETCD_MEMBERS_MAX];
  bool tls; /* with the certificate in dir/cert.pem */
} etcd_cluster;

/* Starts n members and waits until they answer.  False: they do not. */
bool etcd_start(etcd_cluster *c, int n, bool tls);
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
