/* SPDX-License-Identifier: MIT
** The meaning of the guard: what each event does to a record and its grant.
**
**   decide(head, sight, event, policy) -> outcome, effect, left
**   rewrite(record, sight, event, effect) -> record'
**
** Both are pure.  The first needs only the head of the record, so that the
** common answers cost no decoding; the second is asked only where the effect
** says PUT.
*/
#ifndef EG_CORE_TRANSITION_H
#define EG_CORE_TRANSITION_H

#include "core/record.h"

/*
** What the store sees beside the bytes, by its own evidence.  All times left
** are those of the store's clock, and known only where `clocked`.
*/
typedef struct egi_sight {
  uint64_t token;   /* of the key's latest grant, over or not; 0: none yet */
  bool held;        /* that grant still holds.  Where a lease is set and the
                     clock was not read: as if it still ran */
  bool timed;       /* a lease, notBefore, fresh or life is set */
  bool clocked;     /* the clock was read: the times below are right */
  int64_t now_us;   /* store's clock; only differences count */
  int64_t stamp_us; /* epoch: when the bytes were last put; 0: forgotten */
  int64_t left_us;  /* of the lease; -1: no lease */
  int64_t not_before_left_us; /* 0: none, or over */
  int64_t fresh_left_us;      /* -1: no limit; 0: over */
  unsigned progress; /* thousandths that the holder has reported, and 1; 0: it
                        has reported none */
} egi_sight;

typedef enum egi_event_type {
  EGI_ACQUIRE_RUN,
  EGI_ACQUIRE_LOCK,
  EGI_JOIN,    /* what came of the run with this token? */
  EGI_COMMIT,  /* the run with this token ended: done, failed or timed out */
  EGI_RELEASE, /* the lock with this token ends */
  EGI_RESET,
  EGI_REVOKE, /* the grant with this token is taken from its holder */
  EGI_CLEAR,  /* forget the result */
  EGI_FETCH   /* read, and no more */
} egi_event_type;

typedef struct egi_event {
  egi_event_type type;
  uint64_t token;      /* JOIN, COMMIT, RELEASE (0: whichever is mine) */
  bool mine;           /* RELEASE: the holder line is the caller's */
  eg_outcome outcome;  /* COMMIT; REVOKE: the error says who, and why */
  int64_t duration_us; /* COMMIT */
} egi_event;

/* What a swap does with the bytes, and with the exclusion. */
typedef enum egi_write { EGI_LEAVE, EGI_FORGET, EGI_PUT } egi_write;
typedef enum egi_hold { EGI_KEEP, EGI_TAKE, EGI_DROP, EGI_BREAK } egi_hold;

#define EGI_LEAVE_TIME (-1) /* leave notBefore, fresh or life as it is */

typedef enum egi_verdict {
  EGI_NONE, /* nothing is written: the outcome is the answer */
  EGI_SWAP, /* the effect is to be written; then the outcome is the answer */
  EGI_NOW,  /* the clock is needed and was not read: ask again with it */
  EGI_GROW  /* (of the guard) the buffer is too small: ask again with more */
} egi_verdict;

/* What is to become of the key.  Durations count from the swap; 0 is none. */
typedef struct egi_effect {
  egi_write write;
  egi_hold hold;
  bool names_token; /* only if the grant with the event's token holds */
  bool wake;        /* tell waiters */
  bool new_result;  /* the event's result takes the place of the kept one */
  egi_head head;    /* of the new record, where write is PUT */
  int64_t not_before_ms, fresh_ms;
  int64_t lease_ms, life_ms; /* 0: until dropped; for ever */
} egi_effect;

/*
** Decides.  *outcome and *left_us (how long a COOLDOWN or FAILED still lasts;
** else -1) are set for NONE and SWAP; *effect is set for SWAP.
*/
egi_verdict egi_decide(const egi_head *head, const egi_sight *sight,
                       const egi_event *event, const eg_policy *policy,
                       egi_effect *effect, eg_status *outcome,
                       int64_t *left_us);

/* The record that the effect of a decision leaves.  Borrows from both the
** record and the event. */
void egi_rewrite(const egi_record *record, const egi_sight *sight,
                 const egi_event *event, const egi_effect *effect,
                 egi_record *after);

/* The record as a reader sees it: owner gone, result over.  Returns whether
** that differs from what is written. */
bool egi_reading(egi_record *record, const egi_sight *sight);

/* The error of a run whose owner is gone. */
extern const char egi_owner_died[];

#endif
