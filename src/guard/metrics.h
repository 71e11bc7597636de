/* SPDX-License-Identifier: MIT
** What is counted of the records of some namespaces: gathered in one pass
** (metrics.c), and written out as text (metrics_text.c).
**
** Memory is bounded: an entry for each of the `top` keys that were asked for
** most often, and one for each of EGI_PLACES namespaces.  What does not fit is
** added up as the rest.
*/
#ifndef EG_GUARD_METRICS_H
#define EG_GUARD_METRICS_H

#include "guard/guard.h"

/* The upper bounds of the buckets that are shown, and how they are written. */
enum { EGI_BOUNDS = 18 };
extern const int64_t egi_bounds_us[EGI_BOUNDS];
extern const char *const egi_bounds[EGI_BOUNDS];

typedef struct egi_spread {
  uint64_t in[EGI_BOUNDS + 1]; /* the last: above all bounds */
  int64_t total_us;
} egi_spread;

/* Of one key, or of many. */
typedef struct egi_sum {
  uint64_t executions, failed, timed_out, lost;
  uint64_t blocked, cached;
  uint64_t held;    /* now */
  uint64_t failing; /* the last run failed or timed out */
  int64_t last_us;  /* the end of the last run; epoch */
  egi_spread runs, waits;
} egi_sum;

/* A namespace; guards without a name of one kind of store count together. */
typedef struct egi_place {
  const char *scheme;
  char name[EG_NAME_MAX + 1];
  bool down; /* it could not be read */
  uint64_t by_run[EG_RUN_COUNT], corrupt;
  uint64_t rest_keys; /* how many keys are in the rest */
  egi_sum all, rest;
} egi_place;

typedef struct egi_named {
  uint64_t asked; /* by which keys are ranked */
  size_t place, len;
  egi_sum sum;
  unsigned char key[EG_KEY_MAX];
} egi_named;

enum { EGI_PLACES = 100 };

typedef struct egi_metrics {
  eg_env env;
  size_t top;
  egi_named *named;
  uint32_t *order; /* of those: a heap, the least on top; at last by key */
  size_t n, cap, named_cap;
  egi_place *places; /* the last of EGI_PLACES is for all others */
  size_t place_n, place_cap;
  bool no_memory;
  bool process; /* of the whole process */
} egi_metrics;

/* What is used of memory. */
size_t egi_metrics_bytes(const egi_metrics *metrics);

/* The key that stands for the rest, and so never for itself. */
bool egi_is_rest(eg_bytes key);

/* Writes it.  CANCELED: nobody wanted more. */
eg_status egi_metrics_text(const egi_metrics *metrics,
                           eg_metrics_format format, eg_write write,
                           void *ctx);

#endif
