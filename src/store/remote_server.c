/* SPDX-License-Identifier: MIT
** Servers as this process knows them: each is shared by the handles that name
** it in the same way, and lives as long as one of them does.
*/
#include "store/remote.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Of one kind: each store is an object of its own, with a copy of this. */
static pthread_mutex_t servers_mutex = PTHREAD_MUTEX_INITIALIZER;
static egi_server *servers;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* --------------------------------------------------------------- forks -- */

static void lock_all(void) {
  pthread_mutex_lock(&servers_mutex);
  for (egi_server *s = servers; s != NULL; s = s->next) {
    pthread_mutex_lock(&s->mutex);
    pthread_mutex_lock(&s->listen_mutex);
  }
}

static void unlock_all(void) {
  for (egi_server *s = servers; s != NULL; s = s->next) {
    pthread_mutex_unlock(&s->listen_mutex);
    pthread_mutex_unlock(&s->mutex);
  }
  pthread_mutex_unlock(&servers_mutex);
}

static void in_child(void) {
  for (egi_server *s = servers; s != NULL; s = s->next) {
    s->kind->forked(s);
    s->open = 0;
    s->generation++;
    egi_listener_forked(s);
    egi_steady_cond(&s->cond);
  }
  unlock_all();
}

static void init_once(void) { pthread_atfork(lock_all, unlock_all, in_child); }

/* ------------------------------------------------------------- servers -- */

static void *plain_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud;
  (void)osize;
  if (nsize == 0) {
    free(ptr);
    return NULL;
  }
  return realloc(ptr, nsize);
}

struct egi_namespace {
  egi_namespace *next;
  unsigned handles;
  char name[]; /* and a zero */
};

const void *egi_server_space(egi_server *s, const char *name) {
  size_t size = sizeof(egi_namespace) + strlen(name) + 1;
  pthread_mutex_lock(&servers_mutex);
  egi_namespace *space = s->spaces;
  while (space != NULL && strcmp(space->name, name) != 0)
    space = space->next;
  if (space == NULL && (space = plain_alloc(NULL, NULL, 0, size)) != NULL) {
    memcpy(space->name, name, size - sizeof *space);
    space->handles = 0;
    space->next = s->spaces;
    s->spaces = space;
  }
  if (space != NULL)
    space->handles++;
  pthread_mutex_unlock(&servers_mutex);
  return space;
}

/* With servers_mutex. */
static void leave_space(egi_server *s, const void *space) {
  egi_namespace **link = &s->spaces, *gone;
  while (*link != NULL && *link != space)
    link = &(*link)->next;
  gone = *link;
  if (gone == NULL || --gone->handles > 0)
    return;
  *link = gone->next;
  plain_alloc(NULL, gone, 0, 0);
}

static bool init_sync(egi_server *s) {
  return pthread_mutex_init(&s->mutex, NULL) == 0 &&
         pthread_mutex_init(&s->listen_mutex, NULL) == 0 &&
         egi_steady_cond(&s->cond) == 0 &&
         egi_steady_cond(&s->listen_cond) == 0;
}

static void destroy(egi_server *s) {
  s->kind->empty(s);
  if (s->kick >= 0)
    close(s->kick);
  pthread_mutex_destroy(&s->mutex);
  pthread_mutex_destroy(&s->listen_mutex);
  pthread_cond_destroy(&s->cond);
  pthread_cond_destroy(&s->listen_cond);
  plain_alloc(NULL, s, s->kind->size, 0);
}

static egi_server *make(const egi_server_kind *kind, const void *options) {
  egi_server *s = plain_alloc(NULL, NULL, 0, kind->size);
  if (s == NULL)
    return NULL;
  memset(s, 0, kind->size);
  s->kind = kind;
  s->env.alloc = plain_alloc;
  s->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (init_sync(s) && s->kick >= 0 && kind->fill(s, options))
    return s;
  destroy(s);
  return NULL;
}

eg_status egi_server_find(const egi_server_kind *kind, const void *options,
                          egi_server **server, eg_error *error) {
  pthread_once(&once, init_once);
  pthread_mutex_lock(&servers_mutex);
  egi_server *s = servers;
  while (s != NULL && !kind->alike(s, options))
    s = s->next;
  if (s == NULL) {
    s = make(kind, options);
    if (s != NULL) {
      s->next = servers;
      servers = s;
    }
  }
  if (s != NULL)
    s->handles++;
  pthread_mutex_unlock(&servers_mutex);
  *server = s;
  return s != NULL
             ? EG_OK
             : egi_remote_fail(error, EG_NOMEM, errno, "not enough memory");
}

void egi_server_leave(egi_server *s, const void *space) {
  pthread_mutex_lock(&servers_mutex);
  leave_space(s, space);
  bool last = --s->handles == 0;
  if (last) {
    egi_server **link = &servers;
    while (*link != s)
      link = &(*link)->next;
    *link = s->next;
  }
  pthread_mutex_unlock(&servers_mutex);
  if (!last)
    return;
  egi_listener_stop(s);
  destroy(s);
}

unsigned egi_server_generation(const egi_server *s) {
  return __atomic_load_n(&s->generation, __ATOMIC_ACQUIRE);
}

bool egi_server_is_new_child(const egi_server *s, unsigned *generation) {
  unsigned now = egi_server_generation(s);
  return __atomic_load_n(generation, __ATOMIC_ACQUIRE) != now &&
         __atomic_exchange_n(generation, now, __ATOMIC_ACQ_REL) != now;
}
