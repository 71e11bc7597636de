/* SPDX-License-Identifier: MIT
** The nemesis' wire: passes on what clients and server say, at once, slowly,
** late, or not at all.
**
** What is held back is delivered in the end unless the connection is cut: a
** request may arrive long after its sender has given it up.
*/
#include "nemesis.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINKS = 256, PIECE = 16384, PATIENCE_MS = 20 };

/* A piece of what one side said, not to be handed on before its time. */
typedef struct piece {
  struct piece *next;
  int64_t due_us;
  size_t n, done;
  char bytes[];
} piece;

typedef struct link_pair {
  int fds[2]; /* client, server; fds[0] -1: not in use */
  int worker, cuts;
  piece *first[2], *last[2]; /* on the way to fds[i] */
} link_pair;

static link_pair links[LINKS];

static int on_loopback(int fd, int port, bool listens) {
  struct sockaddr_in at = {.sin_family = AF_INET,
                           .sin_port = htons((uint16_t)port),
                           .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof at;
  if (!listens)
    return connect(fd, (struct sockaddr *)&at, size);
  if (bind(fd, (struct sockaddr *)&at, size) != 0 || listen(fd, 128) != 0 ||
      getsockname(fd, (struct sockaddr *)&at, &size) != 0)
    return -1;
  return ntohs(at.sin_port);
}

static int new_socket(void) {
  return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

/* The server's port is bound once, to find a free one. */
bool nemesis_listen(nemesis_board *board) {
  int probe = new_socket();
  board->server_port = on_loopback(probe, 0, true);
  for (int i = 0; i < NEMESIS_PORTS; i++) {
    board->listeners[i] = new_socket();
    board->ports[i] = on_loopback(board->listeners[i], 0, true);
    if (board->ports[i] <= 0)
      return false;
  }
  close(probe);
  return board->server_port > 0;
}

static void forget(link_pair *l) {
  for (int i = 0; i < 2; i++) {
    close(l->fds[i]);
    while (l->first[i] != NULL) {
      piece *p = l->first[i];
      l->first[i] = p->next;
      free(p);
    }
  }
  memset(l, 0, sizeof *l);
  l->fds[0] = -1;
}

static void greet(nemesis_board *board, int worker) {
  int one = 1, client = accept(board->listeners[worker], NULL, NULL);
  link_pair *l = links;
  while (l < links + LINKS && l->fds[0] >= 0)
    l++;
  int server = new_socket();
  if (client < 0 || l == links + LINKS ||
      on_loopback(server, board->server_port, false) != 0) {
    close(client);
    close(server);
    return;
  }
  setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(client, F_SETFL, O_NONBLOCK);
  fcntl(server, F_SETFL, O_NONBLOCK);
  *l = (link_pair){.fds = {client, server},
                   .worker = worker,
                   .cuts = atomic_load(&board->cuts[worker])};
}

/* False: that was the end of it. */
static bool take_in(nemesis_board *board, link_pair *l, int from) {
  char data[PIECE];
  ssize_t n = recv(l->fds[from], data, sizeof data, 0);
  if (n <= 0)
    return n < 0 && (errno == EAGAIN || errno == EINTR);
  piece *p = malloc(sizeof *p + (size_t)n);
  if (p == NULL)
    return false;
  int64_t due = nemesis_now_us() + atomic_load(&board->delay_us[l->worker]);
  int64_t hole = atomic_load(&board->hole_us[l->worker]);
  int to = 1 - from;
  *p = (piece){.n = (size_t)n, .due_us = due > hole ? due : hole};
  memcpy(p->bytes, data, p->n);
  if (l->last[to] != NULL && l->last[to]->due_us > p->due_us)
    p->due_us = l->last[to]->due_us;
  if (l->last[to] != NULL)
    l->last[to]->next = p;
  else
    l->first[to] = p;
  l->last[to] = p;
  return true;
}

/* What is due.  Says when more is. */
static bool hand_on(link_pair *l, int to, int64_t *next_us) {
  while (l->first[to] != NULL) {
    piece *p = l->first[to];
    int64_t now = nemesis_now_us();
    if (p->due_us > now) {
      *next_us = p->due_us < *next_us ? p->due_us : *next_us;
      return true;
    }
    ssize_t n = send(l->fds[to], p->bytes + p->done, p->n - p->done,
                     MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
      return false;
    p->done += n > 0 ? (size_t)n : 0;
    if (p->done < p->n) {
      *next_us = now + 1000;
      return true;
    }
    l->first[to] = p->next;
    if (p->next == NULL)
      l->last[to] = NULL;
    free(p);
  }
  return true;
}

/* All links: cut, fed, emptied.  How long until there is more to do. */
static int serve_links(nemesis_board *board, const struct pollfd *fds,
                       const int *places) {
  int64_t next = nemesis_now_us() + PATIENCE_MS * 1000;
  for (int i = 0; i < LINKS; i++) {
    link_pair *l = &links[i];
    bool good = l->fds[0] >= 0 &&
                l->cuts == atomic_load(&board->cuts[l->worker]);
    for (int side = 0; good && side < 2; side++)
      if (places[i] > 0 && fds[places[i] + side].revents != 0)
        good = take_in(board, l, side);
    for (int side = 0; good && side < 2; side++)
      good = hand_on(l, side, &next);
    if (!good && l->fds[0] >= 0)
      forget(l);
  }
  int64_t left = next - nemesis_now_us();
  return left <= 0 ? 0 : (int)((left + 999) / 1000);
}

void nemesis_pass_on(nemesis_board *board) {
  static struct pollfd fds[NEMESIS_PORTS + 2 * LINKS];
  static int places[LINKS];
  int wait_ms = 0;
  for (int i = 0; i < LINKS; i++)
    links[i].fds[0] = -1;
  for (;;) {
    nfds_t n = 0;
    for (; n < NEMESIS_PORTS; n++)
      fds[n] = (struct pollfd){board->listeners[n], POLLIN, 0};
    for (int i = 0; i < LINKS; i++) {
      places[i] = links[i].fds[0] >= 0 ? (int)n : 0;
      for (int side = 0; places[i] > 0 && side < 2; side++)
        fds[n++] = (struct pollfd){links[i].fds[side], POLLIN, 0};
    }
    poll(fds, n, wait_ms);
    wait_ms = serve_links(board, fds, places);
    for (int i = 0; i < NEMESIS_PORTS; i++)
      if (fds[i].revents != 0)
        greet(board, i);
  }
}
