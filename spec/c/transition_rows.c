/* SPDX-License-Identifier: MIT
** The meaning of the guard, written out by hand from the design (sections 2
** and 5), row by row; nothing here was taken from the code it is to judge.
*/
#include <stdbool.h>

#include "executionguard.h"
#include "transition_rows.h"

#define ANSWER(status) .verdict = V_NONE, .outcome = (status)

/* Every grant: nobody's token is named, and it lasts as long as asked. */
#define GRANT                                                                 \
  .verdict = V_SWAP, .outcome = EG_OK, .hold = H_TAKE, .names = NO,           \
  .lease = LEASE, .not_before = LOCK_AT_LEAST, .new_result = NO
#define START GRANT, .write = W_PUT, .to = RUNNING, .life = ZERO

#define END                                                                   \
  .verdict = V_SWAP, .outcome = EG_OK, .write = W_PUT, .hold = H_DROP,        \
  .names = YES, .wake = YES, .not_before = LONGER, .life = RECORD_TTL

#define UNLOCK                                                                \
  .verdict = V_SWAP, .outcome = EG_OK, .hold = H_DROP, .names = YES,          \
  .wake = YES, .not_before = LEAVE, .fresh_for = LEAVE, .life = LEAVE

#define TAKEN_AWAY                                                            \
  .verdict = V_SWAP, .outcome = EG_OK, .hold = H_BREAK, .names = YES,         \
  .wake = YES, .not_before = ZERO, .new_result = NO, .life = LEAVE

#define RESTORE                                                               \
  .verdict = V_SWAP, .outcome = EG_OK, .names = NO, .new_result = NO,         \
  .not_before = ZERO, .fresh_for = ZERO

/* ClearResult: the status stays, the result and its time go. */
#define FORGET_RESULT                                                         \
  .verdict = V_SWAP, .outcome = EG_OK, .names = NO, .new_result = NO,         \
  .write = W_PUT, .hold = H_KEEP, .not_before = LEAVE, .fresh_for = ZERO,     \
  .life = LEAVE, .result = GONE, .wake = YES

/* ... but for a time that is over: so a Completed still may run again. */
#define STAY_OVER                                                             \
  .verdict = V_SWAP, .outcome = EG_OK, .names = NO, .new_result = NO,         \
  .write = W_PUT, .hold = H_KEEP, .not_before = LEAVE, .fresh_for = LEAVE,    \
  .life = LEAVE, .result = GONE, .wake = YES

const row transition_rows[] = {
    /* "NOW: it met a time and now was unread."  Reset looks at no time: it
    ** does the same whatever is left of it. */
    {"a time that is set is read", .event = ~(unsigned)RESET, .timed = YES,
     .clocked = NO, .verdict = V_NOW},

    /* ---- RunOnce, in the order of the table in section 5 ---- */
    {"run: a kept result is returned", .event = RUN, .status = COMPLETED,
     .kind = KEPT, .fresh = UNSET | LEFT, .rerun = NO, .cache = YES,
     ANSWER(EG_CACHED)},
    {"run: done, without a result to reuse", .event = RUN, .status = COMPLETED,
     .fresh = UNSET | LEFT, .rerun = NO, ANSWER(EG_COMPLETED)},
    {"run: it is running", .event = RUN, .status = RUNNING, .held = YES,
     ANSWER(EG_RUNNING)},
    {"run: locked and never run leaves an Idle record", .event = RUN,
     .status = ABSENT, .held = YES, .verdict = V_SWAP, .outcome = EG_LOCKED,
     .write = W_PUT, .hold = H_KEEP, .names = NO, .new_result = NO, .to = IDLE,
     .result = GONE, .not_before = LEAVE, .fresh_for = LEAVE | ZERO,
     .life = LEAVE | ZERO},
    {"run: locked", .event = RUN, .held = YES, ANSWER(EG_LOCKED)},
    {"run: crashed waits for a reset", .event = RUN,
     .status = RUNNING | CRASHED, .block = YES, ANSWER(EG_CRASHED)},
    {"run: a start needs the time", .event = RUN, .clocked = NO,
     .verdict = V_NOW},
    {"run: cooling down", .event = RUN, .before = LEFT, ANSWER(EG_COOLDOWN),
     .left = L_BEFORE},
    {"run: the error still holds", .event = RUN, .status = FAILED | CRASHED,
     .fresh = LEFT, ANSWER(EG_FAILED), .left = L_FRESH},
    {"run: the result is over", .event = RUN, .status = COMPLETED,
     .fresh = OVER, START, .result = GONE, .fresh_for = ZERO},
    {"run: again, the kept result goes on ageing", .event = RUN,
     .status = COMPLETED, .kind = KEPT, .fresh = LEFT, START, .result = STAYS,
     .fresh_for = LEAVE},
    {"run: again, there is no result to age", .event = RUN,
     .status = COMPLETED, .kind = K_NONE, .fresh = LEFT, START, .result = GONE,
     .fresh_for = LEAVE | ZERO},
    {"run: again, the kept result has no limit", .event = RUN,
     .status = COMPLETED, START, .result = STAYS, .fresh_for = LEAVE | ZERO},
    {"run: owner gone, a failed rerun: a result with a limit is gone",
     .event = RUN, .status = RUNNING, .fresh = LEFT | OVER, START,
     .result = GONE, .fresh_for = ZERO},
    {"run: owner gone, a failed rerun: a result without limit stays",
     .event = RUN, .status = RUNNING, START, .result = STAYS,
     .fresh_for = LEAVE | ZERO},
    {"run: an error that is over or never held has been served", .event = RUN,
     .status = FAILED | CRASHED, START, .result = STAYS, .fresh_for = ZERO},
    {"run: Idle, TimedOut or never seen", .event = RUN,
     .status = ABSENT | IDLE | TIMEDOUT, START, .result = STAYS,
     .fresh_for = ZERO},

    /* ---- AcquireLock: locked, cooldown, or granted ---- */
    {"lock: held", .event = LOCK, .held = YES, ANSWER(EG_LOCKED)},
    {"lock: cooling down", .event = LOCK, .before = LEFT, ANSWER(EG_COOLDOWN),
     .left = L_BEFORE},
    {"lock: of a dead run writes Failed, with its result if unlimited",
     .event = LOCK, .status = RUNNING, .fresh = UNSET, GRANT, .write = W_PUT,
     .to = CRASHED, .result = STAYS, .fresh_for = LEAVE | ZERO,
     .life = LEAVE | ZERO},
    {"lock: of a dead run drops a result that had a limit", .event = LOCK,
     .status = RUNNING, GRANT, .write = W_PUT, .to = CRASHED, .result = GONE,
     .fresh_for = ZERO, .life = LEAVE | ZERO},
    {"lock: leaves the record alone", .event = LOCK, GRANT, .write = W_LEAVE,
     .fresh_for = LEAVE, .life = LEAVE},

    /* ---- join: what came of that token's run ---- */
    {"join: a newer token", .event = JOIN, .token = OLDER, ANSWER(EG_OK)},
    {"join: still going on", .event = JOIN, .status = RUNNING, .held = YES,
     ANSWER(EG_RUNNING)},
    {"join: no run of that token", .event = JOIN, .held = YES, ANSWER(EG_OK)},
    {"join: the result is over already", .event = JOIN, .status = COMPLETED,
     .fresh = OVER, ANSWER(EG_OK)},
    {"join: its result", .event = JOIN, .status = COMPLETED, .kind = KEPT,
     .cache = YES, ANSWER(EG_CACHED)},
    {"join: done", .event = JOIN, .status = COMPLETED, ANSWER(EG_COMPLETED)},
    {"join: its error", .event = JOIN, .status = FAILED, ANSWER(EG_FAILED),
     .left = L_UNKNOWN | L_FRESH},
    {"join: timed out", .event = JOIN, .status = TIMEDOUT, ANSWER(EG_TIMEOUT)},
    {"join: reset, or owner gone", .event = JOIN,
     .status = ABSENT | IDLE | RUNNING | CRASHED, ANSWER(EG_OK)},

    /* ---- commit: only of the run that holds the key ---- */
    {"commit: the grant is over", .event = COMMIT, .held = NO,
     ANSWER(EG_LOST)},
    {"commit: somebody came after", .event = COMMIT, .token = OLDER,
     ANSWER(EG_LOST)},
    {"commit: not a run", .event = COMMIT, .status = ~(unsigned)RUNNING,
     ANSWER(EG_LOST)},
    {"commit: done, its result is kept, nil clears", .event = DONE,
     .cache = YES, END, .to = COMPLETED, .result = OF_EVENT, .new_result = YES,
     .fresh_for = RESULT_TTL},
    {"commit: done, an earlier result goes on ageing", .event = DONE,
     .kind = KEPT, .fresh = LEFT, END, .to = COMPLETED, .result = STAYS,
     .new_result = NO, .fresh_for = LEAVE},
    {"commit: done, an earlier result is over", .event = DONE, .kind = KEPT,
     .fresh = OVER, END, .to = COMPLETED, .result = GONE, .new_result = NO,
     .fresh_for = RESULT_TTL},
    {"commit: done, without keeping the result", .event = DONE, END,
     .to = COMPLETED, .result = STAYS, .new_result = NO,
     .fresh_for = RESULT_TTL},
    {"commit: failed, an earlier result that had a limit goes", .event = ERROR,
     .fresh = LEFT | OVER, END, .to = FAILED, .result = GONE, .new_result = NO,
     .fresh_for = ERROR_TTL},
    {"commit: failed, an earlier result stays", .event = ERROR, END,
     .to = FAILED, .result = STAYS, .new_result = NO, .fresh_for = ERROR_TTL},
    {"commit: timed out, an earlier result that had a limit goes",
     .event = LATE, .fresh = LEFT | OVER, END, .to = TIMEDOUT, .result = GONE,
     .new_result = NO, .fresh_for = ZERO},
    {"commit: timed out, an earlier result stays", .event = LATE, END,
     .to = TIMEDOUT, .result = STAYS, .new_result = NO, .fresh_for = ZERO},

    /* ---- ReleaseLock: a lock of this guard, no run, nobody else's ---- */
    {"release: not locked", .event = RELEASE, .held = NO, ANSWER(EG_LOST)},
    {"release: a run in progress", .event = RELEASE, .status = RUNNING,
     ANSWER(EG_LOST)},
    {"release: another guard's lock", .event = RELEASE, .mine = NO,
     ANSWER(EG_LOST)},
    {"release: a later lock", .event = RELEASE, .token = OLDER,
     ANSWER(EG_LOST)},
    {"release: only ever locked leaves no record", .event = RELEASE,
     .status = ABSENT, UNLOCK, .write = W_FORGET | W_LEAVE},
    {"release: leaves the record alone", .event = RELEASE, UNLOCK,
     .write = W_LEAVE},

    /* ---- Reset ---- */
    {"reset: nothing there", .event = RESET, .status = ABSENT, .held = NO,
     .timed = NO, ANSWER(EG_OK)},
    {"reset: revokes a lock, of an absent key leaves none", .event = RESET,
     .status = ABSENT, .held = YES, RESTORE, .write = W_FORGET | W_LEAVE,
     .hold = H_BREAK, .wake = YES},
    {"reset: clears the cooldown of an absent key", .event = RESET,
     .status = ABSENT, RESTORE, .write = W_FORGET | W_LEAVE,
     .hold = H_KEEP | H_BREAK},
    {"reset: revokes what is held", .event = RESET, .held = YES, RESTORE,
     .write = W_PUT, .hold = H_BREAK, .wake = YES, .to = IDLE, .result = GONE,
     .life = ZERO},
    {"reset: back to Idle, the token stays", .event = RESET, RESTORE,
     .write = W_PUT, .hold = H_KEEP, .wake = YES, .to = IDLE, .result = GONE,
     .life = ZERO},

    /* ---- revoke: somebody's grant, if it still is the one that was seen */
    {"revoke: nothing is held", .event = REVOKE, .held = NO, ANSWER(EG_LOST)},
    {"revoke: another grant", .event = REVOKE, .token = OLDER,
     ANSWER(EG_LOST)},
    {"revoke: a lock of an absent key leaves none", .event = REVOKE,
     .status = ABSENT, TAKEN_AWAY, .write = W_FORGET},
    {"revoke: a run has failed, its limited result goes", .event = REVOKE,
     .status = RUNNING, .fresh = LEFT | OVER, TAKEN_AWAY, .write = W_PUT,
     .to = FAILED, .result = GONE, .fresh_for = ZERO},
    {"revoke: a run has failed, its result stays", .event = REVOKE,
     .status = RUNNING, TAKEN_AWAY, .write = W_PUT, .to = FAILED,
     .result = STAYS, .fresh_for = ZERO},
    {"revoke: a lock leaves the record alone", .event = REVOKE, TAKEN_AWAY,
     .write = W_LEAVE, .fresh_for = LEAVE},

    /* ---- ClearResult and reading ---- */
    {"clear: no record", .event = CLEAR, .status = ABSENT,
     ANSWER(EG_NOTFOUND)},
    {"clear: what is over stays over", .event = CLEAR,
     .status = COMPLETED | RUNNING, .fresh = OVER, STAY_OVER},
    {"clear: a limited result went with its dead run", .event = CLEAR,
     .status = RUNNING, .held = NO, .fresh = LEFT, STAY_OVER, .to = RUNNING},
    {"clear: Idle stays", .event = CLEAR, .status = IDLE, FORGET_RESULT,
     .to = IDLE},
    {"clear: Running stays", .event = CLEAR, .status = RUNNING, FORGET_RESULT,
     .to = RUNNING},
    {"clear: Completed stays", .event = CLEAR, .status = COMPLETED,
     FORGET_RESULT, .to = COMPLETED},
    {"clear: TimedOut stays", .event = CLEAR, .status = TIMEDOUT,
     FORGET_RESULT, .to = TIMEDOUT},
    {"clear: Failed stays", .event = CLEAR, .status = FAILED, FORGET_RESULT,
     .to = FAILED},
    {"clear: the mark of a crash stays", .event = CLEAR, .status = CRASHED,
     FORGET_RESULT, .to = CRASHED},
    {"fetch: no record", .event = FETCH, .status = ABSENT,
     ANSWER(EG_NOTFOUND)},
    {"fetch: a record", .event = FETCH, ANSWER(EG_OK)},
};

const size_t transition_row_count = sizeof transition_rows /
                                    sizeof *transition_rows;
