/* SPDX-License-Identifier: MIT
** Status codes in words; the list itself stands in executionguard.h.
*/
#include "executionguard.h"

typedef struct status_row {
  const char *word, *text;
  int exit_status;
} status_row;

static const status_row rows[] = {
#define XX(name, number, word, exit_status, text)                             \
  [number] = {word, text, exit_status},
    EG_STATUS_MAP(XX)
#undef XX
};

static const char *const run_words[EG_RUN_COUNT] = {
#define XX(name, number, word) [number] = word,
    EG_RUN_MAP(XX)
#undef XX
};

static const status_row *row_of(eg_status status) {
  static const status_row unknown = {"unknown", "is no status code", 70};
  size_t i = (size_t)status;
  return i < sizeof rows / sizeof *rows ? &rows[i] : &unknown;
}

const char *eg_status_word(eg_status status) { return row_of(status)->word; }

const char *eg_status_text(eg_status status) { return row_of(status)->text; }

int eg_status_exit(eg_status status) { return row_of(status)->exit_status; }

const char *eg_run_word(eg_run run) {
  return (size_t)run < EG_RUN_COUNT ? run_words[run] : "Unknown";
}
