/* SPDX-License-Identifier: MIT
** A wire to a server that can be cut: after a request, or before it.
*/
#include "server.h"

#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct link {
  wire *wire;
  int client, server;
} link_pair;

static int dial(const wire *w) {
  struct sockaddr_un path = {.sun_family = AF_UNIX};
  struct sockaddr_in port = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)w->to_port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
  bool tcp = w->to_port != 0;
  int fd = socket(tcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (!tcp)
    snprintf(path.sun_path, sizeof path.sun_path, "%s", w->to->socket);
  if (fd >= 0 &&
      connect(fd, tcp ? (struct sockaddr *)&port : (struct sockaddr *)&path,
              tcp ? sizeof port : sizeof path) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

static bool write_all(int fd, const char *data, size_t n) {
  while (n > 0) {
    ssize_t wrote = send(fd, data, n, MSG_NOSIGNAL);
    if (wrote <= 0)
      return false;
    data += wrote;
    n -= (size_t)wrote;
  }
  return true;
}

/* Is this the request that was waited for?  Then it is so no more. */
static bool is_due(_Atomic(const char *) *text, const char *data, size_t n) {
  const char *wanted = atomic_load(text);
  return wanted != NULL && memmem(data, n, wanted, strlen(wanted)) != NULL &&
         atomic_exchange(text, NULL) != NULL;
}

/* One request.  False: that was the end of the connection. */
static bool pass_request(link_pair *l, const char *data, size_t n) {
  wire *w = l->wire;
  char answer[8192];
  if (is_due(&w->swallow, data, n)) {
    pthread_mutex_lock(&w->mutex);
    w->kept_len = n < sizeof w->kept ? n : sizeof w->kept;
    memcpy(w->kept, data, w->kept_len);
    pthread_mutex_unlock(&w->mutex);
    atomic_fetch_add(&w->cuts, 1);
    return false;
  }
  bool cut = is_due(&w->cut_after, data, n);
  if (memmem(data, n, "POST ", 5) != NULL)
    atomic_fetch_add(&w->posts, 1);
  if (!write_all(l->server, data, n))
    return false;
  if (!cut)
    return true;
  /* It is done when the answer is there; nobody is told. */
  bool done = recv(l->server, answer, sizeof answer, 0) > 0;
  atomic_fetch_add(&w->cuts, done ? 1 : 0);
  return false;
}

static void *carry(void *ctx) {
  link_pair *l = ctx;
  char data[65536];
  bool good = l->server >= 0;
  while (good && !atomic_load(&l->wire->ends)) {
    struct pollfd fds[2] = {{.fd = l->client, .events = POLLIN},
                            {.fd = l->server, .events = POLLIN}};
    if (poll(fds, 2, 50) <= 0)
      continue;
    for (int i = 0; good && i < 2; i++) {
      if (fds[i].revents == 0)
        continue;
      ssize_t n = recv(fds[i].fd, data, sizeof data, 0);
      good = n > 0 && (i == 0 ? pass_request(l, data, (size_t)n)
                              : write_all(l->client, data, (size_t)n));
    }
  }
  close(l->client);
  if (l->server >= 0)
    close(l->server);
  free(l);
  return NULL;
}

static void *serve(void *ctx) {
  wire *w = ctx;
  while (!atomic_load(&w->ends)) {
    struct pollfd fd = {.fd = w->listener, .events = POLLIN};
    pthread_t thread;
    if (poll(&fd, 1, 50) <= 0)
      continue;
    int client = accept(w->listener, NULL, NULL);
    link_pair *l = client >= 0 ? malloc(sizeof *l) : NULL;
    if (l == NULL)
      continue;
    *l = (link_pair){w, client, dial(w)};
    if (pthread_create(&thread, NULL, carry, l) == 0)
      pthread_detach(thread);
  }
  return NULL;
}

bool wire_start(wire *w, const server *to) {
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  memset(w, 0, sizeof *w);
  pthread_mutex_init(&w->mutex, NULL);
  w->to = to;
  snprintf(w->path, sizeof w->path, "%s/wire", to->dir);
  unlink(w->path);
  memcpy(at.sun_path, w->path, strnlen(w->path, sizeof at.sun_path - 1));
  w->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return w->listener >= 0 &&
         bind(w->listener, (struct sockaddr *)&at, sizeof at) == 0 &&
         listen(w->listener, 64) == 0 &&
         pthread_create(&w->thread, NULL, serve, w) == 0;
}

bool wire_start_port(wire *w, int to_port) {
  struct sockaddr_in at = {.sin_family = AF_INET,
                           .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof at;
  memset(w, 0, sizeof *w);
  pthread_mutex_init(&w->mutex, NULL);
  w->to_port = to_port;
  w->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (w->listener < 0 ||
      bind(w->listener, (struct sockaddr *)&at, sizeof at) != 0 ||
      listen(w->listener, 64) != 0 ||
      getsockname(w->listener, (struct sockaddr *)&at, &size) != 0)
    return false;
  w->port = ntohs(at.sin_port);
  return pthread_create(&w->thread, NULL, serve, w) == 0;
}

bool wire_deliver(wire *w) {
  char answer[8192];
  int fd = dial(w);
  pthread_mutex_lock(&w->mutex);
  bool good = fd >= 0 && w->kept_len > 0 &&
              write_all(fd, w->kept, w->kept_len) &&
              recv(fd, answer, sizeof answer, 0) > 0;
  if (fd >= 0)
    close(fd);
  w->kept_len = 0;
  pthread_mutex_unlock(&w->mutex);
  return good;
}

/* Those that carry look every 50 ms whether it ends; they own what they use
** but the wire itself. */
void wire_end(wire *w) {
  atomic_store(&w->ends, true);
  pthread_join(w->thread, NULL);
  close(w->listener);
  usleep(200000);
  if (w->path[0] != '\0')
    unlink(w->path);
}
