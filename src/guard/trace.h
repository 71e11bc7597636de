/* SPDX-License-Identifier: MIT
** Traces: what happened, noted in a ring while somebody wants that (trace.c),
** and put down as Chrome trace events (trace_rows.c, trace_text.c).
**
** MUTEX.  One guards the ring.  It is the last of all: it may be taken with
** any other held, and nothing is called with it.  While nothing is recorded
** it is not taken: who has something to note looks at egi_tracing first.
*/
#ifndef EG_GUARD_TRACE_H
#define EG_GUARD_TRACE_H

#include "guard/guard.h"

typedef enum egi_trace_kind {
  EGI_TRACE_RUN,    /* granted; its end has the same key */
  EGI_TRACE_LOCK,   /* the same */
  EGI_TRACE_END,    /* of a run: with its status */
  EGI_TRACE_FREED,  /* of a lock */
  EGI_TRACE_WAIT,   /* began to wait, as number `wait` */
  EGI_TRACE_WAITED, /* and ended: with its status */
  EGI_TRACE_HANDED, /* a lock, by this thread to one that waits for it */
  EGI_TRACE_RETRY,  /* another attempt, number `token` */
  EGI_TRACE_RESET,
  EGI_TRACE_TIMEOUT
} egi_trace_kind;

enum { EGI_TRACE_KEY = 88 };

typedef struct egi_note {
  int64_t at_us; /* steady */
  uint64_t token, wait;
  const void *space; /* whose key it is */
  uint32_t thread;
  uint8_t kind, status;
  uint16_t len; /* of the key; more than EGI_TRACE_KEY: cut */
  unsigned char key[EGI_TRACE_KEY];
} egi_note;

/* Something to be drawn: from start to end, or an instant. */
typedef struct egi_item {
  int64_t start_us, end_us; /* epoch */
  uint64_t token;
  uint32_t row;       /* thread or process */
  uint32_t lane;      /* of that row: items of a lane are within one another */
  uint8_t kind;       /* an egi_trace_kind: what began */
  uint8_t status;     /* how it ended */
  bool open, instant; /* has no end yet; is but a moment */
  bool cut;
  uint16_t len;
  unsigned char key[EGI_TRACE_KEY];
} egi_item;

/* A row of a picture. */
typedef struct egi_row {
  uint32_t process, thread;     /* as the picture numbers them */
  char owner[EG_OWNER_MAX + 1]; /* what the process is called */
  char name[32];                /* and the thread */
} egi_row;

typedef struct egi_picture {
  eg_env env;
  egi_item *items;
  size_t n, cap;
  egi_row *rows;
  size_t row_n, row_cap;
  uint64_t dropped;
  bool no_memory;
} egi_picture;

/* One more item; NULL: no memory.  It is the picture's. */
egi_item *egi_picture_add(egi_picture *picture);

/* The row with these numbers, made where it is not there. */
uint32_t egi_picture_row(egi_picture *picture, uint32_t process,
                         uint32_t thread);

/* Puts the items in order, and those that overlap into lanes.  False: no
** memory. */
bool egi_picture_settle(egi_picture *picture);

/* Writes it as JSON.  CANCELED: nobody wanted more. */
eg_status egi_picture_text(const egi_picture *picture, eg_write write,
                           void *ctx);
void egi_picture_free(egi_picture *picture);

/* What was noted, oldest first, as items.  False: no memory. */
bool egi_picture_notes(egi_picture *picture, const egi_note *notes, size_t n,
                       int64_t began_us, int64_t ended_us, int64_t offset_us);

#endif
