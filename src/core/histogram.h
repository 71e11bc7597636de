/* SPDX-License-Identifier: MIT
** How long things took, in buckets: a log-linear histogram, as HdrHistogram's.
**
** Up to 64 microseconds there is a bucket for each, above 32 for each power of
** two, so that the middle of a bucket is at most 1.6 per cent off.
*/
#ifndef EG_CORE_HISTOGRAM_H
#define EG_CORE_HISTOGRAM_H

#include "executionguard.h"

enum {
  EGI_EXACT_BITS = 6,
  EGI_LAST_BIT = 46, /* two years; what is longer is counted there */
  EGI_BUCKETS = (1 << EGI_EXACT_BITS) +
                ((EGI_LAST_BIT - EGI_EXACT_BITS + 1) << (EGI_EXACT_BITS - 1))
};

typedef struct egi_histogram {
  uint64_t in_all;
  uint64_t buckets[EGI_BUCKETS];
} egi_histogram;

/* The bucket of a duration (below 0: as 0), and the middle of a bucket. */
unsigned egi_bucket_of(int64_t us);
int64_t egi_bucket_us(unsigned number);

/* Counts n more in a bucket. */
void egi_histogram_add(egi_histogram *histogram, unsigned number, uint64_t n);

/* The duration that this share (0 to 1) of what was counted did not exceed, by
** the nearest rank; 0 where nothing was counted. */
int64_t egi_histogram_us(const egi_histogram *histogram, double share);

#endif
