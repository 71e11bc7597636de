/* SPDX-License-Identifier: MIT
** What is known of one key's work: the record, as the core computes with it.
*/
#ifndef EG_CORE_RECORD_H
#define EG_CORE_RECORD_H

#include "executionguard.h"

/*
** The head of a record is all that a decision needs: it fits one byte and is
** read without touching the rest.  A key without a record has the head of a
** record that never ran, and `absent`.
*/
typedef struct egi_head {
  bool absent;
  bool crashed; /* Failed because its owner died, and written down so */
  eg_run status;
  eg_kind kind; /* of the result */
} egi_head;

/*
** A whole record.  The pieces of bytes are borrowed from whatever it was
** decoded from or made of.  A time that is 0 is not known:
** start_us of a Running record is then the store's stamp (see codec.h).
*/
typedef struct egi_record {
  egi_head head;
  uint32_t count;      /* how often work was started; stays at its maximum */
  int64_t start_us;    /* epoch */
  int64_t duration_us; /* steady */
  int64_t last_us;     /* end of the last run, epoch */
  eg_bytes value;      /* kind VALUE: one MessagePack value */
  eg_bytes error, trace;
  eg_bytes tally;   /* of the runs before the last, as it is written */
  eg_run added;     /* one that is to be added to it; IDLE: none */
  int64_t added_us; /* its duration */
} egi_record;

/* When the run of this record ended (epoch), 0 if it did not. */
int64_t egi_record_end(const egi_record *record);

#endif
