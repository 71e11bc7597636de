/* SPDX-License-Identifier: MIT
** Fences: a holder that was paused for longer than its lease writes too late,
** and each of the ready-made checks refuses it, a thousand times.
**
** The check is that of the store in EXECUTIONGUARD_STORE: a script on redis, a
** function on postgres, a compare on etcd; without one, a file.  Clocks are
** moved by hand.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "etcd_world.h"

#include <cmocka.h>

enum { ROUNDS = 1000, KEYS = 5, LEASE_MS = 15000 };

/* What is written to: one text for each key. */
typedef struct check {
  const char *scheme;
  bool by_grants; /* refuses an older token though no newer one has written */
  bool (*begin)(const char *url);
  /* OK, LOST; or what is wrong. */
  eg_status (*write)(const char *key, uint64_t token, const char *text);
  void (*read)(const char *key, char *text, size_t size);
  void (*end)(void);
} check;

/* ---------------------------------------------------------------- files -- */

static char folder[64];

/* In memory where that can be: it is synced often. */
static bool file_begin(const char *url) {
  struct stat st;
  (void)url;
  snprintf(folder, sizeof folder, "%s/eg-fence-XXXXXX",
           stat("/dev/shm", &st) == 0 ? "/dev/shm" : "/tmp");
  return mkdtemp(folder) != NULL;
}

static eg_status file_write(const char *key, uint64_t token,
                            const char *text) {
  char path[128];
  snprintf(path, sizeof path, "%s/%s", folder, key);
  return eg_fence_write(path, token, eg_str(text), 10000, NULL);
}

static void file_read(const char *key, char *text, size_t size) {
  char path[128];
  snprintf(path, sizeof path, "%s/%s", folder, key);
  FILE *file = fopen(path, "r");
  size_t n = file != NULL ? fread(text, 1, size - 1, file) : 0;
  text[n] = '\0';
  if (file != NULL)
    fclose(file);
}

static void file_end(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", folder);
  assert_int_equal(system(command), 0);
}

/* ---------------------------------------------------------------- redis -- */

static int redis = -1;

static bool redis_begin(const char *url) {
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  snprintf(at.sun_path, sizeof at.sun_path, "%s", strchr(url, '/') + 2);
  redis = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return connect(redis, (struct sockaddr *)&at, sizeof at) == 0;
}

/* One command and the first line, or the text, of what is said to it. */
static void redis_say(const char *const *words, int n, char *said,
                      size_t size) {
  char text[8192];
  int len = snprintf(text, sizeof text, "*%d\r\n", n);
  for (int i = 0; i < n; i++)
    len += snprintf(text + len, sizeof text - (size_t)len, "$%zu\r\n%s\r\n",
                    strlen(words[i]), words[i]);
  assert_int_equal(send(redis, text, (size_t)len, 0), len);
  ssize_t got = recv(redis, text, sizeof text - 1, 0);
  assert_true(got > 2);
  text[got] = '\0';
  const char *from = *text == '$' ? strchr(text, '\n') + 1 : text;
  snprintf(said, size, "%.*s", (int)strcspn(from, "\r"), from);
}

static eg_status redis_write(const char *key, uint64_t token,
                             const char *text) {
  char guarded[EG_FENCE_REDIS_KEY_MAX + 1], number[24], said[200], data[64];
  size_t n = eg_fence_redis_key("fence", eg_str(key), guarded);
  guarded[n] = '\0';
  snprintf(number, sizeof number, "%llu", (unsigned long long)token);
  snprintf(data, sizeof data, "{fence:%s}", key);
  const char *const words[] = {
      "EVAL", eg_fence_redis_script(), "2", guarded, data, number, "SET", data,
      text};
  redis_say(words, 9, said, sizeof said);
  if (strncmp(said, "-STALE", 6) == 0)
    return EG_LOST;
  if (strcmp(said, "+OK") != 0)
    fail_msg("redis says %s", said);
  return EG_OK;
}

static void redis_read(const char *key, char *text, size_t size) {
  char data[64];
  snprintf(data, sizeof data, "{fence:%s}", key);
  const char *const words[] = {"GET", data};
  redis_say(words, 2, text, size);
}

static void redis_end(void) { close(redis); }

/* ------------------------------------------------------------- postgres -- */

static FILE *psql_in, *psql_out;
static pid_t psql;

static void psql_say(char *said, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What comes until it says that this was all. */
static void psql_say(char *said, size_t size, const char *format, ...) {
  char line[400];
  size_t n = 0;
  va_list args;
  va_start(args, format);
  vfprintf(psql_in, format, args);
  va_end(args);
  fprintf(psql_in, "\n\\echo that was all\n");
  fflush(psql_in);
  *said = '\0';
  while (fgets(line, sizeof line, psql_out) != NULL &&
         strcmp(line, "that was all\n") != 0)
    n += (size_t)snprintf(said + n, n < size ? size - n : 0, "%s", line);
  said[strcspn(said, "\n")] = '\0';
}

static bool psql_begin(const char *url) {
  char said[400];
  int in[2], out[2];
  if (pipe(in) != 0 || pipe(out) != 0)
    return false;
  psql = fork();
  if (psql == 0) {
    dup2(in[0], 0);
    dup2(out[1], 1);
    dup2(out[1], 2);
    close(in[1]);
    close(out[0]);
    execlp("psql", "psql", "-qAtX", url, (char *)NULL);
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  psql_in = fdopen(in[1], "w");
  psql_out = fdopen(out[0], "r");
  psql_say(said, sizeof said,
           "CREATE TABLE account (k text PRIMARY KEY, v text);");
  return *said == '\0';
}

static eg_status psql_write(const char *key, uint64_t token,
                            const char *text) {
  char said[400];
  psql_say(said, sizeof said,
           "BEGIN; INSERT INTO account VALUES ('%s','%s') ON CONFLICT (k) DO "
           "UPDATE SET v=excluded.v; SELECT "
           "eg_check_token('fence','%s',%llu); COMMIT;",
           key, text, key, (unsigned long long)token);
  if (strstr(said, "is older than") != NULL)
    return EG_LOST;
  if (*said != '\0')
    fail_msg("postgres says %s", said);
  return EG_OK;
}

static void psql_read(const char *key, char *text, size_t size) {
  psql_say(text, size, "SELECT v FROM account WHERE k='%s';", key);
}

static void psql_end(void) {
  fclose(psql_in);
  fclose(psql_out);
  waitpid(psql, NULL, 0);
}

/* ----------------------------------------------------------------- etcd -- */

/* Whoever moves the clock ends leases, as etcd does. */
static bool etcd_begin(const char *url) {
  const egi_url parts = {.rest = url, .name = "fence"};
  return etcd_world_begin(&parts) != NULL;
}

static void etcd_key(char *out, const char *before, const char *key) {
  char text[96];
  int n = snprintf(text, sizeof text, "%s%s", before, key);
  etcd_world_base64(text, (size_t)n, out);
}

/* In the caller's own transaction: own has to be the one that was granted. */
static eg_status etcd_write(const char *key, uint64_t token,
                            const char *text) {
  char body[900], own[160], data[160], value[160];
  etcd_key(own, "eg/fence/own/", key);
  etcd_key(data, "account/", key);
  etcd_key(value, "", text);
  snprintf(body, sizeof body,
           "{\"compare\":[{\"target\":\"CREATE\",\"key\":\"%s\","
           "\"create_revision\":\"%llu\"}],\"success\":[{\"request_put\":{"
           "\"key\":\"%s\",\"value\":\"%s\"}}]}",
           own, (unsigned long long)token, data, value);
  char *reply = etcd_world_ask("kv/txn", body);
  bool whole = reply != NULL && strstr(reply, "\"revision\"") != NULL;
  bool landed = whole && strstr(reply, "\"succeeded\":true") != NULL;
  free(reply);
  assert_true(whole);
  return landed ? EG_OK : EG_LOST;
}

/* The same text, when what is there is the same in base 64. */
static void etcd_read(const char *key, char *text, size_t size) {
  char body[300], data[160];
  etcd_key(data, "account/", key);
  snprintf(body, sizeof body, "{\"key\":\"%s\"}", data);
  char *reply = etcd_world_ask("kv/range", body);
  const char *at = reply != NULL ? strstr(reply, "\"value\":\"") : NULL;
  size_t n = 0;
  uint32_t bits = 0;
  static const char letters[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; at != NULL && n + 1 < size; i++) {
    const char *letter = strchr(letters, at[9 + i]);
    if (letter == NULL)
      break;
    bits = bits << 6 | (uint32_t)(letter - letters);
    if (i % 4 > 0)
      text[n++] = (char)(bits >> (6 - 2 * (i % 4)));
  }
  text[n] = '\0';
  free(reply);
}

static void etcd_end(void) { etcd_world_end(); }

/* ----------------------------------------------------------- the rounds -- */

/* A further store is one more line here. */
static const check checks[] = {
    {"redis", true, redis_begin, redis_write, redis_read, redis_end},
    {"postgresql", true, psql_begin, psql_write, psql_read, psql_end},
    {"etcd", true, etcd_begin, etcd_write, etcd_read, etcd_end},
    {"memory", false, file_begin, file_write, file_read, file_end},
};

static const check *the_check;
static const char *url = "memory";
static eg_guard *guards[2];

static uint32_t dice(uint32_t sides) {
  static uint32_t seed = 20260101;
  seed = seed * 1664525u + 1013904223u;
  return (seed >> 8) % sides;
}

static int begin(void **state) {
  (void)state;
  const char *store = getenv("EXECUTIONGUARD_STORE");
  url = store != NULL ? store : url;
  for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
    if (strncmp(url, checks[i].scheme, strlen(checks[i].scheme)) == 0)
      the_check = &checks[i];
  if (the_check == NULL)
    return -1;
  eg_set_clock(&world_clock);
  for (int i = 0; i < 2; i++) {
    eg_options options = {.store = url, .name = "fence"};
    if (eg_open(&options, &guards[i], NULL) != EG_OK)
      return -1;
  }
  return the_check->begin(url) ? 0 : -1;
}

static int end(void **state) {
  (void)state;
  the_check->end();
  eg_close(guards[0]);
  eg_close(guards[1]);
  return 0;
}

static uint64_t lock(int who, const char *key) {
  eg_policy policy = EG_POLICY_DEFAULT;
  eg_grant grant = {0};
  eg_reply reply;
  policy.lease_ms = LEASE_MS;
  eg_reply_init(&reply);
  assert_int_equal(eg_acquire(guards[who], eg_str(key), EG_WANT_LOCK, &policy,
                              0, &grant, &reply),
                   EG_OK);
  eg_reply_free(&reply);
  assert_true(eg_token(guards[who], eg_str(key)) == grant.token);
  return grant.token;
}

static void await_text(const char *key, const char *text) {
  char there[64];
  the_check->read(key, there, sizeof there);
  assert_string_equal(there, text);
}

/* The paused one tries; `written`: the next holder has. */
static void write_late(const char *key, uint64_t token, bool written,
                       const char *there) {
  eg_status status = the_check->write(key, token, "late");
  if (written || the_check->by_grants) {
    assert_int_equal(status, EG_LOST);
    await_text(key, there);
  }
}

static void late_writes_of_a_paused_holder_are_refused(void **state) {
  (void)state;
  int rounds = getenv("EXECUTIONGUARD_STORE") != NULL ? ROUNDS
                                                      : world_scaled(ROUNDS);
  for (int i = 0; i < rounds; i++) {
    char key[16], text[32], there[64];
    snprintf(key, sizeof key, "key-%u", dice(KEYS));
    int paused = (int)dice(2), next = 1 - paused;
    uint64_t old = lock(paused, key);
    if (dice(2) == 0) {
      snprintf(text, sizeof text, "early %d", i);
      assert_int_equal(the_check->write(key, old, text), EG_OK);
    }
    the_check->read(key, there, sizeof there);
    clock_advance_ms(LEASE_MS + dice(5000));
    uint64_t new = lock(next, key);
    assert_true(new > old);
    if (dice(2) == 0)
      write_late(key, old, false, there);
    for (uint32_t n = 1 + dice(2); n > 0; n--) {
      snprintf(text, sizeof text, "round %d.%u", i, n);
      assert_int_equal(the_check->write(key, new, text), EG_OK);
      write_late(key, old, true, text);
    }
    assert_int_equal(eg_release(guards[next], eg_str(key), new, NULL), EG_OK);
    assert_true(eg_token(guards[next], eg_str(key)) == 0);
    write_late(key, old, true, text);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(late_writes_of_a_paused_holder_are_refused),
  };
  alarm(280);
  return cmocka_run_group_tests_name("fence", tests, begin, end);
}
