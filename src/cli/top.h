/* SPDX-License-Identifier: MIT
** What the files of eguard top share: the screen, the rows, what is drawn.
*/
#ifndef EG_CLI_TOP_H
#define EG_CLI_TOP_H

#include "cli/cli.h"

/* ---- screen.c: the whole terminal ---- */

enum {
  EC_KEY_UP = 256,
  EC_KEY_DOWN,
  EC_KEY_PAGE_UP,
  EC_KEY_PAGE_DOWN,
  EC_KEY_HOME,
  EC_KEY_END,
  EC_KEY_ESCAPE,
  EC_KEY_OTHER
};

/* False: standard input and output are no terminal that can do it. */
bool ec_screen_open(void);
void ec_screen_close(void);
/* Was there another picture on it since it was asked last, or another size? */
bool ec_screen_changed(void);
void ec_screen_size(int *columns, int *rows);
/* A byte, an EC_KEY_; 0: none came, look again; -1: nobody types any more. */
int ec_screen_key(int64_t wait_us);

/* ---- top_rows.c: what is known of each key ---- */

typedef struct ec_row {
  unsigned char key[EG_KEY_MAX];
  size_t key_len;
  eg_run status;
  bool locked;
  uint64_t token;
  uint32_t count, failed; /* failed, timed out or lost */
  int64_t for_us;         /* held or, if it is not, how long it took */
  int64_t usual_us;       /* half of its runs took no longer; 0: not known */
  double progress;        /* as its holder says; below 0: it does not */
  int waiters;            /* -1: not known */
  eg_owner owner;
  uint32_t last_n;
  eg_beat last[EG_SUMMARY_LAST]; /* oldest first */
} ec_row;

typedef enum ec_sort {
  EC_BY_TIME,
  EC_BY_KEY,
  EC_BY_RUNS,
  EC_BY_FAILED,
  EC_SORTS
} ec_sort;

typedef struct ec_rows {
  const char *dir;  /* of a store of files; else empty */
  const char *name; /* of the namespace, or NULL */
  ec_row *list;
  size_t n, cap;
  bool all;           /* those that nobody holds, too */
  const char *filter; /* what their keys contain */
  ec_sort sort;
  uint64_t records, held, failing; /* of all, whatever the filter */
} ec_rows;

/* Reads them anew.  What it knew of the history of a key it keeps until the
** key has run again. */
eg_status ec_rows_read(ec_rows *rows, eg_guard *guard, eg_error *error);
void ec_rows_sort(ec_rows *rows);
void ec_rows_free(ec_rows *rows);
const char *ec_sort_word(ec_sort sort);
eg_bytes ec_row_key(const ec_row *row);

/* ---- top_draw.c ---- */

typedef struct ec_frame {
  const ec_rows *rows;
  const eg_view *view;
  int lines;         /* of the screen; 0: as many as there are */
  size_t from;       /* the first row that is shown */
  size_t selected;   /* its number */
  const char *store; /* its URL as others may see it */
  const char *note;  /* the last line, or NULL: the keys */
  bool bad;          /* it is an error */
} ec_frame;

/* How many rows fit. */
size_t ec_frame_rows(const ec_frame *frame);
/* Writes the lines; on a screen, in place. */
void ec_frame_draw(const ec_frame *frame, FILE *to);

#endif
