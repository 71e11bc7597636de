/* SPDX-License-Identifier: MIT
** Real Redis servers for tests, each on a socket in a directory of its own, and
** a wire in between that can be cut.
*/
#ifndef SPEC_SERVER_H
#define SPEC_SERVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

typedef struct server {
  char dir[64];
  char socket[96]; /* path */
  int port;        /* 0: the socket only */
  pid_t pid;
  char options[400];
} server;

/* Starts a server with these further options ("--name value ..."), and waits
** until it answers.  False: it does not. */
bool server_start(server *s, int port, const char *options);
/* Again, after server_kill, with the same options. */
bool server_restart(server *s);
void server_signal(const server *s, int signal_number);
/* To a child of this process; of SIGSTOP it waits for the effect. */
void server_signal_child(pid_t pid, int signal_number);
void server_kill(server *s);
/* Kills it and removes its directory. */
void server_end(server *s);

/* A free port, at least `from`. */
int server_free_port(int from);

/* Runs a command by redis-cli; its output, without the last newline, is valid
** until the next call.  words: as a shell takes them. */
const char *server_say(const server *s, const char *words);
/* A number in the answer behind `name` ("calls=" ...); -1: none. */
long server_count(const server *s, const char *words, const char *name);

/* A wire: a socket that passes everything on to a server. */
typedef struct wire {
  char path[128];
  const server *to;
  int to_port, port; /* over TCP: the server's, and its own */
  atomic_int posts;  /* requests of HTTP that went through */
  int listener;
  pthread_t thread;
  /* Cuts a connection when a request with this text has gone through, or
  ** before it does (swallow); one time, then NULL again. */
  _Atomic(const char *) cut_after, swallow;
  atomic_int cuts;
  atomic_bool ends;
  pthread_mutex_t mutex;
  /* A request that was swallowed, to be delivered later; under the mutex. */
  char kept[8192];
  size_t kept_len;
} wire;

bool wire_start(wire *w, const server *to);
bool wire_start_port(wire *w, int to_port);
/* Delivers what was swallowed, and waits for the answer. */
bool wire_deliver(wire *w);
void wire_end(wire *w);

#endif
