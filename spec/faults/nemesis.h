/* SPDX-License-Identifier: MIT
** The nemesis: processes that use a store while everything goes wrong that
** can.
**
**   driver ── forks ── workers    random runs and locks; each writes what it
**     │                            did to a file (spec/tools/check-history)
**     ├────── forks ── proxy      a port for each worker, before the server's:
**     │                            passes on, slowly, late, or not at all
**     └────── forks ── server     killed, started again, with its data or not
**
** What the driver wants of proxy and workers stands on a board that all of
** them share.
*/
#ifndef SPEC_NEMESIS_H
#define SPEC_NEMESIS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "executionguard.h"

enum {
  NEMESIS_WORKERS = 8,
  NEMESIS_READER = NEMESIS_WORKERS, /* who looks at all in the end */
  NEMESIS_PORTS,
  NEMESIS_KEYS = 10, /* that run again and again, and as many that run once */
  NEMESIS_ONCE_US = 1500000 /* then those have other names */
};

/* A store on a server: one line of the table in nemesis_test.c. */
typedef struct nemesis_store {
  const char *name;    /* as spec/tools/store-server calls it */
  const char *program; /* the command that has to be there */
  const char *url;     /* with %d for the port */
  int crash_signal;    /* what ends it as a power cut would */
  int lease_ms;
  int gone_ms;  /* when it is over for sure: etcd takes its time */
  int grants;   /* a second, at the least: a server may be slow to start */
  bool forgets; /* its tokens begin anew when it is emptied: it never is */
} nemesis_store;

typedef struct nemesis_board {
  char dir[64];
  int64_t start_us;
  _Atomic bool stop;
  /* For each worker: */
  _Atomic int64_t step_us[NEMESIS_PORTS]; /* its wall clock is wrong by that */
  _Atomic int64_t delay_us[NEMESIS_PORTS]; /* of what goes over its wire */
  _Atomic int64_t hole_us[NEMESIS_PORTS];  /* nothing comes before that time */
  _Atomic int cuts[NEMESIS_PORTS];         /* its connections end */
  int ports[NEMESIS_PORTS], listeners[NEMESIS_PORTS];
  int server_port;
} nemesis_board;

/* nemesis_proxy.c: listens, on free ports that it writes on the board; then
** passes on until it is killed. */
bool nemesis_listen(nemesis_board *board);
void nemesis_pass_on(nemesis_board *board) __attribute__((noreturn));

/* nemesis_worker.c: uses the store until the board says stop; reads all that
** there is, once. */
void nemesis_work(nemesis_board *board, const nemesis_store *store, int number,
                  int life) __attribute__((noreturn));
void nemesis_read_all(nemesis_board *board, const nemesis_store *store)
    __attribute__((noreturn));

/* A guard through the port of that number; NULL with error filled. */
eg_guard *nemesis_open(nemesis_board *board, const nemesis_store *store,
                       int number, eg_error *error);

int64_t nemesis_now_us(void);
uint32_t nemesis_dice(uint32_t *seed, uint32_t sides);

#endif
