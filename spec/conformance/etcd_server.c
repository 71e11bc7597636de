/* SPDX-License-Identifier: MIT
** Real etcd servers for tests.
*/
#include "etcd_server.h"

#include <fcntl.h>
#include <signal.h>
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

/* The child of a test that dies shall die with it. */
static void become_member(const etcd_cluster *c, int member, pid_t parent) {
  char client[64], peer[64], data[96], name[8], all[256] = "", cert[96];
  char key[96], log[96];
  const char *argv[40] = {"etcd",     "--name",
                          name,       "--data-dir",
                          data,       "--listen-client-urls",
                          client,     "--advertise-client-urls",
                          client,     "--listen-peer-urls",
                          peer,       "--initial-advertise-peer-urls",
                          peer,       "--initial-cluster",
                          all,        "--heartbeat-interval",
                          "50",       "--election-timeout",
                          "500",      "--unsafe-no-fsync",
                          "--logger", "zap"};
  int argc = 22;
  for (int i = 0; i < c->n; i++)
    snprintf(all + strlen(all), sizeof all - strlen(all),
             "%sm%d=http://127.0.0.1:%d", i > 0 ? "," : "", i,
             c->ports[i] + 1);
  snprintf(name, sizeof name, "m%d", member);
  snprintf(data, sizeof data, "%s/data%d", c->dir, member);
  snprintf(client, sizeof client, "%s://127.0.0.1:%d",
           c->tls ? "https" : "http", c->ports[member]);
  snprintf(peer, sizeof peer, "http://127.0.0.1:%d", c->ports[member] + 1);
  snprintf(cert, sizeof cert, "%s/cert.pem", c->dir);
  snprintf(key, sizeof key, "%s/key.pem", c->dir);
  if (c->tls) {
    argv[argc++] = "--cert-file";
    argv[argc++] = cert;
    argv[argc++] = "--key-file";
    argv[argc++] = key;
  }
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
  char command[1024];
  snprintf(command, sizeof command,
           "ETCDCTL_API=3 timeout 20 etcdctl --endpoints %s://127.0.0.1:%d "
           "%s%s%s %s 2>&1",
           c->tls ? "https" : "http", c->ports[member],
           c->tls ? "--cacert " : "", c->tls ? c->dir : "",
           c->tls ? "/cert.pem" : "", words);
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
  pid_t parent = getpid();
  c->pids[member] = fork();
  if (c->pids[member] == 0)
    become_member(c, member, parent);
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

bool etcd_start(etcd_cluster *c, int n, bool tls) {
  memset(c, 0, sizeof *c);
  strcpy(c->dir, "/tmp/eg-etcd-XXXXXX");
  if (mkdtemp(c->dir) == NULL)
    return false;
  c->n = n;
  c->tls = tls;
  if (tls && !make_certificate(c))
    return false;
  int from = 29000 + getpid() % 1500 * 2;
  for (int i = 0; i < n; i++) {
    c->ports[i] = server_free_port(from);
    from = c->ports[i] + 2;
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
  int n = snprintf(url, sizeof url, "%s://%s%s", c->tls ? "etcds" : "etcd",
                   user, *user != '\0' ? "@" : "");
  for (int i = 0; i < c->n; i++)
    n += snprintf(url + n, sizeof url - (size_t)n, "%s127.0.0.1:%d",
                  i > 0 ? "," : "", c->ports[i]);
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
