/* SPDX-License-Identifier: MIT
** The pages of a database that SQLite cannot read any more, and the records in
** them.
*/
#ifndef EG_STORE_FILE_PAGES_H
#define EG_STORE_FILE_PAGES_H

#include "store/store.h"

enum { EGI_COLUMNS = 16 };

typedef enum egi_column_type {
  EGI_COLUMN_NULL,
  EGI_COLUMN_NUMBER,
  EGI_COLUMN_REAL,
  EGI_COLUMN_TEXT,
  EGI_COLUMN_BLOB
} egi_column_type;

typedef struct egi_column {
  egi_column_type type;
  int64_t number;
  eg_bytes bytes; /* of the page, or of an assembled payload */
} egi_column;

/* A record: of an index (a table without rowid is one), or of a table. */
typedef struct egi_cell {
  bool of_index;
  int64_t rowid;
  unsigned columns; /* that the record says it has */
  unsigned whole;   /* of these, from the first on, all bytes are there */
  egi_column column[EGI_COLUMNS];
} egi_cell;

typedef void (*egi_cell_fn)(void *ctx, const egi_cell *cell);

/* egi_pages_visit: visits the records of all pages that look like such, with
** what the log holds of them, but for free pages; log -1: there is none.  A
** record may be visited in more than one version. */
eg_status egi_pages_visit(int db, int log, const eg_env *env,
                          egi_cell_fn visit, void *ctx, eg_error *error);

#endif
