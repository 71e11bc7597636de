/* SPDX-License-Identifier: MIT
** Tables: columns with headings on a terminal, bare lines with tabs elsewhere.
*/
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

/* A longer text sticks out of its column, and shifts its own line alone. */
enum { WIDEST = 40 };

typedef struct cell {
  char *text;
  const char *colour;
} cell;

struct ec_table {
  const char *const *headings;
  size_t columns, n, cap;
  cell *cells;
  size_t widths[16];
};

ec_table *ec_table_new(const char *const *headings) {
  ec_table *t = calloc(1, sizeof *t);
  if (t == NULL)
    return NULL;
  t->headings = headings;
  while (headings[t->columns] != NULL)
    t->columns++;
  return t;
}

/* Places on a terminal: characters, which is right but for the wide ones. */
static size_t width(const char *text) {
  size_t n = 0;
  for (; *text != '\0'; text++)
    n += (*text & 0xc0) != 0x80;
  return n;
}

void ec_table_cell(ec_table *t, const char *text, const char *colour) {
  if (t == NULL)
    return;
  if (t->n == t->cap) {
    size_t cap = t->cap > 0 ? 2 * t->cap : 256;
    cell *cells = realloc(t->cells, cap * sizeof *cells);
    if (cells == NULL) {
      ec_error("not enough memory for a table");
      exit(EC_FAILURE);
    }
    t->cells = cells;
    t->cap = cap;
  }
  size_t column = t->n % t->columns;
  t->cells[t->n++] = (cell){strdup(text), colour};
  if (width(text) > t->widths[column] && width(text) <= WIDEST)
    t->widths[column] = width(text);
}

static int by_first(const void *a, const void *b) {
  const cell *left = a, *right = b;
  return strcmp(left->text != NULL ? left->text : "",
                right->text != NULL ? right->text : "");
}

static void print_one(const ec_table *t, size_t column, const char *text,
                      const char *colour, bool columns) {
  bool last = column + 1 == t->columns;
  fputs(colour, stdout);
  fputs(text, stdout);
  if (*colour != '\0')
    fputs(ec_colour_end(), stdout);
  int short_by = (int)t->widths[column] - (int)width(text);
  if (!last && columns)
    printf("%*s", (short_by > 0 ? short_by : 0) + 2, "");
  else
    putchar(last ? '\n' : '\t');
}

void ec_table_print(ec_table *t, bool sorted) {
  if (t == NULL)
    return;
  bool columns = ec_terminal();
  size_t rows = t->n / t->columns;
  if (sorted && rows > 0)
    qsort(t->cells, rows, t->columns * sizeof *t->cells, by_first);
  for (size_t c = 0; columns && rows > 0 && c < t->columns; c++) {
    if (width(t->headings[c]) > t->widths[c])
      t->widths[c] = width(t->headings[c]);
    print_one(t, c, t->headings[c], "", columns);
  }
  for (size_t i = 0; i < rows * t->columns; i++)
    print_one(t, i % t->columns,
              t->cells[i].text != NULL ? t->cells[i].text : "",
              t->cells[i].colour, columns);
  for (size_t i = 0; i < t->n; i++)
    free(t->cells[i].text);
  free(t->cells);
  free(t);
}
