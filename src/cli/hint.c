/* SPDX-License-Identifier: MIT
** Commands that a message proposes: as they can be pasted into a shell.
*/
#include "cli/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef struct line {
  char *text;
  size_t size, at;
} line;

static void add(line *l, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void add(line *l, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int n = vsnprintf(l->text + l->at, l->size - l->at, format, args);
  va_end(args);
  l->at += n > 0 ? (size_t)n : 0;
  if (l->at >= l->size) /* cut */
    l->at = l->size - 1;
}

/* Some letters and signs need no quotes; what cannot be printed is written in
** the way of bash, zsh and ksh: $'\x07'. */
static void add_word(line *l, const char *word) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
                              "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                              "0123456789_./:=@%+,-";
  char shown[4 * EG_KEY_MAX + 8];
  eg_printable(eg_str(word), shown, sizeof shown);
  if (*word != '\0' && word[strspn(word, plain)] == '\0') {
    add(l, "%s", word);
  } else if (strcmp(shown, word) == 0) {
    add(l, "'");
    for (const char *at = word; *at != '\0'; at++)
      add(l, *at == '\'' ? "'\\''" : "%c", *at);
    add(l, "'");
  } else {
    add(l, "$'");
    for (const unsigned char *at = (const void *)word; *at != '\0'; at++)
      add(l,
          *at < 0x20 || *at >= 0x7f    ? "\\x%02x"
          : *at == '\'' || *at == '\\' ? "\\%c"
                                       : "%c",
          *at);
    add(l, "'");
  }
}

char *ec_hint(const ec_options *options, const char *command, char *text,
              size_t size) {
  line l = {text, size, 0};
  char store[4200];
  const char *key = options->operands[0];
  add(&l, "eguard %s", command);
  const char *set = getenv("EXECUTIONGUARD_STORE");
  const char *url = options->store != NULL ? options->store : set;
  if (url != NULL && *url != '\0' && /* who reads it may have another */
      ec_public_url(url, store, sizeof store) != NULL) {
    add(&l, " --store=");
    add_word(&l, store);
  }
  if (options->name != NULL) {
    add(&l, " --name=");
    add_word(&l, options->name);
  }
  add(&l, key[0] == '-' ? " -- " : " ");
  add_word(&l, key);
  return text;
}
