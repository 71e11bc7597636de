/* SPDX-License-Identifier: MIT
** Test vectors: records as hex text beside what they mean, one a file.
*/
#ifndef SPEC_VECTORS_H
#define SPEC_VECTORS_H

#include "core/record.h"

#define VECTORS_MAX 64

typedef struct vector {
  bool valid; /* else it must be refused */
  egi_record record;
  unsigned char bytes[512];
  size_t len;
  unsigned char value[256], tally[256];
  char error[256], trace[256];
} vector;

/* The files of spec/conformance/vectors below the source root, which is
** EXECUTIONGUARD_ROOT, or above the current folder, or where this was built.
** The caller frees each path. */
size_t vector_paths(char *paths[VECTORS_MAX]);

/* NULL, or why the file cannot be understood. */
const char *vector_read(const char *path, vector *v);

#endif
