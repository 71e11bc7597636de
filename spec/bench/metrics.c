/* SPDX-License-Identifier: MIT
** Metrics of 10,000 keys beside the same bytes written by hand, and what they
** take of memory: metrics KEYS TOP ROUNDS
**
** By hand is how one would write it who has plain arrays: for each line its
** name with the labels, which is at hand, and its number, by fprintf; before
** that, all keys are added up, and sorted by how often they ran.  Prints
** "ours" and "hand" (nanoseconds, once a round), "bytes" and "memory".
*/
#include "executionguard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct line {
  char *name; /* NULL: text as it is */
  char *text;
  uint64_t whole;
  int parts; /* millionths; -1: an integer */
} line;

typedef struct row { /* a key, as one would keep it */
  char key[24];
  uint64_t counts[20], buckets[40];
} row;

typedef struct text {
  char *data;
  size_t n, cap;
} text;

static eg_guard *guard;
static line *lines;
static size_t line_n;
static row *rows;

static double now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void must(bool well, const char *what) {
  if (well)
    return;
  fprintf(stderr, "metrics: %s\n", what);
  exit(1);
}

static bool collect(void *ctx, const void *data, size_t n) {
  text *t = ctx;
  if (t->n + n > t->cap) {
    t->cap = 2 * (t->cap + n);
    t->data = realloc(t->data, t->cap);
    must(t->data != NULL, "no memory");
  }
  memcpy(t->data + t->n, data, n);
  t->n += n;
  return true;
}

static void fill(int keys) {
  eg_policy policy = EG_POLICY_DEFAULT;
  eg_reply reply;
  policy.allow_rerun = true;
  eg_reply_init(&reply);
  rows = calloc((size_t)keys, sizeof *rows);
  must(rows != NULL, "no memory");
  for (int i = 0; i < keys; i++) {
    snprintf(rows[i].key, sizeof rows[i].key, "player:%d:load", i);
    for (int n = 0; n <= i % 3; n++) {
      eg_grant grant;
      eg_outcome outcome = {.status = i % 50 == 0 ? EG_FAILED : EG_OK};
      eg_bytes key = eg_str(rows[i].key);
      must(eg_acquire(guard, key, EG_WANT_RUN, &policy, 0, &grant, &reply) ==
               EG_OK,
           "not granted");
      must(eg_commit(guard, key, &grant, &outcome, &policy, NULL) == EG_OK,
           "not committed");
      rows[i].counts[0]++;
    }
  }
  eg_reply_free(&reply);
}

/* The lines of a text, with their numbers as numbers. */
static void learn(char *all) {
  for (char *at = all; *at != '\0'; at++)
    line_n += *at == '\n';
  lines = calloc(line_n, sizeof *lines);
  must(lines != NULL, "no memory");
  size_t i = 0;
  for (char *at = strtok(all, "\n"); at != NULL; at = strtok(NULL, "\n")) {
    line *l = &lines[i++];
    char *number = strrchr(at, ' ');
    l->text = at;
    if (*at == '#')
      continue;
    char *dot = strchr(number, '.');
    l->name = at;
    l->whole = strtoull(number + 1, NULL, 10);
    l->parts = dot != NULL ? atoi(dot + 1) : -1;
    *number = '\0';
  }
}

static int by_count(const void *a, const void *b) {
  const row *x = a, *y = b;
  if (x->counts[0] != y->counts[0])
    return x->counts[0] > y->counts[0] ? -1 : 1;
  return strcmp(x->key, y->key);
}

static uint64_t add_up(int keys) {
  row sum = {.key = ""};
  static row *sorted;
  if (sorted == NULL)
    sorted = malloc((size_t)keys * sizeof *sorted);
  must(sorted != NULL, "no memory");
  memcpy(sorted, rows, (size_t)keys * sizeof *sorted);
  qsort(sorted, (size_t)keys, sizeof *sorted, by_count);
  for (int i = 0; i < keys; i++) {
    for (int n = 0; n < 20; n++)
      sum.counts[n] += sorted[i].counts[n];
    for (int n = 0; n < 40; n++)
      sum.buckets[n] += sorted[i].buckets[n];
  }
  return sum.counts[0];
}

static size_t by_hand(int keys) {
  char *data;
  size_t n;
  must(add_up(keys) > 0, "nothing ran");
  FILE *file = open_memstream(&data, &n);
  must(file != NULL, "no memory");
  for (size_t i = 0; i < line_n; i++) {
    const line *l = &lines[i];
    if (l->name == NULL)
      fprintf(file, "%s\n", l->text);
    else if (l->parts < 0)
      fprintf(file, "%s %llu\n", l->name, (unsigned long long)l->whole);
    else
      fprintf(file, "%s %llu.%06d\n", l->name, (unsigned long long)l->whole,
              l->parts);
  }
  fclose(file);
  free(data);
  return n;
}

int main(int argc, char **argv) {
  static const char memory[] = "executionguard_metrics_memory_bytes ";
  if (argc < 4)
    return 2;
  int keys = atoi(argv[1]), rounds = atoi(argv[3]);
  size_t top = (size_t)atol(argv[2]);
  text t = {0};
  must(eg_open(NULL, &guard, NULL) == EG_OK, "not open");
  fill(keys);
  must(eg_write_metrics(guard, top, EG_METRICS_TEXT, collect, &t, NULL) ==
           EG_OK,
       "no metrics");
  collect(&t, "", 1);
  printf("bytes %zu\nmemory %ld\n", t.n - 1,
         atol(strstr(t.data, "\nexecutionguard_metrics_memory_bytes ") +
              sizeof memory));
  learn(t.data);
  for (int r = 0; r < rounds; r++) {
    text again = {0};
    double start = now_ns();
    must(eg_write_metrics(guard, top, EG_METRICS_TEXT, collect, &again,
                          NULL) == EG_OK,
         "no metrics");
    double middle = now_ns();
    size_t n = by_hand(keys);
    double end = now_ns();
    must(n == again.n, "these are not the same bytes");
    free(again.data);
    printf("ours %.0f\nhand %.0f\n", middle - start, end - middle);
  }
  eg_close(guard);
  free(t.data);
  return 0;
}
