/* SPDX-License-Identifier: MIT
** What a row of a remote store means at a time: what is over is over by the
** reading of whoever looks.
*/
#include "store/remote.h"

#include <string.h>

void egi_row_absent(int64_t now_us, egi_seen *seen) {
  seen->at = (egi_sight){
      .clocked = true, .now_us = now_us, .left_us = -1, .fresh_left_us = -1};
  seen->version = 0;
  seen->bytes = seen->holder = (eg_bytes){NULL, 0};
  seen->life_left_us = -1;
  memset(seen->mark, 0, sizeof seen->mark);
}

static int64_t left(int64_t until, int64_t now, int64_t none) {
  return until == 0 ? none : until > now ? until - now : 0;
}

void egi_row_see(const egi_row *row, int64_t now_us, egi_seen *seen) {
  int64_t now = now_us > row->last ? now_us : row->last;
  bool held = row->held && (row->lease == 0 || row->lease > now);
  bool empty = row->bytes.len == 0 && row->not_before <= now;
  egi_row_absent(now, seen);
  if (!held && (empty || (row->life != 0 && row->life <= now)))
    return;
  seen->version = row->version;
  seen->at.token = row->token;
  seen->at.stamp_us = row->stamp;
  seen->at.held = held;
  seen->at.left_us = held ? left(row->lease, now, -1) : -1;
  seen->at.not_before_left_us = left(row->not_before, now, 0);
  seen->at.fresh_left_us = left(row->fresh, now, -1);
  seen->life_left_us = left(row->life, now, -1);
  seen->at.timed = (held && row->lease != 0) || row->not_before > now ||
                   row->fresh != 0 || row->life != 0;
  seen->bytes = row->bytes;
  if (held)
    seen->holder = row->holder;
}
