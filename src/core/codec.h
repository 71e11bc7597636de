/* SPDX-License-Identifier: MIT
** How a record is written as bytes: MessagePack, so that any language can
** read it.
**
**   [version=1, state, (value), count, start, duration, error, trace, last,
**    tally]
**
**   state     status + 8 * kind + 32 * crashed; an integer below 128
**   value     stands there only if kind is VALUE (1); any MessagePack value
**             without extension types, map keys being strings or integers
**   count     of executions
**   start     microseconds since the epoch; of a Running record 0, while the
**             store's own stamp of the bytes says it
**   duration  microseconds; the end is start + duration
**   error     text; trace: its traceback
**   last      end of the last run where start + duration does not say it
**   tally     of the runs before the last (tally.h), an array of integers:
**             [failed, timed out, microseconds in all, gap, runs, gap, runs
**             ...], the latter for each bucket of the histogram, whose number
**             is the sum of the gaps up to it
**
** error, trace, last and tally are left out from the end where they are empty
** or 0.  The array has at most 10 elements, so version and state are bytes 1
** and 2, each a single byte: that is the head.  Token, version of the store
** and owner never stand in the bytes.  Specification of the encoding:
** https://github.com/msgpack/msgpack/blob/master/spec.md
*/
#ifndef EG_CORE_CODEC_H
#define EG_CORE_CODEC_H

#include "core/counters.h"
#include "core/record.h"
#include "core/tally.h"

#define EGI_RECORD_VERSION 1

/* Bytes that the record of any run that ended without result and error fits:
** every field at its largest. */
#define EGI_PLAIN_RECORD_MAX 26

/* egi_decode_head: reads status, kind and mark from the first three bytes.
** No bytes at all are an absent record.  False: not a record, or of a version
** that is not known here. */
bool egi_decode_head(eg_bytes bytes, egi_head *head);

/* egi_decode: reads a record, borrowing from bytes.  False: as above, or
** truncated, or followed by more, or a field is not what it should be. */
bool egi_decode(eg_bytes bytes, egi_record *record);

/* egi_decode_value: only the value, of a record whose head says VALUE; of a
** scalar, at the cost of a look at one byte.  False: as above. */
bool egi_decode_value(eg_bytes bytes, eg_bytes *value);

/* egi_decode_tally: reads the tally of a record; where that is empty, an empty
** one.  False: it is malformed, which egi_decode has said before. */
bool egi_decode_tally(eg_bytes bytes, egi_tally *tally);

/* egi_encode: writes a record to at most cap bytes at out.  Returns the number
** of bytes it takes; more than cap: out is not to be used. */
size_t egi_encode(const egi_record *record, void *out, size_t cap);

/*
** What is counted of a key beside its record stands in an array of its own:
**   [version=1, blocked, cached, (waits)]
** waits are a tally of times that were waited, left out where there are none.
*/
#define EGI_COUNTS_VERSION 1

/* Bytes that any of these fits. */
#define EGI_COUNTS_MAX 2048

/* egi_encode_*: as egi_encode.  egi_decode_counts: of no bytes, nothing.
** False: malformed, and then they are 0. */
size_t egi_encode_tally(const egi_tally *tally, void *out, size_t cap);
size_t egi_encode_counts(const egi_counts *counts, void *out, size_t cap);
bool egi_decode_counts(eg_bytes bytes, egi_counts *counts);

/* egi_check_value: is this exactly one MessagePack value that a record may
** hold, at most EG_DEPTH_MAX levels deep?  NULL if so, else why not. */
const char *egi_check_value(eg_bytes value);

#endif
