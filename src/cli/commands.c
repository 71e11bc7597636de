/* SPDX-License-Identifier: MIT
** The table of commands and options: dispatch, help, completion and the check
** of the man page all read it.
*/
#include "cli/cli.h"

#include <stddef.h>
#include <string.h>

enum {
  RUN = 1 << 0,
  LS = 1 << 1,
  SHOW = 1 << 2,
  HISTORY = 1 << 3,
  WAIT = 1 << 4,
  RELEASE = 1 << 5,
  RESET = 1 << 6,
  SUMMARY = 1 << 7,
  DOCTOR = 1 << 8,
  VERSION = 1 << 9,
  COMPLETION = 1 << 10,
  HELP = 1 << 11,
  METRICS = 1 << 12,
  TOP = 1 << 13,
  SERVE = 1 << 14,
  TRACE = 1 << 15,
  ALL = (1 << 16) - 1,
  STORED = RUN | LS | SHOW | HISTORY | WAIT | RELEASE | RESET | SUMMARY |
           SERVE | DOCTOR | METRICS | TOP | TRACE,
  TOLD = (STORED & ~(RUN | METRICS | TOP | SERVE | TRACE)) | VERSION
};

static const char run_more[] =
    "The word right before -- is the KEY, whatever it looks like.  The exit\n"
    "status is the command's; 75: already running, or cooling down; 124: timed"
    "\nout; 125: eguard itself failed; 126, 127: the command cannot be run, "
    "is\n"
    "not found; 128+n: signal n killed it; 64: wrong usage.\n";

static const char wait_more[] =
    "The exit status is 0 when nothing holds the key, 124 when it still was\n"
    "held at the end of --timeout.\n";

static const char release_more[] =
    "A grant of somebody who is gone ends by itself.  --force takes it from\n"
    "somebody who lives: its token moves on, and whatever the holder still\n"
    "writes is refused.  It asks for the token that you saw, or takes --token."
    "\n";

static const char top_more[] =
    "PROGRESS is what the work says of itself (42%), or a guess by the time\n"
    "within which half of the key's runs ended (~42%).  WAIT is who waits "
    "for\n"
    "the lock of a store of files, where the kernel tells.\n"
    "Keys: q quits, s sorts by another column, / filters, a shows all keys, "
    "r\n"
    "takes the selected grant from its holder (it asks first), arrows or j "
    "and "
    "k\nselect.  Without a terminal it prints the table once.\n";

static const char serve_more[] =
    "Prints the address of the page.  Read-only.  Without a token only this\n"
    "machine can be told to listen; with one, what is printed is a link that\n"
    "is good once, and sets a cookie.  Programs send the token of the file:\n"
    "Authorization: Bearer TOKEN.\n";

static const char trace_more[] =
    "The runs that the store remembers and what is held now, a row for each\n"
    "owner, as Chrome trace events: open FILE (-: standard output) in\n"
    "ui.perfetto.dev or chrome://tracing.  Waits, retries and hand-overs are "
    "in\nwhat eguard run --trace=FILE writes.\n";

static const char completion_more[] =
    "For bash: eval \"$(eguard completion bash)\"; for zsh, after compinit:\n"
    "eval \"$(eguard completion zsh)\"; for fish: eguard completion fish | "
    "source\n";

static const char metrics_more[] =
    "The keys that were asked for most often have samples of their own; what\n"
    "is left of the keys is one, \"other\".  For the textfile collector of the"
    "\nnode exporter: eguard metrics >x.prom.new && mv x.prom.new x.prom\n";

const ec_command ec_commands[] = {
    {"run", "KEY -- COMMAND...", "run COMMAND unless KEY is running", run_more,
     RUN, 1, 1, true, ec_run},
    {"ls", "[PATTERN]", "list records and locks, by a pattern like 'backup-*'",
     NULL, LS, 0, 1, true, ec_ls},
    {"show", "KEY", "show everything about one key", NULL, SHOW, 1, 1, true,
     ec_show},
    {"history", "[KEY]", "list the runs that ended, newest first", NULL,
     HISTORY, 0, 1, true, ec_history},
    {"wait", "KEY", "wait until nothing holds the key", wait_more, WAIT, 1, 1,
     true, ec_wait},
    {"release", "KEY", "end somebody's grant", release_more, RELEASE, 1, 1,
     true, ec_release},
    {"reset", "KEY", "put a key back to Idle: it may run again", NULL, RESET,
     1, 1, true, ec_reset},
    {"summary", "", "count the records, show the slowest and the failing keys",
     NULL, SUMMARY, 0, 0, false, ec_summary},
    {"metrics", "", "print the records in numbers, for Prometheus",
     metrics_more, METRICS, 0, 0, false, ec_metrics},
    {"top", "", "show what is held now, again and again", top_more, TOP, 0, 0,
     false, ec_top},
    {"serve", "", "a live page of what runs, for browsers", serve_more, SERVE,
     0, 0, false, ec_serve},
    {"trace", "FILE [KEY]", "write what ran as a picture for Perfetto",
     trace_more, TRACE, 1, 2, false, ec_trace},
    {"doctor", "", "check the store and the machine", NULL, DOCTOR, 0, 0,
     false, ec_doctor},
    {"version", "", "print the version", NULL, VERSION, 0, 0, false,
     ec_version},
    {"completion", "bash|zsh|fish", "print a completion script for a shell",
     completion_more, COMPLETION, 1, 1, false, ec_completion},
    {"help", "[COMMAND]", "print help", NULL, HELP, 0, 1, false, ec_help},
};
const size_t ec_command_count = sizeof ec_commands / sizeof *ec_commands;

#define AT(field) offsetof(ec_options, field), EC_NOWHERE

const ec_option ec_option_table[] = {
    {"wait", '\0', EC_MAYBE_DURATION, "30s",
     "wait while it is running; no time: for ever", RUN, AT(wait_ms)},
    {"timeout", '\0', EC_DURATION, "5m",
     "end all of it after that long: TERM, then KILL", RUN, AT(timeout_ms)},
    {"timeout", '\0', EC_DURATION, "30s", "wait at most that long", WAIT,
     AT(timeout_ms)},
    {"kill-after", '\0', EC_DURATION, "10s",
     "from TERM to KILL when the time is over (10s)", RUN, AT(kill_after_ms)},
    {"once", '\0', EC_FLAG, NULL, "do nothing if it is done: exit status 0",
     RUN, AT(once)},
    {"rerun", '\0', EC_FLAG, NULL, "run also if it is done, or cached", RUN,
     AT(rerun)},
    {"cooldown", '\0', EC_DURATION, "1h", "no new run that long after the end",
     RUN, AT(cooldown_ms)},
    {"retry", '\0', EC_COUNT, "3", "after a failure, try that often again",
     RUN, AT(retry)},
    {"delay", '\0', EC_DURATION, "2s", "wait before each retry (1s)", RUN,
     AT(delay_ms)},
    {"backoff", '\0', EC_FLAG, NULL, "double the delay each time, up to 1h",
     RUN, AT(backoff)},
    {"cache", '\0', EC_MAYBE_DURATION, "10m",
     "keep output and status, replay them that long", RUN,
     offsetof(ec_options, cache_ms), offsetof(ec_options, cache)},
    {"cache-limit", '\0', EC_SIZE, "1M", "keep no more than that (1M)", RUN,
     AT(cache_limit)},
    {"lock-at-least", '\0', EC_DURATION, "30s",
     "no new run that long after the start", RUN, AT(lock_at_least_ms)},
    {"no-record", '\0', EC_FLAG, NULL,
     "only exclude others: no record, no history", RUN, AT(no_record)},
    {"owner", '\0', EC_TEXT, "TEXT", "tell others who runs it", RUN,
     AT(owner)},
    {"record-args", '\0', EC_FLAG, NULL, "tell others the command line, too",
     RUN, AT(record_args)},
    {"conflict-exit-code", '\0', EC_EXIT_STATUS, "75",
     "exit status when it is running or cooling (75)", RUN, AT(conflict_exit)},
    {"limit", 'n', EC_COUNT, "10", "print no more than that many",
     LS | HISTORY, AT(limit)},
    {"limit", 'n', EC_COUNT, "1000", "only the last so many runs", TRACE,
     AT(limit)},
    {"trace", '\0', EC_TEXT, "FILE",
     "write what happens as a picture for Perfetto", RUN, AT(trace)},
    {"top", '\0', EC_COUNT, "10", "how many keys of a kind (10)", SUMMARY,
     AT(top)},
    {"ascii", '\0', EC_FLAG, NULL, "draw with ASCII, whatever the locale is",
     SUMMARY | TOP | HISTORY, AT(ascii)},
    {"since", '\0', EC_TEXT, "2h",
     "only what ended in that time, or after a time", HISTORY | TRACE,
     AT(since)},
    {"interval", '\0', EC_DURATION, "1s", "look again that often (1s)", TOP,
     AT(interval_ms)},
    {"all", 'a', EC_FLAG, NULL, "keys that nobody holds, too", TOP, AT(all)},
    {"top", '\0', EC_COUNT, "50", "how many keys are named", METRICS, AT(top)},
    {"openmetrics", '\0', EC_FLAG, NULL,
     "OpenMetrics 1.0 to the letter, not for promtool", METRICS,
     AT(openmetrics)},
    {"force", '\0', EC_FLAG, NULL, "take it from a living holder", RELEASE,
     AT(force)},
    {"kill", '\0', EC_FLAG, NULL, "with --force: end the holder, too", RELEASE,
     AT(kill)},
    {"token", '\0', EC_COUNT, "N", "the token that is to be broken", RELEASE,
     AT(token)},
    {"listen", '\0', EC_TEXT, "ADDRESS:PORT",
     "where to listen (127.0.0.1:9464); port 0: any", SERVE, AT(listen)},
    {"token-file", '\0', EC_TEXT, "FILE",
     "ask for the token that is its first line", SERVE, AT(token_file)},
    {"new-token", '\0', EC_FLAG, NULL, "ask for a token that is made now",
     SERVE, AT(new_token)},
    {"host", '\0', EC_TEXT, "NAME,...",
     "names by which browsers come, beside addresses", SERVE, AT(host)},
    {"rebuild", '\0', EC_FLAG, NULL,
     "recover the database's rows into a new one", DOCTOR, AT(rebuild)},
    {"store", '\0', EC_TEXT, "URL",
     "the store; else EXECUTIONGUARD_STORE, else yours", STORED, AT(store)},
    {"name", '\0', EC_TEXT, "NAME", "the namespace of guards with this name",
     STORED, AT(name)},
    {"json", '\0', EC_FLAG, NULL, "print JSON", TOLD, AT(json)},
    {"quiet", 'q', EC_FLAG, NULL, "say only what went wrong", STORED,
     AT(quiet)},
    {"verbose", 'v', EC_FLAG, NULL, "say what is done", STORED, AT(verbose)},
    {"help", 'h', EC_FLAG, NULL, "print this help", ALL, AT(help)},
};
const size_t ec_option_count = sizeof ec_option_table /
                               sizeof *ec_option_table;

const ec_command *ec_find_command(const char *name) {
  for (size_t i = 0; i < ec_command_count; i++)
    if (strcmp(ec_commands[i].name, name) == 0)
      return &ec_commands[i];
  return NULL;
}
