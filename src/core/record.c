/* SPDX-License-Identifier: MIT
** What can be said of a record by looking at nothing else.
*/
#include "core/record.h"

int64_t egi_record_end(const egi_record *record) {
  bool ended = record->head.status != EG_RUN_IDLE &&
               record->head.status != EG_RUN_RUNNING && !record->head.crashed;
  if (!ended || record->start_us <= 0)
    return 0;
  return record->duration_us < INT64_MAX - record->start_us
             ? record->start_us + record->duration_us
             : INT64_MAX;
}
