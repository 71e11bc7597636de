/* SPDX-License-Identifier: MIT
** What the rules need on etcd: time that is stretched, and leases that end
** when the clock is moved.
*/
#ifndef SPEC_ETCD_WORLD_H
#define SPEC_ETCD_WORLD_H

#include "world.h"

/* A world on etcd begins: what its store is reached by.  NULL: it cannot be
** loaded. */
const egi_store_ops *etcd_world_begin(const egi_url *url);
/* And ends: its keys are gone. */
void etcd_world_end(void);

/* The reply to a request, in memory of malloc; a text in base 64. */
char *etcd_world_ask(const char *path, const char *body);
void etcd_world_base64(const char *text, size_t n, char *out);

/* Before and after the clock is moved; nothing where no such world is open. */
void etcd_world_before(int64_t now_ms);
void etcd_world_after(int64_t now_ms);

#endif
