/* SPDX-License-Identifier: MIT
** Who may ask: the token and its cookie, the Host and the Origin of a request.
**
** A page of somebody else that the user has open can make its browser ask us:
** under a name that it makes point here (so names that are not ours are
** refused; an address cannot be made to point elsewhere), or as another site
** (its Origin is not ours, and Sec-Fetch-Site says cross-site).
*/
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/serve.h"

enum { TOKEN_LEAST = 16 };

/* --------------------------------------------------------------- setup -- */

static bool make_secret(char text[65]) {
  unsigned char bytes[32];
  if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
    return false;
  for (size_t i = 0; i < sizeof bytes; i++)
    snprintf(text + 2 * i, 3, "%02x", bytes[i]);
  return true;
}

/* Nobody else may read it, or it protects nothing. */
static int read_token(ec_access *access, const char *path) {
  struct stat st = {0};
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0 || fstat(fd, &st) != 0) {
    ec_error("--token-file=%s: %s", path, strerror(errno));
    if (fd >= 0)
      close(fd);
    return EC_FAILURE;
  }
  ssize_t n = read(fd, access->token, sizeof access->token - 1);
  close(fd);
  if ((st.st_mode & 077) != 0) {
    ec_error("--token-file=%s: others may read it; chmod 600 it", path);
    return EC_FAILURE;
  }
  access->token[n > 0 ? n : 0] = '\0';
  access->token[strcspn(access->token, "\r\n")] = '\0';
  if (strlen(access->token) < TOKEN_LEAST) {
    ec_error("--token-file=%s: the token is its first line, of %d to %zu "
             "characters; openssl rand -hex 32 makes one",
             path, TOKEN_LEAST, sizeof access->token - 1);
    return EC_FAILURE;
  }
  return 0;
}

int ec_access_setup(ec_access *access, const ec_options *options,
                    bool loopback) {
  *access = (ec_access){.names = options->host};
  access->guarded = options->token_file != NULL || options->new_token;
  access->form = options->token_file != NULL;
  if (!access->guarded && !loopback) {
    ec_error("--listen=%s can be reached from elsewhere, and would show "
             "everything to everybody; say --token-file=FILE or --new-token",
             options->listen);
    return EC_USAGE;
  }
  if (!access->guarded)
    return 0;
  if (!make_secret(access->session) || !make_secret(access->link) ||
      (!access->form && !make_secret(access->token))) {
    ec_error("no random numbers: %s", strerror(errno));
    return EC_FAILURE;
  }
  return options->token_file != NULL ? read_token(access, options->token_file)
                                     : 0;
}

/* ------------------------------------------------------------- judging -- */

bool ec_same_secret(const char *right, const char *given, size_t given_len) {
  size_t n = strlen(right);
  unsigned differs = n != given_len || n == 0;
  for (size_t i = 0; i < given_len; i++)
    differs |= (unsigned)((unsigned char)right[n > 0 ? i % n : 0] ^
                          (unsigned char)given[i]);
  return differs == 0;
}

static bool is_address(const char *host) {
  struct in_addr four;
  struct in6_addr six;
  return inet_pton(AF_INET, host, &four) == 1 ||
         inet_pton(AF_INET6, host, &six) == 1;
}

static bool is_named(const char *host, const char *names) {
  for (const char *at = names; at != NULL && *at != '\0';) {
    size_t n = strcspn(at, ",");
    if (n == strlen(host) && strncasecmp(at, host, n) == 0)
      return true;
    at += n + (at[n] == ',');
  }
  return false;
}

/* Any port will do: it may have come through a tunnel. */
bool ec_host_is_ours(const char *host, const char *names) {
  char bare[256];
  size_t n = host[0] == '[' ? strcspn(host, "]") : strcspn(host, ":");
  bool six = host[0] == '[';
  const char *rest = host + n + (six && host[n] == ']');
  if (n - six >= sizeof bare || (six && host[n] != ']') ||
      (*rest == ':' ? strspn(rest + 1, "0123456789") != strlen(rest + 1)
                    : *rest != '\0'))
    return false;
  snprintf(bare, sizeof bare, "%.*s", (int)(n - six), host + six);
  if (six)
    return strchr(bare, ':') != NULL && is_address(bare);
  return is_address(bare) || strcasecmp(bare, "localhost") == 0 ||
         is_named(bare, names);
}

static const char *header(struct MHD_Connection *connection,
                          const char *name) {
  return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

/* The site of the request's page is that of its address. */
static bool is_same_site(struct MHD_Connection *connection, const char *host) {
  const char *origin = header(connection, "Origin");
  const char *site = header(connection, "Sec-Fetch-Site");
  const char *mode = header(connection, "Sec-Fetch-Mode");
  if (origin != NULL) {
    const char *from = strncmp(origin, "http://", 7) == 0    ? origin + 7
                       : strncmp(origin, "https://", 8) == 0 ? origin + 8
                                                             : "";
    return strcasecmp(from, host) == 0;
  }
  /* a link on another page may lead here, what it embeds may not */
  return site == NULL || strcmp(site, "same-origin") == 0 ||
         strcmp(site, "none") == 0 ||
         (mode != NULL && strcmp(mode, "navigate") == 0);
}

static bool is_known(const ec_access *access,
                     struct MHD_Connection *connection) {
  const char *cookie = MHD_lookup_connection_value(connection, MHD_COOKIE_KIND,
                                                   "eguard");
  const char *bearer = header(connection, "Authorization");
  if (cookie != NULL &&
      ec_same_secret(access->session, cookie, strlen(cookie)))
    return true;
  return bearer != NULL && strncasecmp(bearer, "Bearer ", 7) == 0 &&
         ec_same_secret(access->token, bearer + 7, strlen(bearer + 7));
}

ec_verdict ec_access_judge(const ec_access *access,
                           struct MHD_Connection *connection) {
  const char *host = header(connection, "Host");
  if (host == NULL || !ec_host_is_ours(host, access->names))
    return EC_WRONG_HOST;
  if (!is_same_site(connection, host))
    return EC_WRONG_SITE;
  if (access->guarded && !is_known(access, connection))
    return EC_STRANGER;
  return EC_WELCOME;
}
