/* SPDX-License-Identifier: MIT
** Metrics as text: families of samples, each with its help, type and unit.
**
** What Prometheus reads as text and OpenMetrics differ in two things only: the
** name of a counter in the lines that describe it, and the content type.
*/
#include "guard/metrics.h"
#include "guard/out.h"

#include <string.h>

#define PREFIX "executionguard_"

const char *eg_metrics_type(eg_metrics_format format) {
  return format == EG_METRICS_OPENMETRICS
             ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
             : "text/plain; version=0.0.4; charset=utf-8";
}

/* -------------------------------------------------------------- values -- */

static void put_seconds(egi_out *o, int64_t us) {
  uint64_t n = us > 0 ? (uint64_t)us : 0;
  char part[7] = ".000000";
  for (uint64_t rest = n % 1000000, i = 6; rest > 0; rest /= 10, i--)
    part[i] = (char)('0' + rest % 10);
  egi_put_number(o, n / 1000000);
  egi_put(o, part, sizeof part);
}

static void put_hex(egi_out *o, unsigned char byte) {
  static const char digits[] = "0123456789abcdef";
  char text[5] = {'\\', '\\', 'x', digits[byte >> 4], digits[byte & 15]};
  egi_put(o, text, sizeof text);
}

/* Any bytes as the value of a label, different ones for different bytes: what
** is no text is \xNN, and so is a backslash that would look like that. */
static void put_value(egi_out *o, const void *data, size_t n) {
  const unsigned char *s = data, *end = s + n;
  while (s < end) {
    const unsigned char *plain = s;
    size_t len = 0;
    while (s < end && (len = egi_utf8(s, (size_t)(end - s))) > 0 &&
           *s >= ' ' && *s != '"' && *s != '\\' && *s != 0x7f)
      s += len;
    egi_put(o, (const char *)plain, (size_t)(s - plain));
    if (s == end)
      return;
    if (*s == '"')
      egi_put(o, "\\\"", 2);
    else if (*s == '\n')
      egi_put(o, "\\n", 2);
    else if (*s == '\\' && (s + 1 == end || s[1] != 'x'))
      egi_put(o, "\\\\", 2);
    else
      put_hex(o, *s);
    s++;
  }
}

/* ------------------------------------------------------------ families -- */

typedef enum kind { COUNTER, GAUGE, SECONDS, HISTOGRAM } kind;

typedef struct family {
  kind kind;
  const char *name, *help;
  size_t at; /* in an egi_sum */
} family;

#define AT(field) offsetof(egi_sum, field)

/* Shown in all, and by key. */
static const family families[] = {
    {COUNTER, "executions", "Runs that were started.", AT(executions)},
    {COUNTER, "failed", "Runs that failed.", AT(failed)},
    {COUNTER, "timed_out", "Runs that timed out.", AT(timed_out)},
    {COUNTER, "lost", "Runs whose owner died, or that were reset.", AT(lost)},
    {COUNTER, "blocked", "Calls that were refused.", AT(blocked)},
    {COUNTER, "cached", "Calls that got a result without a run.", AT(cached)},
    {GAUGE, "held", "Keys that are held now, by a run or a lock.", AT(held)},
    {GAUGE, "failing", "Keys whose last run failed or timed out.",
     AT(failing)},
    {SECONDS, "last_end_timestamp_seconds",
     "When the last run ended, since the epoch.", AT(last_us)},
    {HISTOGRAM, "run_seconds", "How long runs took that ended.", AT(runs)},
    {HISTOGRAM, "wait_seconds", "How long callers waited for their answer.",
     AT(waits)},
};

static const char *const types[] = {"counter", "gauge", "gauge", "histogram"};

/* The name of its samples, or of the family. */
static void put_name(egi_out *o, const char *of, const family *f,
                     bool sample) {
  egi_put_text(o, PREFIX);
  egi_put_text(o, of);
  egi_put_text(o, f->name);
  if (f->kind == COUNTER && (sample || !o->strict))
    egi_put_text(o, "_total");
}

static void put_line(egi_out *o, const char *word, const char *of,
                     const family *f, const char *text) {
  egi_put_text(o, word);
  put_name(o, of, f, false);
  egi_put_text(o, " ");
  egi_put_text(o, text);
  egi_put_text(o, "\n");
}

static void describe(egi_out *o, const char *of, const family *f) {
  put_line(o, "# TYPE ", of, f, types[f->kind]);
  if (f->kind == SECONDS || f->kind == HISTOGRAM)
    put_line(o, "# UNIT ", of, f, "seconds");
  put_line(o, "# HELP ", of, f, f->help);
}

/* What a sample is of. */
typedef struct subject {
  const egi_place *place;
  const void *key; /* or NULL */
  size_t len;
} subject;

static void put_labels(egi_out *o, const subject *of) {
  egi_put_text(o, "{store=\"");
  egi_put_text(o, of->place->scheme);
  if (of->place->name[0] != '\0') {
    egi_put_text(o, "\",namespace=\"");
    put_value(o, of->place->name, strlen(of->place->name));
  }
  if (of->key != NULL) {
    egi_put_text(o, "\",key=\"");
    put_value(o, of->key, of->len);
  }
  egi_put_text(o, "\"");
}

static void put_histogram(egi_out *o, const char *of, const family *f,
                          const subject *whose, const egi_spread *spread) {
  uint64_t sum = 0;
  for (unsigned i = 0; i <= EGI_BOUNDS; i++) {
    sum += spread->in[i];
    put_name(o, of, f, true);
    egi_put_text(o, "_bucket");
    put_labels(o, whose);
    egi_put_text(o, ",le=\"");
    egi_put_text(o, i < EGI_BOUNDS ? egi_bounds[i] : "+Inf");
    egi_put_text(o, "\"} ");
    egi_put_number(o, sum);
    egi_put_text(o, "\n");
  }
  put_name(o, of, f, true);
  egi_put_text(o, "_count");
  put_labels(o, whose);
  egi_put_text(o, "} ");
  egi_put_number(o, sum);
  egi_put_text(o, "\n");
  put_name(o, of, f, true);
  egi_put_text(o, "_sum");
  put_labels(o, whose);
  egi_put_text(o, "} ");
  put_seconds(o, spread->total_us);
  egi_put_text(o, "\n");
}

static void put_sample(egi_out *o, const char *of, const family *f,
                       const subject *whose, const egi_sum *sum) {
  const void *value = (const char *)sum + f->at;
  if (f->kind == HISTOGRAM) {
    put_histogram(o, of, f, whose, value);
    return;
  }
  put_name(o, of, f, true);
  put_labels(o, whose);
  egi_put_text(o, "} ");
  if (f->kind == SECONDS)
    put_seconds(o, *(const int64_t *)value);
  else
    egi_put_number(o, *(const uint64_t *)value);
  egi_put_text(o, "\n");
}

static void put_all(egi_out *o, const egi_metrics *m, const family *f) {
  describe(o, "", f);
  for (size_t i = 0; i < m->place_n; i++) {
    const subject whose = {&m->places[i], NULL, 0};
    put_sample(o, "", f, &whose, &m->places[i].all);
  }
}

static void put_keys(egi_out *o, const egi_metrics *m, const family *f) {
  size_t at = 0;
  describe(o, "key_", f);
  for (size_t i = 0; i < m->place_n && !o->stopped; i++) {
    const egi_place *place = &m->places[i];
    for (; at < m->n && m->named[m->order[at]].place == i; at++) {
      const egi_named *one = &m->named[m->order[at]];
      const subject whose = {place, one->key, one->len};
      put_sample(o, "key_", f, &whose, &one->sum);
    }
    const subject rest = {place, "other", 5};
    if (place->rest_keys > 0)
      put_sample(o, "key_", f, &rest, &place->rest);
  }
}

/* --------------------------------------------------- what has no keys -- */

static void put_place(egi_out *o, const family *f, const egi_place *place,
                      const char *status, uint64_t n) {
  const subject whose = {place, NULL, 0};
  put_name(o, "", f, true);
  put_labels(o, &whose);
  if (status != NULL) {
    egi_put_text(o, ",status=\"");
    egi_put_text(o, status);
    egi_put_text(o, "\"");
  }
  egi_put_text(o, "} ");
  egi_put_number(o, n);
  egi_put_text(o, "\n");
}

static void put_places(egi_out *o, const egi_metrics *m) {
  static const family up = {GAUGE, "store_up", "Could the store be read?", 0};
  static const family records = {GAUGE, "records", "Records by status.", 0};
  static const family corrupt = {GAUGE, "unreadable_records",
                                 "Records that nobody can read.", 0};
  describe(o, "", &up);
  for (size_t i = 0; i < m->place_n; i++)
    put_place(o, &up, &m->places[i], NULL, !m->places[i].down);
  describe(o, "", &records);
  for (size_t i = 0; i < m->place_n; i++)
    for (int run = 0; run < EG_RUN_COUNT; run++)
      put_place(o, &records, &m->places[i], eg_run_word((eg_run)run),
                m->places[i].by_run[run]);
  describe(o, "", &corrupt);
  for (size_t i = 0; i < m->place_n; i++)
    put_place(o, &corrupt, &m->places[i], NULL, m->places[i].corrupt);
}

static void put_one(egi_out *o, kind is, const char *name, const char *help,
                    uint64_t n) {
  const family f = {is, name, help, 0};
  describe(o, "", &f);
  put_name(o, "", &f, true);
  egi_put_text(o, " ");
  egi_put_number(o, n);
  egi_put_text(o, "\n");
}

static void put_process(egi_out *o) {
  eg_stats stats;
  eg_stats_read(&stats);
  put_one(o, COUNTER, "process_executions", "Runs that this process started.",
          stats.executions);
  put_one(o, COUNTER, "process_blocked",
          "Runs that were asked for in this process, and refused.",
          stats.blocked);
  put_one(o, COUNTER, "process_cached",
          "Results that this process was given without a run.", stats.cached);
  put_one(o, COUNTER, "process_timed_out",
          "Runs of this process that timed out.", stats.timed_out);
  put_one(o, COUNTER, "process_failed", "Runs of this process that failed.",
          stats.failed);
}

eg_status egi_metrics_text(const egi_metrics *m, eg_metrics_format format,
                           eg_write write, void *ctx) {
  egi_out o;
  egi_out_begin(&o, write, ctx);
  o.strict = format == EG_METRICS_OPENMETRICS;
  put_places(&o, m);
  for (size_t i = 0; i < sizeof families / sizeof *families; i++)
    put_all(&o, m, &families[i]);
  for (size_t i = 0; m->top > 0 && i < sizeof families / sizeof *families; i++)
    put_keys(&o, m, &families[i]);
  if (m->process)
    put_process(&o);
  put_one(&o, GAUGE, "metrics_memory_bytes",
          "What was used of memory to count this.", egi_metrics_bytes(m));
  egi_put_text(&o, "# EOF\n");
  return egi_out_end(&o);
}
