/* SPDX-License-Identifier: MIT
** Real Redis servers for tests.
*/
#include "server.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000 };

static void rest_ms(long ms) {
  nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* The child of a test that dies shall die with it. */
static void become_server(const server *s, pid_t parent) {
  const char *argv[64] = {"redis-server",
                          "--unixsocket",
                          s->socket,
                          "--dir",
                          s->dir,
                          "--logfile",
                          "",
                          "--daemonize",
                          "no"};
  int n = 9, log;
  char port[16], options[sizeof s->options], path[128];
  snprintf(port, sizeof port, "%d", s->port);
  argv[n++] = "--port";
  argv[n++] = port;
  snprintf(options, sizeof options, "%s", s->options);
  for (char *word = strtok(options, " "); word != NULL && n < 63;
       word = strtok(NULL, " "))
    argv[n++] = strcmp(word, "''") == 0 ? "" : word;
  argv[n] = NULL;
  snprintf(path, sizeof path, "%s/log", s->dir);
  log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
  dup2(log, 1);
  dup2(log, 2);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent)
    _exit(1);
  execvp(argv[0], (char *const *)argv);
  _exit(127);
}

static bool answers(const server *s) {
  const char *said = server_say(s, "PING");
  return strcmp(said, "PONG") == 0 || strncmp(said, "NOAUTH", 6) == 0;
}

bool server_restart(server *s) {
  pid_t parent = getpid();
  unlink(s->socket);
  s->pid = fork();
  if (s->pid == 0)
    become_server(s, parent);
  for (int ms = 0; s->pid > 0 && ms < PATIENCE_MS; ms += 20) {
    if (access(s->socket, F_OK) == 0 && answers(s))
      return true;
    if (waitpid(s->pid, NULL, WNOHANG) == s->pid) {
      s->pid = 0;
      return false;
    }
    rest_ms(20);
  }
  return false;
}

bool server_start(server *s, int port, const char *options) {
  memset(s, 0, sizeof *s);
  strcpy(s->dir, "/tmp/eg-redis-XXXXXX");
  if (mkdtemp(s->dir) == NULL)
    return false;
  snprintf(s->socket, sizeof s->socket, "%s/sock", s->dir);
  snprintf(s->options, sizeof s->options, "--save '' --appendonly no %s",
           options);
  s->port = port;
  return server_restart(s);
}

void server_signal_child(pid_t pid, int signal_number) {
  siginfo_t info;
  if (pid <= 0)
    return;
  kill(pid, signal_number);
  if (signal_number == SIGSTOP) /* its threads stop one after the other */
    waitid(P_PID, (id_t)pid, &info, WSTOPPED | WEXITED | WNOWAIT);
}

void server_signal(const server *s, int signal_number) {
  server_signal_child(s->pid, signal_number);
}

void server_kill(server *s) {
  if (s->pid <= 0)
    return;
  kill(s->pid, SIGKILL);
  waitpid(s->pid, NULL, 0);
  s->pid = 0;
}

void server_end(server *s) {
  static const char *const files[] = {"sock", "log", "dump.rdb", "nodes.conf",
                                      "wire"};
  char path[128];
  server_kill(s);
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    snprintf(path, sizeof path, "%s/%s", s->dir, files[i]);
    unlink(path);
  }
  rmdir(s->dir);
}

int server_free_port(int from) {
  for (int port = from; port < from + 2000; port++) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    bool free = bind(fd, (struct sockaddr *)&at, sizeof at) == 0;
    close(fd);
    if (free)
      return port;
  }
  return 0;
}

const char *server_say(const server *s, const char *words) {
  static char said[65536];
  char command[2048];
  snprintf(command, sizeof command, "timeout 20 redis-cli -s %s %s 2>&1",
           s->socket, words);
  said[0] = '\0';
  FILE *pipe = popen(command, "r");
  if (pipe == NULL)
    return said;
  size_t n = fread(said, 1, sizeof said - 1, pipe);
  pclose(pipe);
  while (n > 0 && (said[n - 1] == '\n' || said[n - 1] == '\r'))
    n--;
  said[n] = '\0';
  return said;
}

long server_count(const server *s, const char *words, const char *name) {
  const char *at = strstr(server_say(s, words), name);
  return at != NULL ? strtol(at + strlen(name), NULL, 10) : -1;
}
