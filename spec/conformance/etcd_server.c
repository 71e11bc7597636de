/* SPDX-License-Identifier: MIT
** Real etcd servers for tests.
*/
#include "etcd_server.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "server.h"

enum { PATIENCE_MS = 30000 };

static void rest_ms(long ms) {
  nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* ----------------------------------------------------------- namespaces -- */

static bool run(const char *format, ...) __attribute__((format(printf, 1, 2)));

static bool run(const char *format, ...) {
  char command[400];
  va_list args;
  va_start(args, format);
  vsnprintf(command, sizeof command, format, args);
  va_end(args);
  return system(command) == 0;
}

bool etcd_may_part(void) {
  int status = -1;
  pid_t child = fork();
  if (child == 0)
    _exit(unshare(CLONE_NEWNET) == 0 &&
                  run("ip link add name eg0 type bridge 2>/dev/null")
              ? 0
              : 1);
  waitpid(child, &status, 0);
  return status == 0;
}

/* The test's own: a bridge to which each member is wired. */
static bool make_bridge(void) {
  return unshare(CLONE_NEWNET) == 0 &&
         run("ip link set lo up && ip link add name eg0 type bridge && "
             "ip addr add 10.77.0.1/24 dev eg0 && ip link set eg0 up");
}

/* A member's; its parent makes the wire when it says that it is there. */
static bool enter_namespace(const etcd_cluster *c, int member, int say,
                            int hear) {
  char byte = 0;
  return unshare(CLONE_NEWNET) == 0 && write(say, "x", 1) == 1 &&
         read(hear, &byte, 1) == 1 &&
         run("ip addr add %s/24 dev eg1 && ip link set eg1 up && "
             "ip link set lo up",
             c->hosts[member]);
}

static void wire_up(const etcd_cluster *c, int member, int say, int hear) {
  char byte = 0;
  if (read(hear, &byte, 1) != 1 ||
      !run("ip link add v%d type veth peer name eg1 netns %d && "
           "ip link set v%d master eg0 up",
           member, (int)c->pids[member], member) ||
      write(say, "x", 1) != 1)
    perror("etcd: no wire");
}

bool etcd_cut_off(const etcd_cluster *c, int member, etcd_cut how) {
  bool good = run("ip link set v%d %s", member,
                  how == ETCD_AWAY ? "down" : "up");
  for (int i = 0; i < c->n; i++)
    if (i != member)
      good = run("nsenter -n -t %d ip route %s blackhole %s/32 2>/dev/null",
                 (int)c->pids[member], how == ETCD_ALONE ? "replace" : "del",
                 c->hosts[i]) ||
             how != ETCD_ALONE;
  return good;
}

/* --------------------------------------------------------------- members -- */

static const char *scheme(const etcd_cluster *c) {
  return (c->kind & ETCD_TLS) != 0 ? "https" : "http";
}

/* What etcd is told; texts are kept in `room`. */
static void add_arguments(const etcd_cluster *c, int member, const char **argv,
                          char *room, size_t size) {
  char *at = room;
  const char *end = room + size;
  const char *host = c->hosts[member];
  int port = c->ports[member], argc = 1;
#define ADD(name, ...)                                                        \
  (argv[argc++] = name, argv[argc++] = at,                                    \
   at += snprintf(at, (size_t)(end - at), __VA_ARGS__) + 1)
  ADD("--name", "m%d", member);
  ADD("--data-dir", "%s/data%d", c->dir, member);
  ADD("--listen-client-urls", "%s://%s:%d", scheme(c), host, port);
  ADD("--advertise-client-urls", "%s://%s:%d", scheme(c), host, port);
  ADD("--listen-peer-urls", "http://%s:%d", host, port + 1);
  ADD("--initial-advertise-peer-urls", "http://%s:%d", host, port + 1);
  ADD("--heartbeat-interval", "50");
  ADD("--election-timeout", "500");
  ADD("--logger", "zap");
  if ((c->kind & ETCD_TLS) != 0) {
    ADD("--cert-file", "%s/cert.pem", c->dir);
    ADD("--key-file", "%s/key.pem", c->dir);
  }
  if ((c->kind & ETCD_CLIENTS) != 0) {
    ADD("--trusted-ca-file", "%s/cert.pem", c->dir);
    argv[argc++] = "--client-cert-auth";
  }
  argv[argc++] = "--unsafe-no-fsync";
  argv[argc++] = "--initial-cluster";
  argv[argc++] = at;
  for (int i = 0; i < c->n; i++)
    at += snprintf(at, (size_t)(end - at), "%sm%d=http://%s:%d",
                   i > 0 ? "," : "", i, c->hosts[i], c->ports[i] + 1);
#undef ADD
}

/* The child of a test that dies shall die with it. */
static void become_member(const etcd_cluster *c, int member, pid_t parent) {
  char room[2048], log[96];
  const char *argv[40] = {"etcd"};
  add_arguments(c, member, argv, room, sizeof room);
  snprintf(log, sizeof log, "%s/log%d", c->dir, member);
  int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
  dup2(fd, 1);
  dup2(fd, 2);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent)
    _exit(1);
  execvp(argv[0], (char *const *)argv);
  _exit(127);
}

const char *etcd_say(const etcd_cluster *c, int member, const char *words) {
  static char said[65536];
  char command[1024], files[300] = "";
  if ((c->kind & ETCD_TLS) != 0)
    snprintf(files, sizeof files,
             "--cacert %s/cert.pem --cert %s/cert.pem --key %s/key.pem",
             c->dir, c->dir, c->dir);
  snprintf(command, sizeof command,
           "ETCDCTL_API=3 timeout 20 etcdctl --endpoints %s://%s:%d %s %s "
           "2>&1",
           scheme(c), c->hosts[member], c->ports[member], files, words);
  said[0] = '\0';
  FILE *pipe = popen(command, "r");
  if (pipe == NULL)
    return said;
  size_t n = fread(said, 1, sizeof said - 1, pipe);
  pclose(pipe);
  said[n] = '\0';
  return said;
}

static bool answers(const etcd_cluster *c, int member) {
  return strstr(etcd_say(c, member, "--command-timeout 1s endpoint health"),
                "is healthy") != NULL;
}

static bool await(etcd_cluster *c, int member) {
  for (int ms = 0; ms < PATIENCE_MS; ms += 30) {
    if (answers(c, member))
      return true;
    if (waitpid(c->pids[member], NULL, WNOHANG) == c->pids[member]) {
      c->pids[member] = 0;
      return false;
    }
    rest_ms(30);
  }
  return false;
}

static void launch(etcd_cluster *c, int member) {
  int to[2], from[2];
  bool apart = (c->kind & ETCD_APART) != 0;
  pid_t parent = getpid();
  if (apart && (pipe(to) != 0 || pipe(from) != 0))
    return;
  c->pids[member] = fork();
  if (c->pids[member] == 0) {
    if (apart && !enter_namespace(c, member, from[1], to[0]))
      _exit(1);
    become_member(c, member, parent);
  }
  if (!apart)
    return;
  wire_up(c, member, to[1], from[0]);
  for (int i = 0; i < 2; i++) {
    close(to[i]);
    close(from[i]);
  }
}

bool etcd_restart(etcd_cluster *c, int member) {
  launch(c, member);
  return await(c, member);
}

static bool make_certificate(const etcd_cluster *c) {
  char command[512];
  snprintf(command, sizeof command,
           "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
           "-nodes -days 2 -subj /CN=eg -addext subjectAltName=IP:127.0.0.1 "
           "-keyout %s/key.pem -out %s/cert.pem 2>/dev/null",
           c->dir, c->dir);
  return system(command) == 0;
}

bool etcd_start(etcd_cluster *c, int n, int kind) {
  memset(c, 0, sizeof *c);
  strcpy(c->dir, "/tmp/eg-etcd-XXXXXX");
  if (mkdtemp(c->dir) == NULL)
    return false;
  c->n = n;
  c->kind = kind;
  if (((kind & ETCD_TLS) != 0 && !make_certificate(c)) ||
      ((kind & ETCD_APART) != 0 && !make_bridge()))
    return false;
  int from = 29000 + getpid() % 1500 * 2;
  for (int i = 0; i < n; i++) {
    c->ports[i] = server_free_port(from);
    from = c->ports[i] + 2;
    strcpy(c->hosts[i], "127.0.0.1");
    if ((kind & ETCD_APART) != 0)
      snprintf(c->hosts[i], sizeof c->hosts[i], "10.77.0.%d", i + 11);
  }
  for (int i = 0; i < n; i++)
    launch(c, i);
  bool good = true;
  for (int i = 0; i < n; i++)
    good = await(c, i) && good;
  return good;
}

void etcd_signal(const etcd_cluster *c, int member, int signal_number) {
  server_signal_child(c->pids[member], signal_number);
}

void etcd_kill(etcd_cluster *c, int member) {
  if (c->pids[member] <= 0)
    return;
  kill(c->pids[member], SIGKILL);
  waitpid(c->pids[member], NULL, 0);
  c->pids[member] = 0;
}

void etcd_end(etcd_cluster *c) {
  char command[128];
  for (int i = 0; i < c->n; i++)
    etcd_kill(c, i);
  snprintf(command, sizeof command, "rm -rf %s", c->dir);
  if (c->dir[0] == '\0' || system(command) != 0)
    return;
  c->n = 0;
}

const char *etcd_url(const etcd_cluster *c, const char *user,
                     const char *query) {
  static char url[512];
  int n = snprintf(url, sizeof url, "%s://%s%s",
                   (c->kind & ETCD_TLS) != 0 ? "etcds" : "etcd", user,
                   *user != '\0' ? "@" : "");
  for (int i = 0; i < c->n; i++)
    n += snprintf(url + n, sizeof url - (size_t)n, "%s%s:%d", i > 0 ? "," : "",
                  c->hosts[i], c->ports[i]);
  snprintf(url + n, sizeof url - (size_t)n, "?%s", query);
  return url;
}

int etcd_leader(const etcd_cluster *c) {
  for (int i = 0; i < c->n; i++)
    if (c->pids[i] > 0 &&
        strstr(etcd_say(c, i, "-w fields endpoint status"), "\"Leader\"")) {
      const char *said = etcd_say(c, i, "-w fields endpoint status");
      const char *me = strstr(said, "\"MemberID\" : ");
      const char *leader = strstr(said, "\"Leader\" : ");
      if (me != NULL && leader != NULL &&
          strtoull(me + 13, NULL, 10) == strtoull(leader + 11, NULL, 10))
        return i;
    }
  return -1;
}
