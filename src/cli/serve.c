/* SPDX-License-Identifier: MIT
** eguard serve: the page, the figures and the events over HTTP, read-only.
*/
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/serve.h"

/* From now on, in every thread: they come to wait_for_end. */
static void hold_signals(sigset_t *ending) {
  sigemptyset(ending);
  sigaddset(ending, SIGINT);
  sigaddset(ending, SIGTERM);
  sigaddset(ending, SIGHUP);
  pthread_sigmask(SIG_BLOCK, ending, NULL);
  signal(SIGPIPE, SIG_IGN);
}

static void wait_for_end(const sigset_t *ending) {
  int signal;
  while (sigwait(ending, &signal) != 0)
    ;
  ec_detail("%s: ending", strsignal(signal));
}

/* A descriptor for each client. */
static void raise_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 1024) {
    limit.rlim_cur = limit.rlim_max < 1024 ? limit.rlim_max : 1024;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

static void say_where(const ec_server *server, int fd) {
  char url[80];
  ec_place_url(fd, url, sizeof url);
  if (server->access.guarded)
    printf("%s/login?code=%s\n", url, server->access.link);
  else
    printf("%s/\n", url);
  fflush(stdout);
  if (server->access.guarded)
    ec_note("the link is good once");
}

/* ------------------------------------------------------------ life time -- */

static bool start(ec_server *server, int fd) {
  server->asking_end = &server->asking;
  server->oldest = 1;
  pthread_mutex_init(&server->mutex, NULL);
  if (eg_cond_init(&server->look) != 0 || eg_cond_init(&server->ask) != 0)
    return false;
  if (pthread_create(&server->collector, NULL, ec_collect, server) != 0)
    return false;
  if (pthread_create(&server->clerk, NULL, ec_answer, server) == 0) {
    server->daemon = ec_web_start(server, fd);
    return true;
  }
  server->stopping = true;
  pthread_join(server->collector, NULL);
  return false;
}

static void stop(ec_server *server) {
  pthread_mutex_lock(&server->mutex);
  server->stopping = true;
  pthread_cond_broadcast(&server->look);
  pthread_cond_broadcast(&server->ask);
  pthread_mutex_unlock(&server->mutex);
  pthread_join(server->collector, NULL);
  pthread_join(server->clerk, NULL);
  if (server->daemon == NULL)
    return;
  pthread_mutex_lock(&server->mutex); /* all have to go on to be ended */
  ec_resume(&server->idle);
  ec_resume(&server->waiting);
  for (ec_request *r = server->asking; r != NULL; r = r->next)
    MHD_resume_connection(r->connection);
  pthread_mutex_unlock(&server->mutex);
  MHD_stop_daemon(server->daemon);
}

static void clear(ec_server *server) {
  for (size_t i = 0; i < EC_EVENTS; i++)
    free(server->events[i].text);
  if (server->state != NULL)
    MHD_destroy_response(server->state);
  if (server->runs != NULL)
    MHD_destroy_response(server->runs);
  ec_waiters_close(&server->waiters);
  pthread_mutex_destroy(&server->mutex);
  eg_close(server->guard);
}

static int serve_on(ec_server *server, int fd) {
  sigset_t ending;
  raise_limit();
  hold_signals(&ending);
  ec_waiters_open(&server->waiters, server->options);
  if (!start(server, fd)) {
    ec_error("cannot start its threads");
    return EC_FAILURE;
  }
  if (server->daemon != NULL) {
    say_where(server, fd);
    wait_for_end(&ending);
  } else {
    ec_error("cannot start the web server");
  }
  bool started = server->daemon != NULL;
  stop(server);
  return started ? 0 : EC_FAILURE;
}

int ec_serve_here(ec_options *options) {
  static ec_server server;
  ec_place place;
  char message[300];
  int exit_status;
  if (options->listen == NULL)
    options->listen = "127.0.0.1:9464";
  server.options = options;
  if (!ec_parse_place(options->listen, &place, message, sizeof message)) {
    ec_error("%s", message);
    return EC_USAGE;
  }
  exit_status = ec_access_setup(&server.access, options, place.loopback);
  if (exit_status != 0)
    return exit_status;
  const char *url = ec_store_url(options);
  if (url == NULL)
    return EC_FAILURE;
  if (ec_public_url(url, server.store, sizeof server.store) == NULL)
    snprintf(server.store, sizeof server.store, "?");
  int fd = ec_listen(&place);
  if (fd < 0) {
    ec_error("--listen=%s: %s", options->listen, strerror(errno));
    return EC_FAILURE;
  }
  server.guard = ec_open(options, &exit_status);
  if (server.guard == NULL) {
    close(fd);
    return exit_status;
  }
  exit_status = serve_on(&server, fd);
  clear(&server);
  return exit_status;
}
