/* SPDX-License-Identifier: MIT
** The redis store beside the same round trips by hand, on one server:
**
**   redis SOCKET ROUNDS CALLS HELD
*/
#include "servers.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char release_text[] =
    "if redis.call('GET',KEYS[1])==ARGV[1] then "
    "return redis.call('DEL',KEYS[1]) else return 0 end";

static const char *path;
static redisContext *hand;
static char sha[41];

static redisReply *ask(redisContext *c, redisReply *reply) {
  if (reply == NULL || reply->type == REDIS_REPLY_ERROR)
    die("redis", reply != NULL ? reply->str : c->errstr);
  return reply;
}

static void lock(int calls) {
  for (int i = 0; i < calls; i++) {
    freeReplyObject(ask(hand, redisCommand(hand, "SET raw %s NX PX 15000",
                                           "a-random-token-of-22-c")));
    freeReplyObject(ask(hand, redisCommand(hand, "EVALSHA %s 1 raw %s", sha,
                                           "a-random-token-of-22-c")));
  }
}

static void get(int calls) {
  for (int i = 0; i < calls; i++)
    freeReplyObject(ask(hand, redisCommand(hand, "GET raw:cached")));
}

/* A list, on which one waits for an element. */
static void pass(void) {
  freeReplyObject(ask(hand, redisCommand(hand, "LPUSH relay x")));
}

static void *come(void) { return redisConnectUnix(path); }

static void wait_for_it(void *who) {
  freeReplyObject(ask(who, redisCommand(who, "BLPOP relay 20")));
}

/* redis-py's lock, in Python; it prints its own figures.  Who waits looks ten
** times a second. */
static const char redis_py[] =
    "import redis, sys, threading, time\n"
    "path, n = sys.argv[1], int(sys.argv[2])\n"
    "r, s = (redis.Redis(unix_socket_path=path) for i in range(2))\n"
    "begin = time.perf_counter_ns()\n"
    "for i in range(n):\n"
    "    lock = r.lock(\"py\", timeout=15)\n"
    "    lock.acquire(blocking=False)\n"
    "    lock.release()\n"
    "print(\"redis_py_lock\", (time.perf_counter_ns() - begin) // n)\n"
    "total, turns = 0, 5\n"
    "for i in range(turns):\n"
    "    held, got = r.lock(\"py\", timeout=15), []\n"
    "    held.acquire(blocking=False)\n"
    "    def wait():\n"
    "        other = s.lock(\"py\", timeout=15)\n"
    "        other.acquire()\n"
    "        got.append(time.perf_counter_ns())\n"
    "        other.release()\n"
    "    thread = threading.Thread(target=wait)\n"
    "    thread.start()\n"
    "    time.sleep(0.003 + 0.02 * i)\n"
    "    begin = time.perf_counter_ns()\n"
    "    held.release()\n"
    "    thread.join()\n"
    "    total += got[0] - begin\n"
    "print(\"redis_py_hand_over\", total // turns)\n";

/* Symfony's lock on the same server, in PHP, with php-redis; where that is not
** there, it prints nothing. */
static const char symfony[] =
    "$symfony = \"/usr/share/php/Symfony/Component/Lock/autoload.php\";"
    "if (!extension_loaded(\"redis\") || !is_file($symfony)) exit(0);"
    "require $symfony;"
    "$redis = new Redis();"
    "$redis->connect($argv[1]);"
    "$factory = new Symfony\\Component\\Lock\\LockFactory("
    "new Symfony\\Component\\Lock\\Store\\RedisStore($redis));"
    "$n = (int) $argv[2];"
    "$begin = hrtime(true);"
    "for ($i = 0; $i < $n; $i++) {"
    "  $lock = $factory->createLock(\"symfony\", 15);"
    "  if (!$lock->acquire()) exit(1);"
    "  $lock->release();"
    "}"
    "echo \"symfony_lock \", intdiv(hrtime(true) - $begin, $n), \"\\n\";";

static void run(const char *program, const char *text, int turns) {
  char command[4096];
  fflush(stdout);
  snprintf(command, sizeof command, "%s '%s' %s %d", program, text, path,
           turns);
  if (system(command) != 0)
    die("redis", program);
}

static void in_others(int calls) {
  run("exec /usr/bin/python3 -c", redis_py, calls * 20);
  run("! command -v php >/dev/null || exec php -r", symfony, calls * 20);
}

int main(int argc, char **argv) {
  static const peer raw = {.name = "redis",
                           .lock = lock,
                           .get = get,
                           .command = in_others,
                           .pass = pass,
                           .come = come,
                           .wait = wait_for_it};
  char url[300];
  if (argc < 5)
    die("redis", "SOCKET ROUNDS CALLS HELD");
  path = argv[1];
  snprintf(url, sizeof url, "redis+unix://%s", path);
  hand = redisConnectUnix(path);
  redisReply *loaded = ask(hand,
                           redisCommand(hand, "SCRIPT LOAD %s", release_text));
  memcpy(sha, loaded->str, sizeof sha);
  freeReplyObject(loaded);
  freeReplyObject(ask(hand, redisCommand(hand, "SET raw:cached %s",
                                         "a value of some hundred bytes, as a "
                                         "record with its head has them, or "
                                         "so, more or less")));
  measure_store(url, &raw, atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
  redisFree(hand);
  return 0;
}
