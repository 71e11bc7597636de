/* SPDX-License-Identifier: MIT
** What the files of eguard, the command, share.
*/
#ifndef EG_CLI_CLI_H
#define EG_CLI_CLI_H

#include <stdio.h>
#include <sys/types.h>

#include "executionguard_view.h"

/* Exit statuses beside those of eg_status_exit and of the child. */
enum {
  EC_USAGE = 64,
  EC_CONFLICT = 75,
  EC_TIMEDOUT = 124,
  EC_FAILURE = 125,
  EC_CANNOT_RUN = 126,
  EC_NOT_FOUND = 127,
  EC_SIGNALED = 128 /* and the signal's number */
};

/* What the command line says.  Durations are milliseconds; EC_UNSET where an
** option was not given. */
#define EC_UNSET INT64_C(-1)

typedef struct ec_options {
  const char *store, *name;
  const char *owner, *trace, *since;
  const char *listen, *host, *token_file;
  int64_t wait_ms, timeout_ms, kill_after_ms, cooldown_ms, cache_ms;
  int64_t lock_at_least_ms, delay_ms;
  int64_t retry, limit, token, cache_limit, conflict_exit, top, interval_ms;
  bool once, rerun, cache, backoff, no_record, record_args;
  bool force, kill, rebuild, openmetrics, all, new_token;
  bool json, ascii, quiet, verbose, help;
  /* what is no option */
  int operand_count;
  char **operands;
  char **command; /* run: what follows `--`, NULL at the end */
} ec_options;

/* ---- commands.c: the one table; it drives dispatch, help, completion ---- */

typedef enum ec_kind {
  EC_FLAG,
  EC_TEXT,
  EC_DURATION,
  EC_MAYBE_DURATION, /* --wait, --wait=30s; `also` is set by both */
  EC_COUNT,
  EC_SIZE,
  EC_EXIT_STATUS
} ec_kind;

#define EC_NOWHERE ((size_t)-1)

typedef struct ec_option {
  const char *name;
  char letter; /* '\0': none */
  ec_kind kind;
  const char *value; /* what its value looks like, in help */
  const char *help;
  unsigned of;     /* the commands that have it, by their bits */
  size_t at, also; /* places in ec_options */
} ec_option;

typedef struct ec_command {
  const char *name;
  const char *operands; /* "[PATTERN]" */
  const char *summary;
  const char *more; /* behind the options in its help, or NULL */
  unsigned bit;
  int least, most; /* operands */
  bool takes_key;  /* completion offers keys */
  int (*run)(ec_options *options);
} ec_command;

extern const ec_command ec_commands[];
extern const size_t ec_command_count;
extern const ec_option ec_option_table[];
extern const size_t ec_option_count;

const ec_command *ec_find_command(const char *name);

/* The words of the command line as they came, NULL at the end. */
extern char **ec_words;

/* ---- parse.c: from words to ec_options ---- */

/* Parses the words behind the command's name.  False: wrong, and `message`
** says why. */
bool ec_parse(const ec_command *command, int argc, char **argv,
              ec_options *options, char *message, size_t size);

/* The known word that is nearest to this one, or NULL. */
const char *ec_nearest(const char *word, const char *const *known, size_t n);

/* ---- duration.c ---- */

#define EC_DURATION_TEXT EG_DURATION_TEXT

/* "30s", "5m", "1h30m", "250ms", "90" (seconds).  False: it is none, or more
** than the library can count. */
bool ec_parse_duration(const char *text, int64_t *ms);

/* A point in time in RFC 3339, UTC, and in the local time for people.  0: "-".
** Both return text. */
char *ec_format_rfc3339(int64_t epoch_us, char text[EC_DURATION_TEXT]);
char *ec_format_local(int64_t epoch_us, char text[EC_DURATION_TEXT]);

/* For a column: local and short on a terminal, RFC 3339 and seconds elsewhere;
** "-" for none.  Both return text. */
char *ec_format_when(int64_t epoch_us, char text[EC_DURATION_TEXT]);
char *ec_format_took(int64_t us, char text[EC_DURATION_TEXT]);

/* ---- say.c: what people are told ---- */

/* The options that decide how. */
void ec_say_setup(const ec_options *options);

/* A line on standard error, begun with "eguard: ".  note: not with -q;
** detail: only with -v. */
void ec_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void ec_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void ec_detail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints why a call failed.  Returns the exit status for it. */
int ec_failed(const char *doing, eg_status status, const eg_error *error);

/* "eguard COMMAND --store=URL --name=NAME KEY", with what was given to this
** one, quoted for a shell.  Returns text, cut where size is too small. */
#define EC_HINT_TEXT 1000
char *ec_hint(const ec_options *options, const char *command, char *text,
              size_t size);

/* Is standard output a terminal; are colours wanted there? */
bool ec_terminal(void);
bool ec_colours(void);
const char *ec_colour_of(eg_run status);
const char *ec_colour_end(void);

/* What is drawn on standard output is for: as wide as the terminal is, or
** COLUMNS says; ASCII where the locale, or --ascii, says so. */
void ec_view(const ec_options *options, eg_view *view);

/* ---- json.c: writing JSON ---- */

typedef struct ec_json {
  FILE *to;
  int depth;
  bool first; /* nothing stands in the innermost container yet */
  bool named; /* a name was written, its value comes */
} ec_json;

void ec_json_begin(ec_json *json, FILE *to);

/* A value, with its name where it is a member of an object; NULL: it is an
** element of an array, or the document, or ec_json_name said its name. */
void ec_json_open(ec_json *json, const char *name, char bracket);
void ec_json_bytes(ec_json *json, const char *name, eg_bytes bytes);
void ec_json_text(ec_json *json, const char *name, const char *text);
void ec_json_integer(ec_json *json, const char *name, int64_t value);
void ec_json_unsigned(ec_json *json, const char *name, uint64_t value);
void ec_json_real(ec_json *json, const char *name, double value);
void ec_json_seconds(ec_json *json, const char *name, int64_t us);
void ec_json_bool(ec_json *json, const char *name, bool value);
void ec_json_null(ec_json *json, const char *name);
void ec_json_time(ec_json *json, const char *name, int64_t epoch_us);

void ec_json_close(ec_json *json, char bracket);
void ec_json_name(ec_json *json, eg_bytes name);
/* Ends the line.  Returns 0, or EC_FAILURE when it could not be written. */
int ec_json_end(ec_json *json);
bool ec_is_utf8(eg_bytes bytes); /* what is not becomes U+FFFD */

/* ---- json_value.c: one MessagePack value as JSON ---- */

void ec_json_value(ec_json *json, const char *name, eg_bytes value);

/* ---- store.c: which store, and opening it ---- */

/* The URL by --store, EXECUTIONGUARD_STORE, or where this user's state is
** kept.  Prints what is wrong and returns NULL. */
const char *ec_store_url(const ec_options *options);

/* Goes on as another program that stands beside the libraries; returns where
** there is none. */
void ec_become(const char *name);

/* The folder of a store of files; false: it is another store. */
bool ec_file_dir(const char *url, char *dir, size_t size);

/* Opens the guard.  Prints what is wrong; NULL then, and *exit_status. */
eg_guard *ec_open(const ec_options *options, int *exit_status);

/* The URL as others may see it: no password, an absolute path.  Returns text,
** or NULL when it does not fit. */
char *ec_public_url(const char *url, char *text, size_t size);

/* ---- tree.c: all descendants of a process ---- */

/* Sends a signal to every descendant of this process.  Returns how many got
** it; *refused: how many could not be signalled. */
int ec_signal_tree(int signal, int *refused);

/* Kills every descendant, until none is left, and reaps them.  False: some are
** left that this user may not signal. */
bool ec_kill_tree(void);

bool ec_is_stopped(pid_t pid); /* as ^Z does */

/* ---- output.c: what a command says, kept and said again ---- */

typedef struct ec_output {
  unsigned char *bytes; /* one MessagePack map */
  size_t len, cap, limit;
  size_t chunk; /* where the last chunk's length stands */
  int stream;   /* of the last chunk; 0: none */
  uint32_t chunks;
  bool over;      /* more than the limit: nothing is kept */
  bool unwritten; /* nobody reads us */
} ec_output;

void ec_output_begin(ec_output *output, size_t limit);
void ec_output_add(ec_output *output, int stream, const void *data, size_t n);
/* The value that is stored.  False: it was too much. */
bool ec_output_end(ec_output *output, int exit_status, eg_bytes *value);
void ec_output_free(ec_output *output);
/* Writes what was kept to standard output and standard error, in its order;
** *written: all of it arrived.  False: the value is nothing that eguard has
** stored. */
bool ec_output_replay(eg_bytes value, int *exit_status, bool *written);
/* Is it what eguard has stored? */
bool ec_is_output(eg_bytes value);

/* Writes everything, however often it takes.  False: it cannot be. */
bool ec_write_all(int fd, const void *data, size_t n);

/* ---- supervise.c, watcher.c: running a command ---- */

typedef enum ec_ending {
  EC_ENDED,     /* exited: code */
  EC_KILLED,    /* by a signal: code */
  EC_TIMED_OUT, /* and nothing of it is left */
  EC_NO_START,  /* could not be run: code is the errno */
  EC_ORPHANED,  /* the supervising process was killed, and all with it */
  EC_BROKEN     /* eguard itself could not: code is the errno */
} ec_ending;

typedef struct ec_job {
  char **argv;
  int64_t timeout_us, kill_after_us; /* timeout 0: none */
  int lock_fd;                       /* keeps the grant, or -1 */
  ec_output *output;                 /* kept here, or NULL: not looked at */
  bool (*lost)(void *ctx); /* asked now and then; true: let go of the lock */
  void *ctx;
  /* the answer */
  ec_ending ending;
  int code;
  int keyboard;   /* INT or QUIT that came from the keyboard; 0: none */
  int stopped_by; /* HUP, INT, QUIT or TERM from wherever: no more attempts */
} ec_job;

void ec_supervise(ec_job *job);

/* A limit of file sizes (ulimit -f) is an error to be told of, and no signal
** to die of.  The command gets it as it was. */
void ec_ignore_file_limit(void);

/* ---- stop.c: ^Z, between two steps of the store ---- */

/* From now on SIGTSTP stops this process so; before any store is opened. */
void ec_stop_between_steps(void);

/* Stops it by that signal: the shell sees its job stop, and takes the
** terminal. */
void ec_stop_as(int signal);

/* Ends this process as the signal does, so that a shell stops its loop. */
void ec_die_of(int signal);

/* Sleeps; false: a signal says that it is time to end, *signal. */
bool ec_sleep(int64_t us, int *signal);

/* ---- table.c: columns on a terminal, tabs elsewhere ---- */

typedef struct ec_table ec_table;

/* Columns by their headings, NULL at the end.  Exits are the caller's: NULL
** when there is no memory. */
ec_table *ec_table_new(const char *const *headings);
/* The next cell of the row, in a colour ("": none). */
void ec_table_cell(ec_table *table, const char *text, const char *colour);
/* Prints, after sorting the rows by their first cells, and frees it. */
void ec_table_print(ec_table *table, bool sorted);

/* ---- timeline.c: runs on a time axis ---- */

typedef struct ec_run_mark {
  eg_bytes key;
  int64_t start_us, end_us;
  eg_status status;
} ec_run_mark;

/* A line a key, newest first, and the axis.  from_us or to_us 0: as the runs
** are. */
void ec_draw_timeline(const ec_run_mark *marks, size_t n, int64_t from_us,
                      int64_t to_us, const eg_view *view, FILE *to);

/* ---- describe.c: records and holders in words ---- */

/* "pid 12 on host (text)" */
char *ec_describe_owner(const eg_owner *owner, char *text, size_t size);
/* Who breaks the grant of that holder, for the history.  Returns text. */
char *ec_describe_breaker(const char *holder, char *text, size_t size);
/* ", since 2026-11-21 16:00:00 (5.0s)", or "" where it is not known. */
char *ec_describe_since(const eg_owner *owner, char *text, size_t size);
/* "3m, 5m and 4m", or "" when nothing is known. */
char *ec_describe_last(eg_guard *guard, eg_bytes key, const eg_record *record,
                       char *text, size_t size);
void ec_json_record(ec_json *json, const eg_record *record);
void ec_json_past(ec_json *json, const eg_past *past);
void ec_json_times(ec_json *json, const char *name, const char *n,
                   const eg_times *times);

/* "half within 1s, 95% within 2s, 99% within 3s": how long runs took. */
char *ec_describe_times(const eg_times *times, char *text, size_t size);

/* ---- the commands ---- */

int ec_run(ec_options *options);
int ec_ls(ec_options *options);
int ec_show(ec_options *options);
int ec_history(ec_options *options);
int ec_wait(ec_options *options);
int ec_release(ec_options *options);
int ec_reset(ec_options *options);
int ec_summary(ec_options *options);
int ec_metrics(ec_options *options);
int ec_trace(ec_options *options);

/* What --since says, 0 where it was not given.  False: it is no time, which
** was said.  history.c */
bool ec_since(const ec_options *options, int64_t *since_us);

/* run --trace: false: it cannot be, which was said. */
bool ec_trace_begin(const ec_options *options);
void ec_trace_end(const ec_options *options);

/* From one to the other a signal that ends the process ends it all the same,
** and the picture is written before; not while there are children.  NULL: no
** --trace. */
typedef struct ec_trace_watch ec_trace_watch;
ec_trace_watch *ec_trace_watch_begin(const ec_options *options);
void ec_trace_watch_end(ec_trace_watch *watch);

int ec_top(ec_options *options);
int ec_serve(ec_options *options);
int ec_doctor(ec_options *options);
int ec_version(ec_options *options);
int ec_completion(ec_options *options);
int ec_help(ec_options *options);

/* doctor --rebuild.  Returns the exit status. */
int ec_rebuild(const ec_options *options, const char *url);

/* Prints the help of one command, or of all (NULL). */
void ec_print_help(FILE *to, const ec_command *command);

/* ---- flocks.c: the kernel's list of flocks ---- */

/* Is that line of it one of a flock?  On which file, and does he wait? */
bool ec_read_flock(const char *line, uint64_t *inode, bool *waits);

/* How many wait for the lock on that file, by the list of the kernel's locks
** (/proc/locks); -1: it does not tell. */
int ec_count_waiters(FILE *locks, uint64_t inode);

#endif
