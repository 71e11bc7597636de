/* SPDX-License-Identifier: MIT
** eguard run: asks for the key, runs the command, stores what came of it.
*/
#include "cli/cli.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "executionguard_host.h"
#include "executionguard_view.h"

/* No store takes much more in one piece: SQLite 1 GB, Redis 512 MiB. */
enum { MOST_CACHED = 512 << 20 };

typedef struct run {
  const ec_options *options;
  eg_guard *guard;
  eg_bytes key;
  char name[200]; /* the key, for people */
  char url[4200]; /* the store, for others */
  char owner[EG_OWNER_MAX + 1];
  eg_policy policy;
  eg_request request;
  eg_grant grant;
  eg_reply reply;
  ec_output output;
  ec_job job;
} run;

/* --------------------------------------------------------- the options -- */

static bool wrong(const char *message) {
  ec_error("%s", message);
  return false;
}

static bool check(const ec_options *o) {
  bool recorded = o->once || o->rerun || o->cache || o->cooldown_ms >= 0;
  if (o->no_record && recorded)
    return wrong("--no-record keeps nothing that --once, --rerun, --cache or "
                 "--cooldown could go by");
  if (o->retry < 0 && (o->delay_ms >= 0 || o->backoff))
    return wrong("--delay and --backoff are for --retry=N");
  if (o->timeout_ms < 0 && o->kill_after_ms >= 0)
    return wrong("--kill-after is for --timeout");
  if (o->cache_limit > MOST_CACHED)
    return wrong("--cache-limit is at most 512M");
  if (o->cache_limit >= 0 && !o->cache)
    return wrong("--cache-limit is for --cache");
  return true;
}

static int64_t or_else(int64_t value, int64_t otherwise) {
  return value >= 0 ? value : otherwise;
}

/* The text for people: what --owner says, and the command line where that is
** wanted.  It may hold secrets, so only then. */
static void choose_owner(run *r) {
  const ec_options *o = r->options;
  size_t at = 0;
  if (o->owner == NULL && !o->record_args)
    return;
  if (o->owner != NULL)
    at = (size_t)snprintf(r->owner, sizeof r->owner, "%s%s", o->owner,
                          o->record_args ? ": " : "");
  for (char **word = o->command; o->record_args && *word != NULL; word++)
    if (at < sizeof r->owner)
      at += (size_t)snprintf(r->owner + at, sizeof r->owner - at, "%s%s",
                             word == o->command ? "" : " ", *word);
  r->policy.owner = r->owner;
}

static void choose_policy(run *r) {
  const ec_options *o = r->options;
  r->policy = (eg_policy)EG_POLICY_DEFAULT;
  r->policy.allow_rerun = o->rerun || !(o->once || o->cache);
  r->policy.cache_result = o->cache;
  if (o->cache && o->cache_ms != EG_FOREVER)
    r->policy.result_ttl_ms = or_else(o->cache_ms, 0);
  r->policy.cooldown_ms = or_else(o->cooldown_ms, 0);
  r->policy.lock_at_least_ms = or_else(o->lock_at_least_ms, 0);
  r->policy.max_result = (size_t)or_else(o->cache_limit, EG_RESULT_MAX);
  choose_owner(r);
}

/* ------------------------------------------------------ asking for it -- */

static int64_t left_ms(int64_t deadline_us) {
  if (deadline_us == EG_FOREVER)
    return EG_FOREVER;
  int64_t left_us = deadline_us - eg_now_us();
  return left_us > 0 ? (left_us + 999) / 1000 : 0;
}

/* Is it an eguard that runs this very command, directly or through others,
** that holds the key?  Then there is nothing to wait for. */
static bool held_by_parent(const run *r) {
  const char *at = getenv("EXECUTIONGUARD_TOKENS");
  char *end;
  for (; at != NULL && *at != '\0'; at = end) {
    unsigned long long token = strtoull(at, &end, 10);
    if (end == at)
      return false;
    if (token == r->reply.token)
      return true;
  }
  return false;
}

static bool is_done(eg_status status) {
  return status == EG_CACHED || status == EG_COMPLETED;
}

/* Done, but not as this call wants it: another command's result, or done by a
** run without --cache. */
static bool counts_as_done(const run *r, eg_status status) {
  if (!is_done(status) || r->options->once)
    return is_done(status);
  return r->options->cache && status == EG_CACHED &&
         r->reply.kind == EG_KIND_VALUE && ec_is_output(r->reply.value);
}

/* One question.  What a run that was joined left is not an answer here, unless
** it makes ours needless. */
static eg_status ask(run *r, int64_t wait_ms) {
  eg_pending *pending;
  eg_request *request = &r->request;
  r->policy.join_ms = request->wait_ms = wait_ms;
  eg_status status = eg_ask(request, NULL, &pending, &r->grant, &r->reply);
  if (is_done(status) && !counts_as_done(r, status) &&
      !r->policy.allow_rerun) {
    r->policy.allow_rerun = true;
    status = eg_ask(request, NULL, &pending, &r->grant, &r->reply);
  }
  return status;
}

static bool ask_again(const run *r, eg_status status) {
  if (is_done(status))
    return !counts_as_done(r, status);
  /* a failure that was joined, not one that is answered for a while */
  return status == EG_TIMEOUT ||
         (status == EG_FAILED && r->reply.left_us <= 0);
}

/* Until it has it, or the time is over. */
static eg_status wait_for_it(run *r, int64_t wait_ms) {
  int64_t deadline_us = EG_FOREVER;
  eg_status status;
  ec_detail("%s is running; waiting", r->name);
  if (wait_ms != EG_FOREVER)
    deadline_us = eg_now_us() + wait_ms * 1000;
  do {
    r->policy.allow_rerun = r->options->rerun ||
                            !(r->options->once || r->options->cache);
    status = ask(r, left_ms(deadline_us));
  } while (ask_again(r, status) && left_ms(deadline_us) > 0);
  return ask_again(r, status) ? ask(r, 0) : status;
}

/* However often it asks, it is one call to who counts them. */
static eg_status acquire(run *r) {
  int64_t wait_ms = or_else(r->options->wait_ms, 0), waited_us = 0;
  eg_status status = ask(r, 0);
  if (wait_ms > 0 && (status == EG_RUNNING || status == EG_LOCKED)) {
    int64_t since_us = eg_now_us();
    status = held_by_parent(r) ? EG_DEADLOCK : wait_for_it(r, wait_ms);
    waited_us = status == EG_DEADLOCK ? 0 : eg_now_us() - since_us;
  }
  eg_count_asked(&r->request, status, waited_us);
  return status;
}

/* ------------------------------------------------------------- refused -- */

static void say_running(run *r, const char *what) {
  eg_record record;
  char who[300], last[120], since[2 * EC_DURATION_TEXT + 16];
  char hint[EC_HINT_TEXT];
  eg_status status = eg_look(r->guard, r->key, &record, NULL);
  if (EG_IS_FAILURE(status) || !record.locked) {
    ec_error("%s %s; store %s", r->name, what, r->url);
  } else {
    ec_describe_owner(&record.owner, who, sizeof who);
    ec_describe_last(r->guard, r->key, &record, last, sizeof last);
    ec_describe_since(&record.owner, since, sizeof since);
    ec_error("%s %s: %s%s%s%s; store %s; to clear it: %s", r->name, what, who,
             since, *last != '\0' ? "; the last runs took " : "", last, r->url,
             ec_hint(r->options, "release --force", hint, sizeof hint));
  }
  eg_record_free(&record);
}

static int conflict(const run *r) {
  return (int)or_else(r->options->conflict_exit, EC_CONFLICT);
}

static int refused(run *r, eg_status status) {
  char left[EC_DURATION_TEXT], hint[EC_HINT_TEXT];
  bool quiet = r->options->quiet;
  switch (status) {
  case EG_RUNNING:
  case EG_LOCKED:
    if (!quiet)
      say_running(r, status == EG_LOCKED && !r->options->no_record
                         ? "is locked"
                         : "is running");
    return conflict(r);
  case EG_COOLDOWN:
  case EG_FAILED:
    ec_note("%s %s; it can run again in %s; store %s", r->name,
            status == EG_COOLDOWN ? "is cooling down" : "failed just now",
            eg_format_duration(r->reply.left_us, left), r->url);
    return conflict(r);
  case EG_DEADLOCK:
    ec_note("%s is held by the eguard that runs this very command; store %s",
            r->name, r->url);
    return conflict(r);
  case EG_CRASHED:
    ec_note("%s: its last owner died, and it may not run again before: %s",
            r->name, ec_hint(r->options, "reset", hint, sizeof hint));
    return conflict(r);
  default:
    return ec_failed(*r->name != '\0' ? r->name : "run", status,
                     &r->reply.failure);
  }
}

/* Nothing runs: it is done, or its output is kept. */
static int done_already(run *r, eg_status status) {
  int exit_status = 0;
  bool written;
  char hint[EC_HINT_TEXT];
  if (r->options->cache && status == EG_CACHED &&
      r->reply.kind == EG_KIND_VALUE &&
      ec_output_replay(r->reply.value, &exit_status, &written)) {
    ec_detail("%s: from the cache", r->name);
    if (written)
      return exit_status;
    ec_error("%s: what it had said could not be written", r->name);
    return exit_status != 0 ? exit_status : EC_FAILURE;
  }
  ec_note("%s is done already; nothing is run (again: --rerun, or %s)",
          r->name, ec_hint(r->options, "reset", hint, sizeof hint));
  return 0;
}

/* ------------------------------------------------------------- granted -- */

/* Once the grant is lost there is nothing to be done with the guard; closing
** it lets go of what the kernel still has of the lock. */
static bool grant_lost(void *ctx) {
  run *r = ctx;
  if (eg_holds(r->guard, r->key, r->grant.token))
    return false;
  if (r->job.lock_fd >= 0)
    close(r->job.lock_fd);
  r->job.lock_fd = -1;
  eg_close(r->guard);
  r->guard = NULL;
  ec_error("%s: the grant is lost, somebody broke or reset it, or removed its "
           "file; "
           "the command goes on, what comes of it is not recorded",
           r->name);
  return true;
}

static void tell_child(const run *r) {
  char token[24], tokens[1040];
  snprintf(token, sizeof token, "%" PRIu64, r->grant.token);
  setenv("EXECUTIONGUARD_TOKEN", token, 1);
  const char *outer = getenv("EXECUTIONGUARD_TOKENS");
  if (outer == NULL || strlen(outer) > 1000)
    outer = "";
  snprintf(tokens, sizeof tokens, "%s %s", token, outer);
  setenv("EXECUTIONGUARD_TOKENS", tokens, 1);
  setenv("EXECUTIONGUARD_KEY", r->options->operands[0], 1);
  if (*r->url != '\0')
    setenv("EXECUTIONGUARD_STORE", r->url, 1);
}

/* The exit status that stands for how the command ended. */
static int exit_of(const ec_job *job) {
  switch (job->ending) {
  case EC_ENDED:
    return job->code;
  case EC_KILLED:
    return EC_SIGNALED + job->code;
  case EC_TIMED_OUT:
    return EC_TIMEDOUT;
  case EC_NO_START:
    return job->code == 2 /* ENOENT */ ? EC_NOT_FOUND : EC_CANNOT_RUN;
  default:
    return EC_FAILURE;
  }
}

static void say_ending(const run *r) {
  const ec_job *job = &r->job;
  char time[EC_DURATION_TEXT];
  switch (job->ending) {
  case EC_ENDED:
    ec_detail("%s: exit status %d", r->name, job->code);
    break;
  case EC_KILLED:
    ec_detail("%s: ended by signal %d (%s)", r->name, job->code,
              strsignal(job->code));
    break;
  case EC_TIMED_OUT:
    ec_error("%s took longer than %s and was ended", r->name,
             eg_format_duration(job->timeout_us, time));
    break;
  case EC_NO_START:
    ec_error("cannot run %s: %s", job->argv[0], strerror(job->code));
    break;
  case EC_ORPHANED:
    ec_error("%s: the process that watched over the command was killed; the "
             "command was ended",
             r->name);
    break;
  case EC_BROKEN:
    ec_error("%s: the command could not be started: %s", r->name,
             strerror(job->code));
    break;
  }
}

static void one_attempt(run *r) {
  ec_job *job = &r->job;
  if (r->options->cache) {
    ec_output_free(&r->output);
    ec_output_begin(&r->output, r->policy.max_result);
    job->output = &r->output;
  }
  ec_supervise(job);
  say_ending(r);
}

static bool worth_a_retry(const run *r) {
  const ec_job *job = &r->job;
  if (r->guard == NULL)
    return false; /* the grant is lost */
  if (job->stopped_by != 0)
    return false; /* who ends eguard wants no more of it */
  return job->ending == EC_KILLED ||
         (job->ending == EC_ENDED && job->code != 0);
}

/* One grant for all attempts; it is Running during the delays too. */
static void attempts(run *r) {
  const ec_options *o = r->options;
  int64_t delay_us = or_else(o->delay_ms, 1000) * 1000;
  int64_t left = or_else(o->retry, 0);
  int64_t most_us = delay_us > 3600000000 ? delay_us : 3600000000;
  char text[EC_DURATION_TEXT];
  for (;; left--) {
    one_attempt(r);
    if (left == 0 || !worth_a_retry(r))
      return;
    ec_note("%s failed (exit status %d); again in %s", r->name,
            exit_of(&r->job), eg_format_duration(delay_us, text));
    int by;
    if (!ec_sleep(delay_us, &by)) {
      r->job.ending = EC_KILLED;
      r->job.code = by;
      return;
    }
    eg_trace_retry(r->guard, r->key,
                   (uint64_t)(or_else(o->retry, 0) - left + 2));
    if (o->backoff)
      delay_us = delay_us > most_us / 2 ? most_us : 2 * delay_us;
  }
}

/* ------------------------------------------------------------ the end -- */

/* What is stored: with --cache any exit of its own is one to be replayed. */
static eg_outcome outcome_of(run *r, char *text, size_t size) {
  const ec_job *job = &r->job;
  eg_outcome outcome = {.status = EG_FAILED};
  switch (job->ending) {
  case EC_ENDED:
    snprintf(text, size, "exit status %d", job->code);
    outcome.exited = true;
    outcome.exit_status = job->code;
    if (job->code == 0)
      outcome.status = EG_OK;
    if (!r->options->cache)
      break;
    if (ec_output_end(&r->output, job->code, &outcome.value)) {
      outcome.status = EG_OK;
      outcome.kind = EG_KIND_VALUE;
    } else if (!r->output.unwritten) {
      ec_note("%s said more than %zu bytes; that is not cached", r->name,
              r->policy.max_result);
    }
    break;
  case EC_KILLED:
    snprintf(text, size, "ended by signal %d (%s)", job->code,
             strsignal(job->code));
    break;
  case EC_TIMED_OUT:
    outcome.status = EG_TIMEOUT;
    snprintf(text, size, "timed out");
    break;
  case EC_NO_START:
    snprintf(text, size, "cannot be run: %s", strerror(job->code));
    break;
  default:
    snprintf(text, size, "its supervision was killed");
    break;
  }
  if (outcome.status != EG_OK)
    outcome.error = eg_str(text);
  return outcome;
}

static bool maybe_later(eg_status status) {
  return status == EG_UNCOMMITTED || status == EG_INDETERMINATE ||
         status == EG_NOMEM;
}

static eg_status store_outcome(run *r, eg_error *error) {
  char text[120];
  if (r->guard == NULL)
    return EG_LOST;
  if (r->options->no_record)
    return eg_release(r->guard, r->key, r->grant.token, error);
  eg_outcome outcome = outcome_of(r, text, sizeof text);
  eg_status status = EG_UNCOMMITTED;
  for (int i = 0; i < 5 && maybe_later(status); i++) {
    if (i > 0)
      eg_sleep_us(INT64_C(200000) * i);
    status = eg_commit(r->guard, r->key, &r->grant, &outcome, &r->policy,
                       error);
  }
  return status;
}

static int finish(run *r) {
  eg_error error = {0};
  int exit_status = exit_of(&r->job);
  eg_status status = store_outcome(r, &error);
  if (r->output.unwritten) {
    ec_error("%s: what it said could not be written; it is not cached",
             r->name);
    exit_status = exit_status != 0 ? exit_status : EC_FAILURE;
  }
  if (status == EG_OK || status == EG_TIMEOUT)
    return exit_status;
  if (status == EG_LOST)
    ec_error("%s: the grant was lost meanwhile; what came of it is not "
             "recorded",
             r->name);
  else
    ec_error("%s: what came of it could not be recorded: %s", r->name,
             error.message[0] != '\0' ? error.message
                                      : eg_status_text(status));
  if (exit_status != 0)
    return exit_status;
  return status == EG_LOST ? eg_status_exit(EG_LOST) : EC_FAILURE;
}

static void prepare_job(run *r) {
  const ec_options *o = r->options;
  ec_job *job = &r->job;
  job->argv = o->command;
  job->timeout_us = or_else(o->timeout_ms, 0);
  if (job->timeout_us != EG_FOREVER)
    job->timeout_us *= 1000;
  job->kill_after_us = or_else(o->kill_after_ms, 10000) * 1000;
  job->lost = grant_lost;
  job->ctx = r;
  job->lock_fd = -1;
}

/* Without a descriptor for the lock (memory) the watcher has none to keep. */
static void share_lock(run *r) {
  eg_error error;
  eg_status status = eg_share_grant(r->guard, r->key, &r->grant,
                                    &r->job.lock_fd, &error);
  if (status != EG_OK && status != EG_UNSUPPORTED)
    ec_note("%s: the watcher has no lock of its own: %s", r->name,
            EG_IS_FAILURE(status) ? error.message : eg_status_text(status));
}

static int granted(run *r) {
  prepare_job(r);
  share_lock(r);
  tell_child(r);
  ec_detail("%s: granted, token %" PRIu64 "; store %s", r->name,
            r->grant.token, r->url);
  attempts(r);
  if (r->job.lock_fd >= 0)
    close(r->job.lock_fd);
  int exit_status = finish(r);
  ec_output_free(&r->output);
  return exit_status;
}

/* ----------------------------------------------------------------- run -- */

static int go(run *r) {
  ec_trace_watch *watch = ec_trace_watch_begin(r->options);
  eg_status status = acquire(r);
  ec_trace_watch_end(watch);
  if (status == EG_OK)
    return granted(r);
  return is_done(status) ? done_already(r, status) : refused(r, status);
}

/* A key of the keyboard that ended the command ends its eguard in the same
** way, so that a shell's loop round it ends too. */
static void die_with_it(const ec_job *job) {
  if (job->ending == EC_KILLED && job->code == job->keyboard)
    ec_die_of(job->code);
}

int ec_run(ec_options *options) {
  run r = {.options = options};
  int exit_status;
  if (!check(options))
    return EC_USAGE;
  const char *url = ec_store_url(options);
  if (url == NULL)
    return EC_FAILURE;
  r.key = eg_str(options->operands[0]);
  eg_printable(r.key, r.name, sizeof r.name);
  if (ec_public_url(url, r.url, sizeof r.url) == NULL)
    r.url[0] = '\0';
  r.guard = ec_open(options, &exit_status);
  if (r.guard == NULL)
    return exit_status;
  choose_policy(&r);
  r.request = (eg_request){.guard = r.guard,
                           .key = r.key,
                           .want = options->no_record ? EG_WANT_LOCK
                                                      : EG_WANT_RUN,
                           .policy = &r.policy,
                           .apart = true};
  eg_reply_init(&r.reply);
  if (ec_trace_begin(options)) {
    exit_status = go(&r);
    ec_trace_end(options);
  } else {
    exit_status = EC_FAILURE;
  }
  eg_reply_free(&r.reply);
  eg_close(r.guard); /* NULL: it was lost */
  die_with_it(&r.job);
  return exit_status;
}
