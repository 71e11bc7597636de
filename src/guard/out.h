/* SPDX-License-Identifier: MIT
** Text on its way out, in pieces of at most 4 KiB.
*/
#ifndef EG_GUARD_OUT_H
#define EG_GUARD_OUT_H

#include "executionguard.h"

typedef struct egi_out {
  eg_write write;
  void *ctx;
  bool stopped; /* nobody wants more */
  bool strict;  /* the writer's own */
  size_t n;
  char room[4096];
} egi_out;

void egi_out_begin(egi_out *out, eg_write write, void *ctx);
/* OK, or CANCELED: nobody wanted more. */
eg_status egi_out_end(egi_out *out);

void egi_put(egi_out *out, const void *text, size_t n); /* <= 4 KiB */
void egi_put_text(egi_out *out, const char *text);
void egi_put_number(egi_out *out, uint64_t n);

/* How many bytes at s, of n, are one character (RFC 3629); 0: none. */
size_t egi_utf8(const unsigned char *s, size_t n);

#endif
