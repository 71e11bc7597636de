/* SPDX-License-Identifier: MIT
** The file store beside what its kernel and SQLite cost by hand:
**
**   files FOLDER ROUNDS CALLS RECORDS
**
** Prints "name figure" lines, one of each name a round, in nanoseconds a turn;
** in each round every way is timed, forward or backward.
*/
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "executionguard_host.h"

enum { PROCESSES = 4, TURNS = 60, REST_NS = 2000000 };

static char folder[200], url[240], many_url[240], value[103];
static eg_guard *guard, *few, *many;
static eg_grant grant;
static eg_reply reply;
static eg_policy again = EG_POLICY_DEFAULT;
static sqlite3 *raw;
static sqlite3_stmt *put, *get;
static int kept_fd;
static long fresh; /* numbers of keys that nobody has seen */

/* What the processes of a measurement share. */
static struct board {
  _Atomic long turn, done, count[PROCESSES];
  _Atomic int stop;
  double released, sum;
} * board;

static double now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

static void die(const char *what) {
  fprintf(stderr, "bench: files: %s\n", what);
  exit(1);
}

static void rest(void) {
  struct timespec span = {0, REST_NS};
  nanosleep(&span, NULL);
}

static eg_bytes key_of(const char *prefix, long n) {
  static char key[40];
  snprintf(key, sizeof key, "%s%ld", prefix, n);
  return eg_str(key);
}

/* ------------------------------------------------------------- locking -- */

static void lock_raw(int fd) {
  if (flock(fd, LOCK_EX) != 0)
    die(strerror(errno));
}

static void raw_new(int calls) {
  char path[260];
  for (int i = 0; i < calls; i++) {
    snprintf(path, sizeof path, "%s/raw/%ld.lock", folder, fresh++);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    lock_raw(fd);
    close(fd);
  }
}

static void lock_ours(eg_bytes key) {
  if (eg_acquire(guard, key, EG_WANT_LOCK, NULL, 0, &grant, &reply) != EG_OK ||
      eg_release(guard, key, grant.token, NULL) != EG_OK)
    die(reply.failure.message);
}

static void our_new(int calls) {
  for (int i = 0; i < calls; i++)
    lock_ours(key_of("new", fresh++));
}

static void raw_again(int calls) {
  for (int i = 0; i < calls; i++) {
    lock_raw(kept_fd);
    flock(kept_fd, LOCK_UN);
  }
}

static void our_again(int calls) {
  for (int i = 0; i < calls; i++)
    lock_ours(eg_str("again"));
}

/* ---------------------------------------------------------------- runs -- */

static void run_ours(eg_guard *g, eg_bytes key, size_t size) {
  eg_outcome done = {.status = EG_OK, .kind = EG_KIND_VALUE};
  value[1] = (char)(size - 2); /* MessagePack: a text, of that length */
  done.value = (eg_bytes){value, size};
  if (eg_acquire(g, key, EG_WANT_RUN, &again, 0, &grant, &reply) != EG_OK ||
      eg_commit(g, key, &grant, &done, &again, NULL) != EG_OK)
    die("a run failed");
}

static void our_first(int calls) {
  for (int i = 0; i < calls; i++)
    run_ours(guard, key_of("run", fresh++), 40);
}

static void our_rerun(int calls) {
  for (int i = 0; i < calls; i++)
    run_ours(guard, key_of("rerun", i % 64), 40);
}

static void put_raw(eg_bytes key, int version) {
  sqlite3_bind_blob(put, 1, key.data, (int)key.len, SQLITE_STATIC);
  sqlite3_bind_int(put, 2, version);
  sqlite3_bind_blob(put, 3, value, 60 + version % 2, SQLITE_STATIC);
  if (sqlite3_step(put) != SQLITE_DONE)
    die(sqlite3_errmsg(raw));
  sqlite3_reset(put);
}

static void raw_first(int calls) {
  for (int i = 0; i < calls; i++) {
    eg_bytes key = key_of("run", fresh++);
    put_raw(key, 1);
    put_raw(key, 2);
  }
}

static void raw_rerun(int calls) {
  static int version;
  for (int i = 0; i < calls; i++) {
    put_raw(key_of("rerun", i % 64), ++version);
    put_raw(key_of("rerun", i % 64), ++version);
  }
}

static void raw_select(int calls) {
  for (int i = 0; i < calls; i++) {
    sqlite3_bind_blob(get, 1, "rerun1", 6, SQLITE_STATIC);
    if (sqlite3_step(get) != SQLITE_ROW)
      die("no row");
    memcpy(value, sqlite3_column_blob(get, 1), 1);
    sqlite3_reset(get);
  }
}

static void cached(eg_guard *g, eg_bytes key, int calls) {
  for (int i = 0; i < calls; i++)
    if (eg_acquire(g, key, EG_WANT_RUN, NULL, 0, &grant, &reply) != EG_CACHED)
      die("it is not cached");
}

static void our_select(int calls) { /* too large to be kept in memory */
  cached(guard, eg_str("large"), calls);
}

static void our_cached(int calls) { cached(guard, eg_str("small"), calls); }

/* ---------------------------------------------- few and many records -- */

static void few_cached(int calls) {
  for (int i = 0; i < calls; i++)
    cached(few, key_of("key", (long)i * 7919 % 1000), 1);
}

static long records;

static void many_cached(int calls) {
  for (int i = 0; i < calls; i++)
    cached(many, key_of("key", (long)i * 7919 % records), 1);
}

static void few_first(int calls) {
  for (int i = 0; i < calls; i++)
    run_ours(few, key_of("first", fresh++), 40);
}

static void many_first(int calls) {
  for (int i = 0; i < calls; i++)
    run_ours(many, key_of("first", fresh++), 40);
}

static bool ten(void *ctx, const eg_record *record) {
  (void)record;
  return ++*(int *)ctx < 10;
}

static void list(eg_guard *g, int calls) {
  for (int i = 0; i < calls / 20; i++) {
    int n = 0;
    if (eg_scan(g, eg_str("key5"), ten, &n, NULL) != EG_OK || n != 10)
      die("no list");
  }
}

static void few_list(int calls) { list(few, calls); }
static void many_list(int calls) { list(many, calls); }

/* ---------------------------------------------------------- hand-overs -- */

/* From the release to the grant of a process that waits: the moment of each
** release is noted before it, that of the grant after it. */
static double relay(void (*child)(void), void (*take)(void),
                    void (*drop)(void)) {
  memset(board, 0, sizeof *board);
  pid_t pid = fork();
  if (pid == 0) {
    child();
    _exit(0);
  }
  for (long i = 1; i <= TURNS; i++) {
    take();
    board->turn = i;
    rest(); /* until it waits */
    board->released = now_ns();
    drop();
    while (board->done < i)
      usleep(50);
  }
  waitpid(pid, NULL, 0);
  return board->sum / TURNS;
}

static void granted(long i, void (*drop)(void)) {
  board->sum += now_ns() - board->released;
  drop();
  board->done = i;
}

static void await_turn(long i) {
  while (board->turn < i)
    usleep(50);
}

static void take_raw(void) { lock_raw(kept_fd); }
static void drop_raw(void) { flock(kept_fd, LOCK_UN); }

static void wait_raw(void) {
  char path[260];
  snprintf(path, sizeof path, "%s/kept", folder);
  kept_fd = open(path, O_RDWR | O_CLOEXEC);
  for (long i = 1; i <= TURNS; i++) {
    await_turn(i);
    lock_raw(kept_fd);
    granted(i, drop_raw);
  }
}

static void take_ours(void) {
  if (eg_acquire(guard, eg_str("relay"), EG_WANT_LOCK, NULL, 20000, &grant,
                 &reply) != EG_OK)
    die("no lock");
}

static void drop_ours(void) {
  eg_release(guard, eg_str("relay"), grant.token, NULL);
}

static void wait_ours(void) {
  for (long i = 1; i <= TURNS; i++) {
    await_turn(i);
    take_ours();
    granted(i, drop_ours);
  }
}

/* As a coroutine's loop does: by the descriptor of a bell. */
static void wait_polling(void) {
  eg_bell *bell;
  eg_pending *pending;
  eg_status status;
  eg_bell_open(NULL, &bell, NULL);
  struct pollfd fd = {.fd = eg_bell_fd(bell, NULL), .events = POLLIN};
  for (long i = 1; i <= TURNS; i++) {
    await_turn(i);
    status = eg_acquire_begin(guard, eg_str("relay"), EG_WANT_LOCK, NULL,
                              20000, bell, &pending, &grant, &reply);
    while (pending != NULL) {
      poll(&fd, 1, 20000);
      while (eg_bell_next(bell) != NULL)
        continue;
      if (eg_pending_over(pending, &status, &grant, &reply))
        pending = NULL;
    }
    if (status != EG_OK)
      die("a waiter got nothing");
    granted(i, drop_ours);
  }
}

static double raw_hand_over(void) {
  return relay(wait_raw, take_raw, drop_raw);
}

static double our_hand_over(void) {
  return relay(wait_ours, take_ours, drop_ours);
}

static double polled_hand_over(void) {
  return relay(wait_polling, take_ours, drop_ours);
}

/* ------------------------------------------------------- side by side -- */

static void work(int number) {
  char prefix[16];
  snprintf(prefix, sizeof prefix, "p%d.", number);
  for (long i = 0; !board->stop; i++) {
    run_ours(guard, key_of(prefix, i % 16), 40);
    board->count[number] = i;
  }
}

/* Runs a second of so many processes.  *least: of who did the least, to who
** did the most. */
static double together(int n, double *least) {
  pid_t pids[PROCESSES];
  double sum = 0, lo = 1e18, hi = 1;
  memset(board, 0, sizeof *board);
  for (int i = 0; i < n; i++)
    if ((pids[i] = fork()) == 0) {
      work(i);
      _exit(0);
    }
  double begin = now_ns();
  usleep(300000);
  board->stop = 1;
  double took = (now_ns() - begin) / 1e9;
  for (int i = 0; i < n; i++) {
    waitpid(pids[i], NULL, 0);
    double count = (double)board->count[i];
    sum += count;
    lo = count < lo ? count : lo;
    hi = count > hi ? count : hi;
  }
  *least = lo / hi;
  return sum / took;
}

/* ---------------------------------------------------------------- main -- */

static const struct {
  const char *name;
  void (*work)(int calls);
  double (*relay)(void);
} ways[] = {{"raw_new", raw_new, NULL},
            {"our_new", our_new, NULL},
            {"raw_again", raw_again, NULL},
            {"our_again", our_again, NULL},
            {"raw_select", raw_select, NULL},
            {"our_select", our_select, NULL},
            {"our_cached", our_cached, NULL},
            {"raw_first", raw_first, NULL},
            {"our_first", our_first, NULL},
            {"raw_rerun", raw_rerun, NULL},
            {"our_rerun", our_rerun, NULL},
            {"few_cached", few_cached, NULL},
            {"many_cached", many_cached, NULL},
            {"few_first", few_first, NULL},
            {"many_first", many_first, NULL},
            {"few_list", few_list, NULL},
            {"many_list", many_list, NULL},
            {"raw_hand_over", NULL, raw_hand_over},
            {"our_hand_over", NULL, our_hand_over},
            {"polled_hand_over", NULL, polled_hand_over}};

enum { WAYS = sizeof ways / sizeof *ways };

static void measure(int way, int calls, bool quiet) {
  double begin = now_ns(), each;
  if (ways[way].work != NULL) {
    ways[way].work(calls);
    each = (now_ns() - begin) / calls;
  } else {
    each = ways[way].relay();
  }
  if (!quiet)
    printf("%s %.0f\n", ways[way].name, each);
}

static void measure_together(void) {
  double least, alone = together(1, &least), all;
  printf("one_process %.0f\n", alone);
  all = together(PROCESSES, &least);
  printf("four_processes %.0f\nleast_served %.3f\n", all, least);
}

static eg_guard *open_guard(const char *where, const char *name) {
  eg_options options = {.store = where, .name = name};
  eg_guard *opened;
  eg_error error;
  if (eg_open(&options, &opened, &error) != EG_OK)
    die(error.message);
  return opened;
}

static void open_raw(void) {
  char path[260];
  snprintf(path, sizeof path, "%s/raw.db", folder);
  sqlite3_open(path, &raw);
  sqlite3_exec(raw,
               "pragma journal_mode=wal;pragma synchronous=normal;"
               "create table r(k blob primary key, v int, b blob) without "
               "rowid",
               NULL, NULL, NULL);
  sqlite3_prepare_v2(raw,
                     "insert into r values(?1,?2,?3) on conflict(k) do update "
                     "set v=?2,b=?3",
                     -1, &put, NULL);
  sqlite3_prepare_v2(raw, "select v,b from r where k=?1", -1, &get, NULL);
  snprintf(path, sizeof path, "%s/kept", folder);
  kept_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

static void prepare(void) {
  char path[260];
  again.allow_rerun = true;
  eg_reply_init(&reply);
  memset(value, 'x', sizeof value);
  value[0] = (char)0xd9;
  snprintf(url, sizeof url, "file:%s/ours?history=0", folder);
  snprintf(many_url, sizeof many_url, "file:%s/many?history=0", folder);
  snprintf(path, sizeof path, "%s/raw", folder);
  if (mkdir(folder, 0700) != 0 || mkdir(path, 0700) != 0)
    die("the folder is there already, or cannot be made");
  open_raw();
  guard = open_guard(url, NULL);
  few = open_guard(url, "few");
  many = open_guard(many_url, NULL);
  run_ours(guard, eg_str("large"), 102);
  run_ours(guard, eg_str("small"), 20);
  for (long i = 0; i < 1000; i++)
    run_ours(few, key_of("key", i), 102);
  for (long i = 0; i < records; i++)
    run_ours(many, key_of("key", i), 102);
  raw_rerun(64);
  our_rerun(64);
}

int main(int argc, char **argv) {
  if (argc < 5)
    die("FOLDER ROUNDS CALLS RECORDS");
  snprintf(folder, sizeof folder, "%s", argv[1]);
  int rounds = atoi(argv[2]), calls = atoi(argv[3]);
  records = atol(argv[4]);
  board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  prepare();
  for (int way = 0; way < WAYS; way++)
    measure(way, calls / 4 > 20 ? calls / 4 : 20, true);
  for (int round = 0; round < rounds; round++) {
    for (int i = 0; i < WAYS; i++)
      measure(round % 2 == 0 ? i : WAYS - 1 - i, calls, false);
    measure_together();
  }
  eg_close(many);
  eg_close(few);
  eg_close(guard);
  return 0;
}
