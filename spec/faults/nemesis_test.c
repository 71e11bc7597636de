/* SPDX-License-Identifier: MIT
** The nemesis: eight processes use twenty keys of a store on a real server,
** while they are killed and stopped, the server is killed and comes back, with
** its data or without, wires are cut, slow or silent, and wall clocks are set
** by an hour.  What they saw is then judged by spec/tools/check-history.
**
** Real processes, servers and time: a few seconds for each store here; NEMESIS
** says how many (make nemesis NEMESIS=60).
*/
#include "nemesis.h"
#include "faults.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECONDS = 5, READY_US = 60000000 };

/* A further store is one more line here, and a case in store-server. */
static const nemesis_store stores[] = {
    {"redis", "redis-server", "redis://127.0.0.1:%d/0", SIGKILL, 1000, 1250,
     20, false},
    {"postgres", "psql",
     "postgresql://eg@127.0.0.1:%d/postgres?sslmode=disable", SIGQUIT, 1000,
     1250, 20, false},
    {"etcd", "etcd", "etcd://127.0.0.1:%d", SIGKILL, 2000, 5000, 5, true},
};

typedef struct nemesis {
  const nemesis_store *store;
  nemesis_board *board;
  uint32_t seed;
  pid_t server, proxy, workers[NEMESIS_WORKERS];
  int lives[NEMESIS_WORKERS];
  int64_t wakes_us[NEMESIS_WORKERS]; /* is stopped until then; 0: is not */
  int log;
  int done[8]; /* how often, of each kind of trouble */
} nemesis;

static uint32_t dice(nemesis *n, uint32_t sides) {
  return nemesis_dice(&n->seed, sides);
}

/* A child that dies with us. */
static pid_t spawn(void) {
  pid_t parent = getpid(), child = fork();
  if (child != 0)
    return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent)
    _exit(94);
  return 0;
}

static void note(nemesis *n, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void note(nemesis *n, const char *format, ...) {
  char line[200];
  va_list args;
  va_start(args, format);
  int len = vsnprintf(line, sizeof line - 1, format, args);
  va_end(args);
  line[len++] = '\n';
  assert_int_equal(write(n->log, line, (size_t)len), len);
}

/* ----------------------------------------------------------- the server -- */

static void start_server(nemesis *n) {
  char data[80], port[16], log[96];
  n->server = spawn();
  if (n->server != 0)
    return;
  snprintf(data, sizeof data, "%s/data", n->board->dir);
  snprintf(log, sizeof log, "%s/server.log", n->board->dir);
  snprintf(port, sizeof port, "%d", n->board->server_port);
  mkdir(data, 0700);
  int to = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
  dup2(to, 1);
  dup2(to, 2);
  execl("spec/tools/store-server", "store-server", n->store->name, data, port,
        (char *)NULL);
  _exit(93);
}

/* In a child: who forks is to have no guard. */
static void await_server(nemesis *n) {
  pid_t child = spawn();
  if (child == 0) {
    int64_t until = nemesis_now_us() + READY_US;
    eg_error error = {.message = ""};
    while (nemesis_now_us() < until) {
      eg_guard *guard = nemesis_open(n->board, n->store, NEMESIS_READER,
                                     &error);
      if (guard != NULL)
        _exit(0);
      usleep(20000);
    }
    fprintf(stderr, "nemesis: the server does not answer: %s\n",
            error.message);
    _exit(1);
  }
  assert_int_equal(trouble_wait(child), 0);
}

static void restart_server(nemesis *n, bool wipe) {
  int64_t from = nemesis_now_us();
  kill(n->server, n->store->crash_signal);
  trouble_wait(n->server);
  if (wipe) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s/data", n->board->dir);
    assert_int_equal(system(command), 0);
  }
  start_server(n);
  await_server(n);
  if (wipe)
    note(n, "lost\t%lld\t%lld", (long long)from, (long long)nemesis_now_us());
}

/* ------------------------------------------------------------- trouble -- */

static void start_worker(nemesis *n, int i) {
  int life = ++n->lives[i];
  n->workers[i] = spawn();
  if (n->workers[i] == 0)
    nemesis_work(n->board, n->store, i, life);
}

static void wake_worker(nemesis *n, int i) {
  n->wakes_us[i] = 0;
  kill(n->workers[i], SIGCONT);
}

enum { KILL, STOP, CUT, SLOW, HOLE, STEP, RESTART, WIPE, KINDS };

static void make_trouble(nemesis *n, int kind) {
  nemesis_board *b = n->board;
  int i = (int)dice(n, NEMESIS_WORKERS);
  int64_t now = nemesis_now_us(), lease_us = n->store->lease_ms * 1000;
  switch (kind) {
  case KILL:
    kill(n->workers[i], SIGKILL);
    trouble_wait(n->workers[i]);
    n->wakes_us[i] = 0;
    start_worker(n, i);
    break;
  case STOP:
    kill(n->workers[i], SIGSTOP);
    n->wakes_us[i] = now + n->store->gone_ms * 1000;
    break;
  case CUT:
    atomic_fetch_add(&b->cuts[i], 1);
    break;
  case SLOW:
    atomic_store(&b->delay_us[i], dice(n, 3) * dice(n, 150000));
    break;
  case HOLE:
    atomic_store(&b->hole_us[i], now + lease_us * (1 + dice(n, 3)) / 2);
    break;
  case STEP:
    atomic_store(&b->step_us[i | 1],
                 ((int64_t)dice(n, 3) - 1) * 3600 * 1000000);
    break;
  default:
    restart_server(n, kind == WIPE && !n->store->forgets);
  }
  n->done[kind]++;
  note(n, "#\t%lld\ttrouble %d for %d", (long long)now, kind, i);
}

static void wake_those_due(nemesis *n, int64_t now) {
  for (int i = 0; i < NEMESIS_WORKERS; i++)
    if (n->wakes_us[i] > 0 && n->wakes_us[i] <= now)
      wake_worker(n, i);
}

/* Each kind once in a round, in any order. */
static void make_much_trouble(nemesis *n, int64_t until_us) {
  int deck[KINDS], left = 0;
  while (nemesis_now_us() < until_us) {
    if (left == 0)
      for (; left < KINDS; left++)
        deck[left] = left;
    int at = (int)dice(n, (uint32_t)left), kind = deck[at];
    deck[at] = deck[--left];
    make_trouble(n, kind);
    int64_t pause = nemesis_now_us() + 50000 + dice(n, 250000);
    while (nemesis_now_us() < pause) {
      wake_those_due(n, nemesis_now_us());
      usleep(10000);
    }
  }
}

static void end_trouble(nemesis *n) {
  for (int i = 0; i < NEMESIS_PORTS; i++) {
    atomic_store(&n->board->delay_us[i], 0);
    atomic_store(&n->board->hole_us[i], 0);
    atomic_fetch_add(&n->board->cuts[i], 1);
  }
  for (int i = 0; i < NEMESIS_WORKERS; i++)
    wake_worker(n, i);
  atomic_store(&n->board->stop, true);
  for (int i = 0; i < NEMESIS_WORKERS; i++)
    assert_int_equal(trouble_wait(n->workers[i]), 0);
}

/* ------------------------------------------------------------- judgement -- */

static long count_in(const char *said, const char *name) {
  const char *at = strstr(said, name);
  return at != NULL ? strtol(at + strlen(name), NULL, 10) : -1;
}

/* The long form has to have met all that there is to be met. */
static void judge(nemesis *n, int seconds) {
  static char said[8192];
  char command[160];
  snprintf(command, sizeof command,
           "spec/tools/check-history %s/*.history 2>&1", n->board->dir);
  FILE *pipe = popen(command, "r");
  assert_non_null(pipe);
  size_t len = fread(said, 1, sizeof said - 1, pipe);
  said[len] = '\0';
  int status = pclose(pipe);
  print_message("%s: %s", n->store->name, said);
  if (status != 0) {
    snprintf(command, sizeof command, "cp -r %s /tmp/nemesis.kept.%d",
             n->board->dir, (int)getpid());
    if (system(command) == 0)
      print_message("kept in /tmp/nemesis.kept.%d\n", (int)getpid());
  }
  assert_int_equal(status, 0);
  assert_int_equal(count_in(said, "faults="), 0);
  int work = n->store->grants * seconds;
  assert_true(count_in(said, "granted=") >= work);
  assert_true(count_in(said, "committed=") >= work / 20);
  assert_true(count_in(said, "read=") >= work);
  if (seconds >= 30) {
    /* Where little is done, it may be that nobody was stopped in a run. */
    assert_true(count_in(said, "refused=") > 0 || n->store->forgets);
    assert_true(count_in(said, "unknown=") > 0);
    for (int kind = 0; kind < KINDS; kind++)
      assert_true(n->done[kind] > 0);
  }
}

static void begin(nemesis *n, const nemesis_store *store) {
  char path[128];
  const char *seed = getenv("NEMESIS_SEED");
  memset(n, 0, sizeof *n);
  n->store = store;
  n->seed = seed != NULL ? (uint32_t)atol(seed) : (uint32_t)getpid();
  n->board = mmap(NULL, sizeof *n->board, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(n->board != MAP_FAILED);
  strcpy(n->board->dir, "/tmp/eg-nemesis-XXXXXX");
  assert_non_null(mkdtemp(n->board->dir));
  chmod(n->board->dir, 0711);
  snprintf(path, sizeof path, "%s/nemesis.history", n->board->dir);
  n->log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  note(n, "#\tseed %u", n->seed);
  assert_true(nemesis_listen(n->board));
  n->board->start_us = nemesis_now_us();
  n->proxy = spawn();
  if (n->proxy == 0)
    nemesis_pass_on(n->board);
  start_server(n);
  await_server(n);
  for (int i = 0; i < NEMESIS_WORKERS; i++)
    start_worker(n, i);
}

static void end(nemesis *n) {
  char command[128];
  kill(n->server, n->store->crash_signal);
  trouble_wait(n->server);
  kill(n->proxy, SIGKILL);
  trouble_wait(n->proxy);
  for (int i = 0; i < NEMESIS_PORTS; i++)
    close(n->board->listeners[i]);
  close(n->log);
  snprintf(command, sizeof command, "rm -rf %s", n->board->dir);
  assert_int_equal(system(command), 0);
  munmap(n->board, sizeof *n->board);
}

/* Is there such a server?  Where everything has to be, there has to be. */
static bool is_there(const nemesis_store *store) {
  char command[128];
  snprintf(command, sizeof command, "command -v %s >/dev/null",
           store->program);
  bool there = system(command) == 0;
  if (!there && getenv("CI") != NULL)
    fail_msg("%s is not installed", store->program);
  return there;
}

static void promises_are_kept(void **state) {
  nemesis n;
  const char *text = getenv("NEMESIS");
  int seconds = text != NULL ? atoi(text) : SECONDS;
  if (!is_there(*state))
    skip();
  begin(&n, *state);
  make_much_trouble(&n, nemesis_now_us() + (int64_t)seconds * 1000000);
  end_trouble(&n);
  pid_t reader = spawn();
  if (reader == 0)
    nemesis_read_all(n.board, n.store);
  assert_int_equal(trouble_wait(reader), 0);
  judge(&n, seconds);
  end(&n);
}

int main(void) {
  enum { STORES = sizeof stores / sizeof *stores };
  struct CMUnitTest tests[STORES];
  char names[STORES][64];
  for (int i = 0; i < STORES; i++) {
    snprintf(names[i], sizeof names[i], "promises_are_kept_on_%s",
             stores[i].name);
    tests[i] = (struct CMUnitTest){names[i], promises_are_kept, NULL, NULL,
                                   (void *)&stores[i]};
  }
  return cmocka_run_group_tests_name("nemesis", tests, NULL, NULL);
}
