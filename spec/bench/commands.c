/* SPDX-License-Identifier: MIT
** Times commands from their start until they are waited for, side by side:
**
**   commands ROUNDS TURNS NAME WORD... [: NAME WORD...]...
**
** prints a line "NAME nanoseconds" for each command and round; a figure is the
** median of the round's turns, in which the commands take turns, forward and
** backward.  Their output goes nowhere.  A command that fails ends it all.
*/
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { COMMANDS = 16, TURNS = 1000 };

typedef struct command {
  const char *name;
  char **words;
  int64_t ns[TURNS];
} command;

static command commands[COMMANDS];
static int count;
static posix_spawn_file_actions_t silent;

static int64_t now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int64_t run(const command *c) {
  pid_t pid;
  int status = 1;
  int64_t start_ns = now_ns();
  if (posix_spawnp(&pid, c->words[0], &silent, NULL, c->words, environ) != 0 ||
      waitpid(pid, &status, 0) != pid || status != 0) {
    fprintf(stderr, "commands: %s failed\n", c->name);
    exit(1);
  }
  return now_ns() - start_ns;
}

static int by_size(const void *a, const void *b) {
  int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
  return left < right ? -1 : left > right;
}

static void take_round(int round, int turns) {
  for (int t = 0; t < turns; t++)
    for (int i = 0; i < count; i++) {
      command *c = &commands[(round + t) % 2 == 0 ? i : count - 1 - i];
      c->ns[t] = run(c);
    }
  for (int i = 0; i < count; i++) {
    qsort(commands[i].ns, (size_t)turns, sizeof(int64_t), by_size);
    printf("%s %lld\n", commands[i].name,
           (long long)commands[i].ns[turns / 2]);
  }
}

/* The words of each command end where the next begins. */
static void find_commands(char **words) {
  while (*words != NULL && count < COMMANDS) {
    command *c = &commands[count++];
    c->name = *words++;
    c->words = words;
    while (*words != NULL && strcmp(*words, ":") != 0)
      words++;
    if (*words != NULL)
      *words++ = NULL;
  }
}

int main(int argc, char **argv) {
  if (argc < 5)
    return 2;
  int rounds = atoi(argv[1]), turns = atoi(argv[2]);
  if (turns < 1 || turns > TURNS)
    return 2;
  find_commands(argv + 3);
  posix_spawn_file_actions_init(&silent);
  posix_spawn_file_actions_addopen(&silent, STDOUT_FILENO, "/dev/null",
                                   O_WRONLY, 0);
  for (int i = 0; i < count;
       i++) /* not counted: makes what there is to make */
    run(&commands[i]);
  for (int r = 0; r < rounds; r++)
    take_round(r, turns);
  return 0;
}
