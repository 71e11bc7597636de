/* SPDX-License-Identifier: MIT
** Where eguard serve listens: an address of this machine and a port.
*/
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "cli/serve.h"

static bool wrong(const char *text, char *message, size_t size) {
  snprintf(message, size,
           "--listen=%s: that is not an address and a port, like "
           "127.0.0.1:9464, [::1]:9464 or 0.0.0.0:9464",
           text);
  return false;
}

static bool read_port(const char *text, in_port_t *port) {
  long n = 0;
  for (const char *at = text; *at != '\0'; at++) {
    if (*at < '0' || *at > '9' || n > 65535)
      return false;
    n = n * 10 + (*at - '0');
  }
  *port = htons((uint16_t)n);
  return *text != '\0' && n <= 65535;
}

bool ec_parse_place(const char *text, ec_place *place, char *message,
                    size_t size) {
  char host[INET6_ADDRSTRLEN + 16] = "";
  struct sockaddr_in *four = (struct sockaddr_in *)(void *)&place->address;
  struct sockaddr_in6 *six = (struct sockaddr_in6 *)(void *)&place->address;
  const char *colon = strrchr(text, ':');
  in_port_t port;
  *place = (ec_place){0};
  if (colon == NULL || !read_port(colon + 1, &port) ||
      (size_t)(colon - text) >= sizeof host)
    return wrong(text, message, size);
  snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
  if (strcmp(host, "localhost") == 0)
    snprintf(host, sizeof host, "127.0.0.1");
  size_t n = strlen(host);
  if (host[0] == '[' && n > 2 && host[n - 1] == ']') {
    host[n - 1] = '\0';
    six->sin6_family = AF_INET6;
    six->sin6_port = port;
    place->size = sizeof *six;
    if (inet_pton(AF_INET6, host + 1, &six->sin6_addr) != 1)
      return wrong(text, message, size);
    place->loopback = IN6_IS_ADDR_LOOPBACK(&six->sin6_addr);
    return true;
  }
  four->sin_family = AF_INET;
  four->sin_port = port;
  place->size = sizeof *four;
  if (inet_pton(AF_INET, host, &four->sin_addr) != 1)
    return wrong(text, message, size);
  place->loopback = ntohl(four->sin_addr.s_addr) >> 24 == 127;
  return true;
}

int ec_listen(const ec_place *place) {
  int on = 1;
  const struct sockaddr *address = (const void *)&place->address;
  int fd = socket(address->sa_family,
                  SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return -1;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
      bind(fd, address, place->size) == 0 && listen(fd, 511) == 0)
    return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

char *ec_place_url(int fd, char *text, size_t size) {
  struct sockaddr_storage address = {0};
  struct sockaddr_in four = {0};
  struct sockaddr_in6 six = {0};
  socklen_t n = sizeof address;
  char host[INET6_ADDRSTRLEN] = "?";
  if (getsockname(fd, (struct sockaddr *)&address, &n) != 0) {
    snprintf(text, size, "?");
  } else if (address.ss_family == AF_INET6) {
    memcpy(&six, &address, sizeof six);
    inet_ntop(AF_INET6, &six.sin6_addr, host, sizeof host);
    snprintf(text, size, "http://[%s]:%u", host, ntohs(six.sin6_port));
  } else {
    memcpy(&four, &address, sizeof four);
    inet_ntop(AF_INET, &four.sin_addr, host, sizeof host);
    snprintf(text, size, "http://%s:%u", host, ntohs(four.sin_port));
  }
  return text;
}
