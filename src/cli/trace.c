/* SPDX-License-Identifier: MIT
** eguard trace, and run --trace: a picture for Perfetto, of what the store
** remembers, or of one command as it ran.
*/
#include "cli/cli.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "executionguard_view.h"

static bool print(void *ctx, const void *data, size_t n) {
  return fwrite(data, 1, n, ctx) == n;
}

/* "-" is standard output.  NULL: it cannot be written, which was said. */
static FILE *open_file(const char *path) {
  FILE *file = strcmp(path, "-") == 0 ? stdout : fopen(path, "we");
  if (file == NULL)
    ec_error("cannot write %s: %s", path, strerror(errno));
  return file;
}

static bool close_file(const char *path, FILE *file) {
  if (file == stdout)
    return true; /* main looks at it */
  bool well = ferror(file) == 0;
  well = fclose(file) == 0 && well;
  if (!well)
    ec_error("cannot write %s: %s", path, strerror(errno));
  return well;
}

int ec_trace(ec_options *options) {
  const char *path = options->operands[0];
  int exit_status;
  eg_error error = {0};
  eg_bytes key = {"", 0};
  int64_t since_us = 0;
  size_t n = options->limit >= 0 ? (size_t)options->limit : SIZE_MAX;
  if (options->operand_count > 1)
    key = eg_str(options->operands[1]);
  if (!ec_since(options, &since_us))
    return EC_USAGE;
  eg_guard *guard = ec_open(options, &exit_status);
  if (guard == NULL)
    return exit_status;
  FILE *file = open_file(path);
  eg_status status = EG_OK;
  if (file != NULL) {
    status = eg_write_past(guard, key, n, since_us, print, file, &error);
    exit_status = close_file(path, file) ? 0 : EC_FAILURE;
  } else {
    exit_status = EC_FAILURE;
  }
  eg_close(guard);
  if (status != EG_OK && status != EG_CANCELED)
    return ec_failed("trace", status, &error);
  if (exit_status == 0)
    ec_detail("open %s in ui.perfetto.dev or chrome://tracing", path);
  return exit_status;
}

bool ec_trace_begin(const ec_options *options) {
  eg_error error;
  if (options->trace == NULL || eg_trace_start(0, &error) == EG_OK)
    return true;
  ec_error("--trace: %s", error.message);
  return false;
}

/* ----------------------------------------------------- what may end it -- */

/* Who waits for a key of the terminal, or TERM, while the main thread waits
** for a lock: nobody else would write the picture. */
struct ec_trace_watch {
  const ec_options *options;
  sigset_t before;
  int signals, over;
  pthread_t thread;
};

static void *watch(void *arg) {
  ec_trace_watch *w = arg;
  struct pollfd fds[] = {{w->signals, POLLIN, 0}, {w->over, POLLIN, 0}};
  struct signalfd_siginfo info;
  while (poll(fds, 2, -1) < 0)
    continue;
  if (fds[1].revents == 0 &&
      read(w->signals, &info, sizeof info) == sizeof info) {
    ec_trace_end(w->options);
    fflush(stdout);
    ec_die_of((int)info.ssi_signo);
  }
  return NULL;
}

/* Those that would end this process now; not what nohup(1) ignores. */
static void choose_signals(sigset_t *set) {
  static const int each[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
  sigemptyset(set);
  for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
    struct sigaction action;
    if (sigaction(each[i], NULL, &action) == 0 && action.sa_handler == SIG_DFL)
      sigaddset(set, each[i]);
  }
}

ec_trace_watch *ec_trace_watch_begin(const ec_options *options) {
  sigset_t set;
  ec_trace_watch *w = options->trace != NULL ? malloc(sizeof *w) : NULL;
  if (w == NULL)
    return NULL;
  choose_signals(&set);
  w->options = options;
  w->signals = signalfd(-1, &set, SFD_CLOEXEC);
  w->over = eventfd(0, EFD_CLOEXEC);
  pthread_sigmask(SIG_BLOCK, &set, &w->before);
  if (w->signals >= 0 && w->over >= 0 &&
      pthread_create(&w->thread, NULL, watch, w) == 0)
    return w;
  pthread_sigmask(SIG_SETMASK, &w->before, NULL);
  if (w->signals >= 0)
    close(w->signals);
  if (w->over >= 0)
    close(w->over);
  free(w);
  return NULL;
}

void ec_trace_watch_end(ec_trace_watch *w) {
  if (w == NULL)
    return;
  eventfd_write(w->over, 1);
  pthread_join(w->thread, NULL);
  close(w->signals);
  close(w->over);
  pthread_sigmask(SIG_SETMASK, &w->before, NULL);
  free(w);
}

/* The command has run: what becomes of its picture changes nothing of that. */
void ec_trace_end(const ec_options *options) {
  eg_error error = {0};
  if (options->trace == NULL)
    return;
  FILE *file = open_file(options->trace);
  if (eg_trace_stop(file != NULL ? print : NULL, file, NULL, &error) ==
      EG_NOMEM)
    ec_error("--trace: %s", error.message);
  if (file != NULL)
    close_file(options->trace, file);
}
