/* SPDX-License-Identifier: MIT
** From the words of the command line to ec_options, by the one table.
*/
#include "cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef struct parser {
  const ec_command *command;
  ec_options *options;
  char *message;
  size_t size;
} parser;

static bool wrong(const parser *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool wrong(const parser *p, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(p->message, p->size, format, args);
  va_end(args);
  return false;
}

/* ------------------------------------------------------ nearest words -- */

enum { WORD_MAX = 32 };

/* How many letters have to be changed, added or left out (Levenshtein). */
static size_t distance(const char *a, const char *b) {
  size_t n = strlen(a), m = strlen(b), row[WORD_MAX + 1];
  if (n > WORD_MAX || m > WORD_MAX)
    return WORD_MAX;
  for (size_t j = 0; j <= m; j++)
    row[j] = j;
  for (size_t i = 1; i <= n; i++) {
    size_t before = row[0];
    row[0] = i;
    for (size_t j = 1; j <= m; j++) {
      size_t best = before + (a[i - 1] != b[j - 1]);
      before = row[j];
      if (row[j] + 1 < best)
        best = row[j] + 1;
      if (row[j - 1] + 1 < best)
        best = row[j - 1] + 1;
      row[j] = best;
    }
  }
  return row[m];
}

const char *ec_nearest(const char *word, const char *const *known, size_t n) {
  const char *nearest = NULL;
  size_t least = 3;
  for (size_t i = 0; i < n; i++) {
    size_t d = distance(word, known[i]);
    if (d < least) {
      least = d;
      nearest = known[i];
    }
  }
  return nearest;
}

static bool unknown_option(const parser *p, const char *word) {
  const char *known[64];
  size_t n = 0;
  char bare[WORD_MAX];
  snprintf(bare, sizeof bare, "%.*s", (int)strcspn(word + 2, "="), word + 2);
  for (size_t i = 0; i < ec_option_count; i++)
    if ((ec_option_table[i].of & p->command->bit) != 0 && n < 64)
      known[n++] = ec_option_table[i].name;
  const char *nearest = word[1] == '-' ? ec_nearest(bare, known, n) : NULL;
  if (nearest != NULL)
    return wrong(p, "%s has no option %s; did you mean --%s?",
                 p->command->name, word, nearest);
  return wrong(p, "%s has no option %s; see eguard %s --help",
               p->command->name, word, p->command->name);
}

/* ------------------------------------------------------------ values -- */

static bool parse_count(const char *text, int64_t *count) {
  char *end;
  errno = 0;
  long long n = strtoll(text, &end, 10);
  *count = n;
  return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0;
}

/* "4096", "64K", "2M" */
static bool parse_size(const char *text, int64_t *bytes) {
  char *end;
  errno = 0;
  long long n = strtoll(text, &end, 10);
  if (*text < '0' || *text > '9' || errno != 0)
    return false;
  int shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
  if (end[shift > 0] != '\0' || n > INT64_C(1) << 31)
    return false;
  *bytes = (int64_t)n << shift;
  return true;
}

static bool set_value(const parser *p, const ec_option *o, const char *text) {
  char *base = (char *)p->options;
  int64_t *number = (int64_t *)(void *)(base + o->at);
  bool good = true;
  const char *what = "";
  switch (o->kind) {
  case EC_FLAG:
    *(bool *)(base + o->at) = true;
    break;
  case EC_TEXT:
    *(const char **)(void *)(base + o->at) = text;
    break;
  case EC_DURATION:
  case EC_MAYBE_DURATION:
    what = "a duration like 30s, 5m or 1h30m";
    if (text == NULL)
      *number = EG_FOREVER;
    else
      good = ec_parse_duration(text, number);
    break;
  case EC_COUNT:
    what = "a whole number, 0 or more";
    good = parse_count(text, number);
    break;
  case EC_SIZE:
    what = "a number of bytes like 65536, 64K or 2M";
    good = parse_size(text, number);
    break;
  case EC_EXIT_STATUS:
    what = "an exit status, 0 to 255";
    good = parse_count(text, number) && *number <= 255;
    break;
  }
  if (o->also != EC_NOWHERE)
    *(bool *)(base + o->also) = true;
  return good || wrong(p, "--%s=%s: that is not %s", o->name, text, what);
}

/* ------------------------------------------------------------- words -- */

static const ec_option *find(const parser *p, const char *name, size_t n,
                             char letter) {
  for (size_t i = 0; i < ec_option_count; i++) {
    const ec_option *o = &ec_option_table[i];
    if ((o->of & p->command->bit) == 0)
      continue;
    if (letter != '\0'
            ? o->letter == letter
            : strlen(o->name) == n && strncmp(o->name, name, n) == 0)
      return o;
  }
  return NULL;
}

/* An option and its value, which may be the next word.  Returns how many words
** that were, 0 when it is wrong. */
static int take_long(const parser *p, char **words, int left) {
  const char *word = words[0];
  size_t n = strcspn(word + 2, "=");
  const char *value = word[2 + n] == '=' ? word + 2 + n + 1 : NULL;
  const ec_option *o = find(p, word + 2, n, '\0');
  if (o == NULL)
    return unknown_option(p, word), 0;
  if (o->kind == EC_FLAG && value != NULL)
    return wrong(p, "--%s takes no value", o->name), 0;
  if (o->kind == EC_FLAG || o->kind == EC_MAYBE_DURATION || value != NULL)
    return set_value(p, o, value) ? 1 : 0;
  if (left < 2)
    return wrong(p, "--%s needs a value: --%s=%s", o->name, o->name, o->value),
           0;
  return set_value(p, o, words[1]) ? 2 : 0;
}

/* -q, -qv, -n 10, -n10 */
static int take_short(const parser *p, char **words, int left) {
  for (const char *at = words[0] + 1; *at != '\0'; at++) {
    const ec_option *o = find(p, NULL, 0, *at);
    if (o == NULL)
      return unknown_option(p, words[0]), 0;
    if (o->kind == EC_FLAG) {
      set_value(p, o, NULL);
      continue;
    }
    if (at[1] != '\0')
      return set_value(p, o, at + 1) ? 1 : 0;
    if (left < 2)
      return wrong(p, "-%c needs a value", *at), 0;
    return set_value(p, o, words[1]) ? 2 : 0;
  }
  return 1;
}

static bool parse_words(const parser *p, int argc, char **argv) {
  ec_options *o = p->options;
  bool only_operands = false;
  for (int i = 0; i < argc;) {
    const char *word = argv[i];
    int used = 1;
    if (only_operands || word[0] != '-' || word[1] == '\0')
      o->operands[o->operand_count++] = argv[i];
    else if (strcmp(word, "--") == 0)
      only_operands = true;
    else if (word[1] == '-')
      used = take_long(p, argv + i, argc - i);
    else
      used = take_short(p, argv + i, argc - i);
    if (used == 0)
      return false;
    i += used;
  }
  return true;
}

/* run: the word right before the first `--` is the key, whatever it looks
** like; options stand before it, the command behind. */
static bool parse_run(const parser *p, int argc, char **argv) {
  int at = 0;
  while (at < argc && strcmp(argv[at], "--") != 0)
    at++;
  bool dashed = at < argc;
  if (!parse_words(p, dashed && at > 0 ? at - 1 : at, argv))
    return false;
  if (p->options->help)
    return true;
  if (!dashed || at + 1 >= argc)
    return wrong(p, "%s: eguard run [options] KEY -- COMMAND...",
                 dashed ? "there is no COMMAND behind the --"
                        : "there is no -- before the COMMAND");
  if (at == 0)
    return wrong(p, "there is no KEY before the --: "
                    "eguard run [options] KEY -- COMMAND...");
  if (p->options->operand_count > 0 && argv[at - 1][0] == '-')
    return wrong(p,
                 "the word right before the -- is the KEY, and that is %s: "
                 "options stand before it, eguard run %s %s -- ...",
                 argv[at - 1], argv[at - 1], p->options->operands[0]);
  if (p->options->operand_count > 0)
    return wrong(p, "only one KEY may stand before the --, not also \"%s\"",
                 p->options->operands[0]);
  p->options->operands[p->options->operand_count++] = argv[at - 1];
  p->options->command = argv + at + 1;
  return true;
}

static bool check_operands(const parser *p) {
  const ec_command *c = p->command;
  int n = p->options->operand_count;
  if (n >= c->least && n <= c->most)
    return true;
  return wrong(p, "%s: eguard %s [options]%s%s",
               n < c->least ? "something is missing" : "that is too much",
               c->name, *c->operands != '\0' ? " " : "", c->operands);
}

bool ec_parse(const ec_command *command, int argc, char **argv,
              ec_options *options, char *message, size_t size) {
  parser p = {command, options, message, size};
  memset(options, 0, sizeof *options);
  options->wait_ms = options->timeout_ms = options->kill_after_ms = EC_UNSET;
  options->cooldown_ms = options->cache_ms = EC_UNSET;
  options->lock_at_least_ms = options->delay_ms = EC_UNSET;
  options->retry = options->limit = options->token = EC_UNSET;
  options->cache_limit = options->conflict_exit = EC_UNSET;
  options->top = options->interval_ms = EC_UNSET;
  /* operands go where the words were: there are never more of them */
  options->operands = argv;
  if (command->run == ec_run)
    return parse_run(&p, argc, argv);
  if (!parse_words(&p, argc, argv))
    return false;
  return options->help || check_operands(&p);
}
