/* SPDX-License-Identifier: MIT
** eguard release, reset: somebody else's grant is ended.
*/
#include "cli/cli.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct breaking {
  const ec_options *options;
  eg_guard *guard;
  eg_bytes key;
  char name[200];
  eg_record record;
  char who[400];   /* holds it */
  const char *did; /* for JSON */
} breaking;

/* --------------------------------------------------------------- asking -- */

/* Reads a number from the terminal.  False: none was typed. */
static bool type_token(const breaking *b, uint64_t *token) {
  char line[64], *end;
  char since[2 * EC_DURATION_TEXT + 16];
  fprintf(stderr,
          "%s is held by %s%s.\nIts token is %" PRIu64
          "; type it to break the grant%s: ",
          b->name, b->who,
          ec_describe_since(&b->record.owner, since, sizeof since),
          b->record.token, b->options->kill ? " and to end the holder" : "");
  fflush(stderr);
  if (fgets(line, sizeof line, stdin) == NULL)
    return false;
  *token = strtoull(line, &end, 10);
  return end != line;
}

static char *propose(const breaking *b, const char *command,
                     char hint[EC_HINT_TEXT]) {
  char words[80];
  snprintf(words, sizeof words, "%s --token=%" PRIu64, command,
           b->record.token);
  return ec_hint(b->options, words, hint, EC_HINT_TEXT);
}

/* Which grant is meant: the one that the caller has seen, never simply the
** one of now. */
static bool choose_token(const breaking *b, uint64_t *token) {
  if (b->options->token >= 0) {
    *token = (uint64_t)b->options->token;
    return true;
  }
  if (isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1)
    return type_token(b, token);
  char hint[EC_HINT_TEXT];
  ec_error(
      "%s is held by %s, token %" PRIu64 "; to break that grant: %s", b->name,
      b->who, b->record.token,
      propose(b,
              b->options->kill ? "release --force --kill" : "release --force",
              hint));
  return false;
}

/* -------------------------------------------------------------- killing -- */

/* A number means nothing in another pid namespace: there it may even be 1.  So
** in a store of files a process has to have that store's side file open. */
static bool has_open(pid_t pid, const char *dir) {
  char path[4200];
  struct stat side, st;
  bool found = false;
  snprintf(path, sizeof path, "%s/guard.shm", dir);
  if (stat(path, &side) != 0)
    return false;
  snprintf(path, sizeof path, "/proc/%ld/fd", (long)pid);
  DIR *fds = opendir(path);
  if (fds == NULL)
    return false;
  for (struct dirent *e; !found && (e = readdir(fds)) != NULL;)
    found = fstatat(dirfd(fds), e->d_name, &st, 0) == 0 &&
            st.st_dev == side.st_dev && st.st_ino == side.st_ino;
  closedir(fds);
  return found;
}

static bool is_here(const breaking *b) {
  const eg_owner *owner = &b->record.owner;
  char host[80] = "", dir[4100];
  gethostname(host, sizeof host - 1);
  if (owner->pid <= 0 || strcmp(host, owner->host) != 0)
    return false;
  return !ec_file_dir(ec_store_url(b->options), dir, sizeof dir) ||
         has_open((pid_t)owner->pid, dir);
}

/* The holder's process, opened while it held the key: what is signalled is
** that one, whatever becomes of its number.  -1: it is not there. */
static int open_holder(const breaking *b, uint64_t token) {
  int fd = (int)syscall(SYS_pidfd_open, (pid_t)b->record.owner.pid, 0);
  if (fd >= 0 && !eg_holds(b->guard, b->key, token)) {
    close(fd);
    fd = -1;
  }
  return fd;
}

/* TERM, and KILL when that did not help.  An eguard ends its command first, or
** its watcher does. */
static bool end_holder(const breaking *b, int fd) {
  static const int signals[] = {SIGTERM, SIGKILL};
  for (int i = 0; i < 2; i++) {
    struct pollfd ends = {fd, POLLIN, 0};
    ec_note("sending %s to %s", i == 0 ? "TERM" : "KILL", b->who);
    if (syscall(SYS_pidfd_send_signal, fd, signals[i], NULL, 0) != 0 &&
        errno != ESRCH) {
      ec_error("cannot end %s: %s", b->who, strerror(errno));
      return false;
    }
    if (poll(&ends, 1, 10000) > 0)
      return true;
  }
  ec_error("%s did not end", b->who);
  return false;
}

/* ------------------------------------------------------------- breaking -- */

static int tell(const breaking *b, bool released) {
  if (!b->options->json)
    return 0;
  ec_json json;
  ec_json_begin(&json, stdout);
  ec_json_open(&json, NULL, '{');
  ec_json_bytes(&json, "key", b->key);
  ec_json_bool(&json, "released", released);
  ec_json_unsigned(&json, "token", b->record.token);
  ec_json_text(&json, "what", b->did);
  ec_json_close(&json, '}');
  return ec_json_end(&json);
}

static int lost(breaking *b, uint64_t token) {
  b->did = "another token";
  ec_error("%s: the grant with token %" PRIu64 " does not hold it (any more); "
           "nothing was changed",
           b->name, token);
  tell(b, false);
  return EC_CONFLICT;
}

static int force(breaking *b) {
  uint64_t token;
  char why[700];
  eg_error error = {0};
  if (!choose_token(b, &token))
    return EC_USAGE;
  if (token != b->record.token)
    return lost(b, token);
  bool kills = b->options->kill;
  if (kills && !is_here(b)) {
    ec_error("%s: its holder, %s, is no process that can be seen here (of "
             "another machine or container, or of another user); --kill "
             "cannot end it, nothing was changed",
             b->name, b->who);
    return EC_FAILURE;
  }
  ec_note("%s: held by %s, token %" PRIu64, b->name, b->who, token);
  ec_describe_breaker(b->who, why, sizeof why);
  int holder = kills ? open_holder(b, token) : -1;
  /* first, so that the history has who broke it, however the holder ends */
  eg_status status = eg_revoke(b->guard, b->key, token, why, &error);
  bool ended = status != EG_OK || holder < 0 || end_holder(b, holder);
  if (holder >= 0)
    close(holder);
  if (status == EG_LOST)
    return lost(b, token);
  if (status != EG_OK)
    return ec_failed("release", status, &error);
  return ended ? 0 : EC_FAILURE;
}

static int held(breaking *b) {
  if (!b->options->force) {
    char since[2 * EC_DURATION_TEXT + 16], hint[EC_HINT_TEXT];
    b->did = "held";
    ec_error("%s is held by %s%s; to take it away all the same: %s", b->name,
             b->who, ec_describe_since(&b->record.owner, since, sizeof since),
             propose(b, "release --force", hint));
    tell(b, false);
    return EC_CONFLICT;
  }
  int exit_status = force(b);
  if (exit_status != 0)
    return exit_status;
  b->did = "broken";
  ec_note("%s: the grant is broken; what its holder still writes is refused",
          b->name);
  return tell(b, true);
}

int ec_release(ec_options *options) {
  breaking b = {.options = options, .did = "free"};
  int exit_status;
  eg_error error = {0};
  if (options->kill && !options->force) {
    ec_error("--kill is for release --force");
    return EC_USAGE;
  }
  b.guard = ec_open(options, &exit_status);
  if (b.guard == NULL)
    return exit_status;
  b.key = eg_str(options->operands[0]);
  eg_printable(b.key, b.name, sizeof b.name);
  eg_status status = eg_look(b.guard, b.key, &b.record, &error);
  ec_describe_owner(&b.record.owner, b.who, sizeof b.who);
  if (EG_IS_FAILURE(status)) {
    exit_status = ec_failed("release", status, &error);
  } else if (b.record.locked) {
    exit_status = held(&b);
  } else {
    ec_note("%s: nothing holds it", b.name);
    exit_status = tell(&b, false);
  }
  eg_record_free(&b.record);
  eg_close(b.guard);
  return exit_status;
}

/* --------------------------------------------------------------- reset -- */

static void say_who_loses(eg_guard *guard, eg_bytes key) {
  eg_record record;
  char name[200], who[400];
  eg_look(guard, key, &record, NULL);
  if (record.locked)
    ec_note("%s is held by %s, which loses it: what comes of it is refused",
            eg_printable(key, name, sizeof name),
            ec_describe_owner(&record.owner, who, sizeof who));
  eg_record_free(&record);
}

int ec_reset(ec_options *options) {
  int exit_status;
  char name[200];
  eg_error error = {0};
  eg_guard *guard = ec_open(options, &exit_status);
  if (guard == NULL)
    return exit_status;
  eg_bytes key = eg_str(options->operands[0]);
  say_who_loses(guard, key);
  eg_status status = eg_reset(guard, key, &error);
  if (status != EG_OK) {
    exit_status = ec_failed("reset", status, &error);
  } else {
    exit_status = 0;
    if (options->json) {
      eg_record record;
      ec_json json;
      eg_look(guard, key, &record, NULL);
      ec_json_begin(&json, stdout);
      ec_json_record(&json, &record);
      exit_status = ec_json_end(&json);
      eg_record_free(&record);
    }
    ec_detail("%s is Idle", eg_printable(key, name, sizeof name));
  }
  eg_close(guard);
  return exit_status;
}
