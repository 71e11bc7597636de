/* SPDX-License-Identifier: MIT
** Any bytes as a database that SQLite cannot read, and as its log: what is
** found in them lies in them.
*/
#include <assert.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "guard/guard.h"
#include "store/file_pages.h"

static unsigned sum; /* so that every byte is looked at */

static void look(void *ctx, const egi_cell *cell) {
  (void)ctx;
  assert(cell->whole <= cell->columns || cell->columns > EGI_COLUMNS);
  for (unsigned i = 0; i < cell->whole && i < EGI_COLUMNS; i++) {
    const egi_column *column = &cell->column[i];
    const unsigned char *at = column->bytes.data;
    if (column->type == EGI_COLUMN_TEXT || column->type == EGI_COLUMN_BLOB)
      for (size_t k = 0; k < column->bytes.len; k++)
        sum += at[k];
  }
}

static int file_of(const uint8_t *data, size_t size) {
  int fd = memfd_create("fuzz", MFD_CLOEXEC);
  assert(fd >= 0 && write(fd, data, size) == (ssize_t)size);
  return fd;
}

/* Two bytes say where the log begins. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  eg_env env = {0};
  eg_error error;
  if (size < 2)
    return 0;
  size_t at = 2 + (((size_t)data[0] << 8 | data[1]) % (size - 1));
  int db = file_of(data + 2, at - 2);
  int log = at < size ? file_of(data + at, size - at) : -1;
  egi_env_complete(&env);
  egi_pages_visit(db, log, &env, look, NULL, &error);
  close(db);
  if (log >= 0)
    close(log);
  return 0;
}
