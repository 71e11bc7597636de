/* SPDX-License-Identifier: MIT
** executionguard_view.h - what guards do, as text to look at.
**
** A summary of a guard's records, and what it is drawn with: text cut to its
** columns, bars, sparklines.  What executionguard.h says of guards and errors
** holds here.  Nothing is printed: lines go to whoever asks for them.
*/
#ifndef EXECUTIONGUARD_VIEW_H
#define EXECUTIONGUARD_VIEW_H

#include "executionguard.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------- drawing -- */

/* What a text is for. */
typedef struct eg_view {
  int columns; /* no line is wider */
  bool ascii;  /* nothing but ASCII */
  bool colours;
} eg_view;

#define EG_VIEW_COLUMNS 80 /* where nothing says how wide it is */
#define EG_PEN_BYTES 4096

/* A line that is being drawn.  What its columns have no room for is left out.
** text ends with a '\0' at any time. */
typedef struct eg_pen {
  const eg_view *view;
  int at; /* columns so far */
  size_t len;
  char text[EG_PEN_BYTES];
} eg_pen;

typedef enum eg_colour {
  EG_COLOUR_NONE,
  EG_COLOUR_RED,
  EG_COLOUR_GREEN,
  EG_COLOUR_YELLOW,
  EG_COLOUR_CYAN,
  EG_COLOUR_DIM,
  EG_COLOUR_REVERSE
} eg_colour;

/* eg_pen_begin: an empty line; view must live as long as the pen. */
EG_API void eg_pen_begin(eg_pen *pen, const eg_view *view);

/* eg_pen_bytes: a key, an owner or an error in at most so many columns, cut
** with an ellipsis.  No byte of it is an order to a terminal: what is no
** printable text is shown as \xNN, in ASCII all other characters as ?.
** eg_pen_text: the same for a C string.  eg_pen_right: a short C string that
** ends in that column of its own width.  eg_pen_to: blanks up to a column of
** the line, none where it is passed. */
EG_API void eg_pen_bytes(eg_pen *pen, eg_bytes bytes, int columns);
EG_API void eg_pen_text(eg_pen *pen, const char *text);
EG_API void eg_pen_right(eg_pen *pen, const char *text, int columns);
EG_API void eg_pen_to(eg_pen *pen, int column);

/* eg_pen_colour: of what comes; EG_COLOUR_NONE ends it.  Nothing where the
** view has no colours. */
EG_API void eg_pen_colour(eg_pen *pen, eg_colour colour);

/* eg_pen_bar: so many columns, of which `share` (0 to 1) is full; ground: the
** rest is drawn too. */
EG_API void eg_pen_bar(eg_pen *pen, double share, int columns, bool ground);

/* A run that ended, as a sparkline shows it. */
typedef struct eg_beat {
  eg_status status; /* OK, FAILED or TIMEOUT */
  int64_t duration_us;
} eg_beat;

/* eg_pen_spark: a column for each, as high as it took long beside the longest
** of them; one that failed is a cross, one that timed out an exclamation
** mark. */
EG_API void eg_pen_spark(eg_pen *pen, const eg_beat *beats, size_t n);

/* eg_columns: how many columns the bytes take in that view. */
EG_API int eg_columns(const eg_view *view, eg_bytes bytes);

/* eg_printable: the same without bound of columns, cut where size is too
** small, in UTF-8.  Returns text. */
EG_API char *eg_printable(eg_bytes bytes, char *text, size_t size);

/* eg_format_duration: "62us", "250ms", "4.2s", "1h 30m": two units at most.
** Returns text. */
#define EG_DURATION_TEXT 48
EG_API char *eg_format_duration(int64_t us, char text[EG_DURATION_TEXT]);

/* eg_run_of: the status that a run with this end (OK, FAILED or TIMEOUT, of an
** eg_past) has.  eg_colour_of: the colour of a status. */
EG_API eg_run eg_run_of(eg_status status);
EG_API eg_colour eg_colour_of(eg_run run);

/* ------------------------------------------------------------- summary -- */

#define EG_SUMMARY_MAX 1000 /* keys of a kind */
#define EG_SUMMARY_LAST 20  /* runs of a sparkline */

/* What there is to say about one key. */
typedef struct eg_summary_key {
  eg_bytes key, error; /* the error is cut */
  eg_run status;
  bool locked;
  uint32_t count, failed, timed_out, lost;
  uint64_t blocked;
  eg_times times;
  uint32_t last_n;
  eg_beat last[EG_SUMMARY_LAST]; /* oldest first */
} eg_summary_key;

typedef struct eg_summary {
  eg_census census;
  bool history; /* are ended runs remembered? */
  /* largest first; keys with nothing of it are not among them */
  eg_summary_key *slowest; /* by the 95th percentile of their runs */
  eg_summary_key *blocked; /* by how many calls were refused */
  eg_summary_key *failing; /* by how many runs failed, timed out, were lost */
  size_t n_slowest, n_blocked, n_failing;
  eg_memory memory; /* the library's own */
} eg_summary;

/* eg_summary_take: counts all records and finds the `top` of each kind, in one
** scan and a look at the history of those.  INVALID (more than
** EG_SUMMARY_MAX), NOMEM, or a failure of the store.  Free it with
** eg_summary_free whatever was returned. */
EG_API eg_status eg_summary_take(eg_guard *guard, size_t top,
                                 eg_summary *summary, eg_error *error);
EG_API void eg_summary_free(eg_summary *summary);

/* A line of the box: a label and its number, or a heading. */
typedef struct eg_box_row {
  const char *label; /* ASCII; NULL: a rule */
  uint64_t n;
  bool heading;
} eg_box_row;

#define EG_BOX_MORE 32 /* rows that a caller may add */

/* eg_summary_draw: the summary as lines, in a box of its own first: how many
** records there are of each status, then what the process has done (`process`,
** of eg_stats_read) or, if that is NULL, what came of all runs in the store,
** then the rows that the caller adds.  Each line goes to put, without its end;
** false from it ends it. */
typedef bool (*eg_put_line)(void *ctx, const char *line);
EG_API void eg_summary_draw(const eg_summary *summary, const eg_view *view,
                            const eg_stats *process, const eg_box_row *more,
                            size_t n, eg_put_line put, void *ctx);

/* -------------------------------------------------------------- traces -- */

/*
** A trace is what happened, in the JSON of Chrome's trace events, which
** Perfetto (ui.perfetto.dev) and chrome://tracing open: a row for each thread
** or process, in it runs, locks and waits from their start to their end, and
** the moments of time-outs, retries, hand-overs and resets.  Things of one row
** that overlap, as coroutines do that run in turn, stand in rows below it.
**
** eg_trace_start: from now on what the guards of this process do is noted, the
** latest `events` of it (0: 65536; each takes 128 bytes).  One trace at a time
** in a process.  INVALID (one is being recorded), NOMEM.  While none is, all
** this costs a look at one variable.
** eg_trace_stop: ends it, and writes it, in pieces of at most 4 KiB; write
** NULL: throws it away.  *traced (or NULL): what was drawn, and how many notes
** had to make room for later ones.  OK; CANCELED (write returned false);
** INVALID (none is being recorded); NOMEM.  A forked child records nothing.
** eg_trace_retry: notes that another attempt begins of a run that is going on;
** the library does not try again by itself.  guard NULL: of work that is under
** no guard; key names it.
** eg_write_past: a trace of what a store remembers: the latest n ended runs of
** a key (empty: of all) that ended at since_us (epoch) or later, and what is
** held now; a row for each owner.  OK, CANCELED, or a failure; where no
** history is kept there is only what is held.
*/
typedef struct eg_traced {
  uint64_t events, dropped;
} eg_traced;

EG_API eg_status eg_trace_start(size_t events, eg_error *error);
EG_API eg_status eg_trace_stop(eg_write write, void *ctx, eg_traced *traced,
                               eg_error *error);
EG_API void eg_trace_retry(eg_guard *guard, eg_bytes key, uint64_t attempt);
EG_API eg_status eg_write_past(eg_guard *guard, eg_bytes key, size_t n,
                               int64_t since_us, eg_write write, void *ctx,
                               eg_error *error);

#ifdef __cplusplus
}
#endif
#endif
