/* SPDX-License-Identifier: MIT
** Who this is to other processes: the owner line on a store that they share.
*/
#include "guard/guard.h"
#include "store/holder.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* This process: forgotten in a forked child, whose numbers of guards are its
** parent's.  Every grant asks for it, so no system call is made each time. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Atomic uint64_t nonce; /* 0: not known yet; the others follow it */
static pid_t pid;
static char host[64];

uint64_t egi_random(void) {
  static _Atomic uint64_t count;
  uint64_t number;
  if (getrandom(&number, sizeof number, 0) == sizeof number)
    return number | 1;
  /* There is no randomness (a sandbox): what no other call here has. */
  int64_t now = eg_system_clock()->now_us(NULL);
  return ((uint64_t)now << 16 ^ (uint64_t)getpid() << 40) +
         (atomic_fetch_add(&count, 2) | 1);
}

static void forget(void) {
  pthread_mutex_init(&lock, NULL);
  atomic_store(&nonce, 0);
}

static void mind_forks(void) { pthread_atfork(NULL, NULL, forget); }

static uint64_t learn(void) {
  pthread_once(&once, mind_forks);
  pthread_mutex_lock(&lock);
  uint64_t mine = atomic_load(&nonce);
  if (mine == 0) {
    pid = getpid();
    if (gethostname(host, sizeof host - 1) != 0)
      strcpy(host, "localhost");
    mine = egi_random();
    atomic_store(&nonce, mine);
  }
  pthread_mutex_unlock(&lock);
  return mine;
}

static inline uint64_t process_nonce(void) {
  uint64_t mine = atomic_load_explicit(&nonce, memory_order_acquire);
  return mine != 0 ? mine : learn();
}

eg_bytes egi_far_line(const eg_guard *guard, const char *text,
                      uint64_t attempt, unsigned char *line) {
  const eg_clock *clock = guard->env.clock;
  int64_t now = clock->coarse_us(clock->ctx);
  egi_holder holder = {.nonce = process_nonce(), /* sets pid and host */
                       .attempt = attempt,
                       .pid = pid,
                       .since_us = now + clock->offset_us(clock->ctx, now),
                       .state = guard->state,
                       .guard = guard->number,
                       .host = eg_str(host),
                       .text = eg_str(text != NULL ? text : guard->owner)};
  return egi_holder_write(&holder, line);
}

bool egi_far_is_guard(const eg_guard *guard, eg_bytes line) {
  egi_holder holder;
  return egi_holder_read(line, &holder) && holder.guard == guard->number &&
         holder.nonce == process_nonce();
}

bool egi_far_is_here(eg_bytes line) {
  egi_holder holder;
  return egi_holder_read(line, &holder) && holder.nonce == process_nonce();
}

bool egi_far_is_state(const eg_guard *guard, eg_bytes line) {
  egi_holder holder;
  return guard->state != 0 && egi_holder_read(line, &holder) &&
         holder.state == guard->state && holder.nonce == process_nonce();
}

static void copy(char *to, size_t size, eg_bytes from) {
  size_t n = from.len < size ? from.len : size - 1;
  memcpy(to, from.data, n);
  to[n] = '\0';
}

void egi_far_read(const eg_guard *guard, eg_bytes line, eg_owner *owner) {
  egi_holder holder;
  if (!egi_holder_read(line, &holder))
    return;
  copy(owner->host, sizeof owner->host, holder.host);
  copy(owner->text, sizeof owner->text, holder.text);
  owner->pid = holder.pid;
  owner->since_us = holder.since_us;
  owner->state = holder.state;
  owner->guard = holder.guard;
  owner->here = holder.nonce == process_nonce();
  owner->mine = owner->here && holder.guard == guard->number;
}
