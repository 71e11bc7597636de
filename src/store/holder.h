/* SPDX-License-Identifier: MIT
** The owner line of an exclusion that more than one process can meet: what the
** guard writes and a store shows to people.
**
**   nonce (8)  pid (8)  since, epoch us (8)  state (4)  guard (4)  attempt (8)
**   host and text, each behind one byte of length
**
** Little-endian: other machines read it.  The nonce is of the process: numbers
** of states and guards mean nothing without it, and a pid may be used again.
** The attempt is of one acquire: by it that acquire knows its own grant again
** when the store could not say whether it was made.
*/
#ifndef EG_STORE_HOLDER_H
#define EG_STORE_HOLDER_H

#include "store/store.h"

typedef struct egi_holder {
  uint64_t nonce, attempt;
  int64_t pid, since_us;
  uint32_t state, guard;
  eg_bytes host, text; /* of the line */
} egi_holder;

/* egi_holder_write: line has room for EGI_HOLDER_MAX. */
eg_bytes egi_holder_write(const egi_holder *holder, unsigned char *line);

/* egi_holder_read: false: that is no such line. */
bool egi_holder_read(eg_bytes line, egi_holder *holder);

/* Numbers of that many bytes, little-endian: put returns what follows. */
static inline unsigned char *egi_put_number(unsigned char *at, uint64_t number,
                                            int size) {
  for (int i = 0; i < size; i++, number >>= 8)
    *at++ = (unsigned char)number;
  return at;
}

static inline uint64_t egi_get_number(const unsigned char *at, int size) {
  uint64_t number = 0;
  while (size-- > 0)
    number = number << 8 | at[size];
  return number;
}

#endif
