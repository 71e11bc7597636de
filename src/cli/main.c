/* SPDX-License-Identifier: MIT
** eguard: run this once, from a shell.
*/
#include "cli/cli.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static int unknown_command(const char *word) {
  const char *known[32];
  size_t n = 0;
  for (size_t i = 0; i < ec_command_count && n < 32; i++)
    known[n++] = ec_commands[i].name;
  const char *nearest = ec_nearest(word, known, n);
  if (nearest != NULL)
    ec_error("there is no command \"%s\"; did you mean %s?", word, nearest);
  else
    ec_error("there is no command \"%s\"; see eguard --help", word);
  return EC_USAGE;
}

static int dispatch(const ec_command *command, int argc, char **argv) {
  ec_options options;
  char message[400];
  if (!ec_parse(command, argc, argv, &options, message, sizeof message)) {
    ec_error("%s", message);
    return EC_USAGE;
  }
  ec_say_setup(&options);
  if (options.help) {
    ec_print_help(stdout, command);
    return 0;
  }
  return command->run(&options);
}

/* What was printed counts only if it arrived. */
static int flushed(int status) {
  if (fflush(stdout) == 0 && !ferror(stdout))
    return status;
  ec_error("cannot write to standard output");
  return status != 0 ? status : EC_FAILURE;
}

/* What the store opens shall not stand where messages go.  To write there is
** an error as it was, and the command finds them as they were. */
static void keep_standard_streams(void) {
  for (int fd = 0; fd <= 2; fd++)
    if (fcntl(fd, F_GETFD) < 0 &&
        open("/dev/null", (fd == 0 ? O_WRONLY : O_RDONLY) | O_CLOEXEC) != fd)
      exit(EC_FAILURE);
}

/* Parsing moves the words about. */
static void keep_words(int argc, char **argv) {
  ec_words = calloc((size_t)argc + 1, sizeof *ec_words);
  if (ec_words == NULL)
    exit(EC_FAILURE);
  memcpy(ec_words, argv, (size_t)argc * sizeof *argv);
}

int main(int argc, char **argv) {
  keep_standard_streams();
  ec_ignore_file_limit();
  ec_stop_between_steps();
  keep_words(argc, argv);
  if (argc < 2) {
    ec_print_help(stderr, NULL);
    return EC_USAGE;
  }
  const char *word = argv[1];
  if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
    word = "help";
  else if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0)
    word = "version";
  const ec_command *command = ec_find_command(word);
  if (command == NULL)
    return unknown_command(word);
  return flushed(dispatch(command, argc - 2, argv + 2));
}
