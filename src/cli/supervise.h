/* SPDX-License-Identifier: MIT
** What eguard and its watcher say to each other.
**
**   the shell's job:  eguard ──► watcher ──► command ──► ...
**                       └────────── a socket ──┘
**
** Both hold the lock (one open file description), both are child subreapers,
** and each sees at once when the other is gone, whatever ended it.  Who is
** left kills everything that hangs below it, and only then lets go.  All of
** them stay in the process group that the shell made: so the terminal, its
** keys and its jobs are the command's as if eguard were not there.
*/
#ifndef EG_CLI_SUPERVISE_H
#define EG_CLI_SUPERVISE_H

#include <signal.h>
#include <spawn.h>

#include "cli/cli.h"

typedef enum ec_word {
  /* eguard says */
  EC_SAY_SIGNAL, /* value: pass it on to the command; kind: who sent it */
  EC_SAY_LET_GO, /* close the lock: the grant was lost */
  /* the watcher says */
  EC_SAY_STOPPED, /* value: the signal that stopped it; kind: who it is */
  EC_SAY_ENDED,   /* kind: how; value: exit status, signal or errno */
  EC_SAY_LEFT     /* value: so many could not be killed */
} ec_word;

typedef struct ec_message {
  int32_t word, kind, value;
} ec_message;

typedef struct ec_channel {
  int socket;
  int signals;       /* a signalfd for what `blocked` has */
  sigset_t original; /* the mask that the command gets */
  bool limited;      /* SIGXFSZ is ignored here, and not in the command */
  int out, err;      /* of the command; -1: as ours */
  char **by_sh; /* the command as the words of a sh, one place before it */
  posix_spawnattr_t attr;
  posix_spawn_file_actions_t actions;
} ec_channel;

/* Blocks what is handled by reading, and says how it was before. */
int ec_block_signals(sigset_t *original);

/* What starting the command needs, made while there still is memory to have:
** the watcher allocates nothing. */
bool ec_prepare_start(ec_channel *channel, char **argv);

/* The watcher: starts the command, looks after it, and ends this process. */
_Noreturn void ec_watch_over(const ec_job *job, const ec_channel *channel);

bool ec_tell(int socket, ec_word word, int kind, int value);

/* The one signal that says that a pipe was written to. */
#define EC_PIPE_SIGNAL SIGRTMIN

#endif
