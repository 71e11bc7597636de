/* SPDX-License-Identifier: MIT
** Requests to a member of an etcd cluster, by libcurl.
*/
#include "store/etcd.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { HEADER_MAX = 4096 };

const char *egi_etcd_host(const egi_etcd_hub *hub, char *text, size_t size) {
  unsigned at = __atomic_load_n(&hub->endpoint, __ATOMIC_RELAXED);
  const egi_host *host = &hub->options.address.hosts[at];
  bool six = strchr(host->name, ':') != NULL;
  snprintf(text, size, "%s%s%s:%d", six ? "[" : "", host->name, six ? "]" : "",
           host->port);
  return text;
}

static size_t take(char *data, size_t one, size_t n, void *ctx) {
  egi_text_buf *reply = ctx;
  egi_text_add(reply, data, one * n);
  return reply->failed ? 0 : one * n;
}

static bool set_common(const egi_etcd_options *o, egi_etcd_wire *wire) {
  CURL *easy = wire->easy;
  bool good = curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_POST, 1L) == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, wire->why) ==
                  CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 10L) == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 5L) == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take) ==
                  CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_WRITEDATA, &wire->reply) ==
                  CURLE_OK;
  if (*o->ca != '\0')
    good = good && curl_easy_setopt(easy, CURLOPT_CAINFO, o->ca) == CURLE_OK;
  if (*o->cert != '\0')
    good = good &&
           curl_easy_setopt(easy, CURLOPT_SSLCERT, o->cert) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_SSLKEY, o->key) == CURLE_OK;
  return good;
}

egi_etcd_wire *egi_etcd_wire_new(egi_etcd_hub *hub) {
  egi_etcd_wire *wire = hub->base.env.alloc(NULL, NULL, 0, sizeof *wire);
  if (wire == NULL)
    return NULL;
  memset(wire, 0, sizeof *wire);
  wire->token = (unsigned)-1;
  wire->easy = curl_easy_init();
  if (wire->easy != NULL && set_common(&hub->options, wire))
    return wire;
  egi_etcd_wire_free(hub, wire);
  return NULL;
}

void egi_etcd_wire_free(egi_etcd_hub *hub, egi_etcd_wire *wire) {
  if (wire->easy != NULL)
    curl_easy_cleanup(wire->easy);
  curl_slist_free_all(wire->headers);
  egi_text_free(&wire->reply);
  hub->base.env.alloc(NULL, wire, sizeof *wire, 0);
}

/* TLS would say good-bye in the parent's name: only the descriptor is closed,
** and what curl has in memory stays there. */
void egi_etcd_wire_abandon(egi_etcd_wire *wire) {
  curl_socket_t fd = CURL_SOCKET_BAD;
  if (curl_easy_getinfo(wire->easy, CURLINFO_ACTIVESOCKET, &fd) == CURLE_OK &&
      fd != CURL_SOCKET_BAD)
    close(fd);
}

static bool add_header(struct curl_slist **list, const char *header) {
  struct curl_slist *longer = curl_slist_append(*list, header);
  if (longer != NULL)
    *list = longer;
  return longer != NULL;
}

/* A watch that its member cannot serve, for it has no leader, is to end. */
static bool set_headers(egi_etcd_hub *hub, egi_etcd_wire *wire) {
  char auth[HEADER_MAX] = "";
  struct curl_slist *list = NULL;
  pthread_mutex_lock(&hub->base.mutex);
  unsigned token = hub->auths;
  if (hub->auth != NULL)
    snprintf(auth, sizeof auth, "%s", hub->auth);
  pthread_mutex_unlock(&hub->base.mutex);
  if (wire->token == token)
    return true;
  bool good = add_header(&list, "Expect:") &&
              add_header(&list, "Content-Type: application/json") &&
              add_header(&list, "Grpc-Metadata-hasleader: true") &&
              (*auth == '\0' || add_header(&list, auth)) &&
              curl_easy_setopt(wire->easy, CURLOPT_HTTPHEADER, list) ==
                  CURLE_OK;
  egi_wipe(auth, sizeof auth);
  if (!good) {
    curl_slist_free_all(list);
    return false;
  }
  curl_slist_free_all(wire->headers);
  wire->headers = list;
  wire->token = token;
  return true;
}

bool egi_etcd_aim(egi_etcd_hub *hub, egi_etcd_wire *wire, const char *path) {
  char host[320], url[400];
  egi_etcd_host(hub, host, sizeof host);
  snprintf(url, sizeof url, "%s://%s/v3/%s",
           hub->options.tls ? "https" : "http", host, path);
  egi_text_clear(&wire->reply);
  return curl_easy_setopt(wire->easy, CURLOPT_URL, url) == CURLE_OK &&
         set_headers(hub, wire);
}

void egi_etcd_post(egi_etcd_hub *hub, egi_etcd_wire *wire, const char *path,
                   const egi_text_buf *body, int64_t until_us,
                   egi_etcd_reply *reply) {
  int64_t left_ms = (until_us - egi_real_us()) / 1000;
  long size = 0, connects = 0;
  *reply = (egi_etcd_reply){.curl = CURLE_OUT_OF_MEMORY};
  if (!egi_etcd_aim(hub, wire, path) ||
      curl_easy_setopt(wire->easy, CURLOPT_POSTFIELDS, body->data) !=
          CURLE_OK ||
      curl_easy_setopt(wire->easy, CURLOPT_POSTFIELDSIZE, (long)body->len) !=
          CURLE_OK)
    return;
  curl_easy_setopt(wire->easy, CURLOPT_TIMEOUT_MS,
                   (long)(left_ms > 1 ? left_ms : 1));
  *wire->why = '\0';
  reply->curl = curl_easy_perform(wire->easy);
  curl_easy_getinfo(wire->easy, CURLINFO_RESPONSE_CODE, &reply->http);
  curl_easy_getinfo(wire->easy, CURLINFO_REQUEST_SIZE, &size);
  curl_easy_getinfo(wire->easy, CURLINFO_NUM_CONNECTS, &connects);
  reply->sent = size > 0;
  reply->perhaps = wire->used && connects > 0;
  wire->used = wire->used || reply->curl == CURLE_OK;
  if (reply->curl == CURLE_OK)
    return;
  snprintf(reply->why, sizeof reply->why, "%.159s",
           *wire->why != '\0' ? wire->why : curl_easy_strerror(reply->curl));
  reply->stranger = strstr(wire->why, "alert certificate required") != NULL ||
                    strstr(wire->why, "alert bad certificate") != NULL;
}
