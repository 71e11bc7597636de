/* SPDX-License-Identifier: MIT
** Durations in buckets; histogram.h says which.
*/
#include "core/histogram.h"

enum { EXACT = 1 << EGI_EXACT_BITS, SUB_BITS = EGI_EXACT_BITS - 1 };

unsigned egi_bucket_of(int64_t us) {
  if (us < EXACT)
    return us > 0 ? (unsigned)us : 0;
  if (us >> (EGI_LAST_BIT + 1) != 0)
    return EGI_BUCKETS - 1;
  unsigned bit = EGI_EXACT_BITS;
  while (us >> (bit + 1) != 0)
    bit++;
  unsigned sub = (unsigned)(us >> (bit - SUB_BITS)) & ((1u << SUB_BITS) - 1);
  return EXACT + ((bit - EGI_EXACT_BITS) << SUB_BITS) + sub;
}

int64_t egi_bucket_us(unsigned number) {
  if (number < EXACT)
    return number;
  unsigned above = number - EXACT;
  unsigned bit = EGI_EXACT_BITS + (above >> SUB_BITS);
  unsigned sub = above & ((1u << SUB_BITS) - 1);
  int64_t width = INT64_C(1) << (bit - SUB_BITS);
  return ((INT64_C(1) << SUB_BITS) + sub) * width + width / 2;
}

void egi_histogram_add(egi_histogram *histogram, unsigned number, uint64_t n) {
  histogram->in_all += n;
  histogram->buckets[number < EGI_BUCKETS ? number : EGI_BUCKETS - 1] += n;
}

int64_t egi_histogram_us(const egi_histogram *histogram, double share) {
  double wanted = share * (double)histogram->in_all;
  uint64_t below = 0;
  unsigned last = 0;
  for (unsigned i = 0; i < EGI_BUCKETS; i++) {
    if (histogram->buckets[i] == 0)
      continue;
    last = i;
    below += histogram->buckets[i];
    if ((double)below >= wanted)
      break;
  }
  return egi_bucket_us(last);
}
