/* SPDX-License-Identifier: MIT
** Redis Cluster: which node has which slot.
**
** A wrong guess is put right by the node that was asked (MOVED, ASK), so the
** map is only a help.  It is asked for when the cluster is first met, and
** again when a node could not be reached.
*/
#include "store/redis.h"

#include <stdlib.h>
#include <string.h>

/* CRC-16/XMODEM, the one of the cluster specification. */
static unsigned crc16(const unsigned char *data, size_t len) {
  unsigned crc = 0;
  for (size_t i = 0; i < len; i++) {
    crc ^= (unsigned)data[i] << 8;
    for (int bit = 0; bit < 8; bit++)
      crc = (crc & 0x8000) != 0 ? (crc << 1 ^ 0x1021) & 0xffff
                                : crc << 1 & 0xffff;
  }
  return crc;
}

int egi_redis_slot(const char *key, size_t len) {
  const char *open = memchr(key, '{', len);
  if (open != NULL) {
    size_t rest = len - (size_t)(open + 1 - key);
    const char *close = memchr(open + 1, '}', rest);
    if (close != NULL && close > open + 1) {
      key = open + 1;
      len = (size_t)(close - key);
    }
  }
  return (int)(crc16((const unsigned char *)key, len) % EGI_REDIS_SLOTS);
}

/* The addresses of the URL are the first nodes. */
static egi_node *seed(const egi_hub *hub) {
  unsigned given = (unsigned)hub->options.address.n;
  return hub->nodes[hub->seed % (given < hub->n ? given : hub->n)];
}

egi_node *egi_hub_route(egi_hub *hub, int slot) {
  pthread_mutex_lock(&hub->base.mutex);
  egi_node *node = seed(hub);
  if (hub->slots != NULL && slot != EGI_NO_SLOT && hub->slots[slot] != 0)
    node = hub->nodes[hub->slots[slot] - 1];
  /* One that cannot be reached is asked again after a while; until then
  ** somebody else may know who has taken its slots. */
  if (hub->slots != NULL && node->failures > 1)
    node = hub->nodes[hub->seed % hub->n];
  pthread_mutex_unlock(&hub->base.mutex);
  return node;
}

/* With the mutex. */
static void assign(egi_hub *hub, long from, long to, const egi_node *node) {
  if (hub->slots == NULL) {
    hub->slots = hub->base.env.alloc(NULL, NULL, 0, EGI_REDIS_SLOTS);
    if (hub->slots == NULL)
      return;
    memset(hub->slots, 0, EGI_REDIS_SLOTS);
  }
  unsigned number = 0;
  while (number < hub->n && hub->nodes[number] != node)
    number++;
  if (number == hub->n)
    return;
  for (long slot = from; slot <= to && slot < EGI_REDIS_SLOTS; slot++)
    if (slot >= 0)
      hub->slots[slot] = (unsigned char)(number + 1);
}

egi_node *egi_hub_moved(egi_hub *hub, const char *text, const egi_node *from) {
  char host[256];
  bool moved = strncmp(text, "MOVED ", 6) == 0;
  char *end;
  long slot = strtol(text + (moved ? 6 : 4), &end, 10);
  const char *colon = strrchr(end, ':');
  while (*end == ' ')
    end++;
  if (colon == NULL || colon < end || (size_t)(colon - end) >= sizeof host ||
      slot < 0)
    return NULL;
  memcpy(host, end, (size_t)(colon - end));
  host[colon - end] = '\0';
  long port = egi_parse_count(colon + 1, 65535);
  /* No host: the one that says so. */
  egi_node *node = port > 0
                       ? egi_hub_node(hub, host[0] != '\0' ? host : from->host,
                                      (int)port)
                       : NULL;
  if (node == NULL || !moved)
    return node;
  pthread_mutex_lock(&hub->base.mutex);
  hub->cluster = true;
  assign(hub, slot, slot, node);
  pthread_mutex_unlock(&hub->base.mutex);
  return node;
}

/* One range: [from, to, [host, port, ...], replicas...]. */
static void learn_range(egi_hub *hub, const redisReply *range,
                        const egi_node *from) {
  if (range->type != REDIS_REPLY_ARRAY || range->elements < 3)
    return;
  const redisReply *first = range->element[0], *last = range->element[1];
  const redisReply *master = range->element[2];
  if (first->type != REDIS_REPLY_INTEGER ||
      last->type != REDIS_REPLY_INTEGER || master->type != REDIS_REPLY_ARRAY ||
      master->elements < 2)
    return;
  const redisReply *host = master->element[0], *port = master->element[1];
  if (port->type != REDIS_REPLY_INTEGER)
    return;
  bool named = host->type == REDIS_REPLY_STRING && host->len > 0;
  const egi_node *node = egi_hub_node(hub, named ? host->str : from->host,
                                      (int)port->integer);
  if (node == NULL)
    return;
  pthread_mutex_lock(&hub->base.mutex);
  assign(hub, (long)first->integer, (long)last->integer, node);
  pthread_mutex_unlock(&hub->base.mutex);
}

void egi_hub_learn(egi_hub *hub, egi_wire *wire, int64_t until_us) {
  redisReply *reply = NULL;
  if (redisAppendCommand(wire->context, "CLUSTER SLOTS") != REDIS_OK ||
      egi_wire_send(wire, until_us, NULL) != EG_OK ||
      egi_wire_read(wire, until_us, &reply, NULL) != EG_OK)
    return; /* it is still pending, and will be discarded */
  wire->pending = false;
  if (reply->type == REDIS_REPLY_ARRAY) {
    for (size_t i = 0; i < reply->elements; i++)
      learn_range(hub, reply->element[i], wire->node);
    pthread_mutex_lock(&hub->base.mutex);
    hub->stale = false;
    pthread_mutex_unlock(&hub->base.mutex);
  }
  freeReplyObject(reply);
}

unsigned egi_hub_masters(egi_hub *hub, egi_node **nodes) {
  bool has[EGI_REDIS_NODES] = {false};
  unsigned n = 0;
  pthread_mutex_lock(&hub->base.mutex);
  if (hub->slots == NULL)
    nodes[n++] = seed(hub);
  for (int slot = 0; hub->slots != NULL && slot < EGI_REDIS_SLOTS; slot++)
    if (hub->slots[slot] != 0)
      has[hub->slots[slot] - 1] = true;
  for (unsigned i = 0; i < hub->n; i++)
    if (has[i])
      nodes[n++] = hub->nodes[i];
  pthread_mutex_unlock(&hub->base.mutex);
  return n;
}
