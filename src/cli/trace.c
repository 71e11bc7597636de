/* SPDX-License-Identifier: MIT
** eguard trace, and run --trace: a picture for Perfetto, of what the store
** remembers, or of one command as it ran.
*/
#include "cli/cli.h"

#include <errno.h>
#include <string.h>

#include "executionguard_view.h"

static bool print(void *ctx, const void *data, size_t n) {
  return fwrite(data, 1, n, ctx) == n;
}

/* "-" is standard output.  NULL: it cannot be written, which was said. */
static FILE *open_file(const char *path) {
  FILE *file = strcmp(path, "-") == 0 ? stdout : fopen(path, "we");
  if (file == NULL)
    ec_error("cannot write %s: %s", path, strerror(errno));
  return file;
}

static bool close_file(const char *path, FILE *file) {
  if (file == stdout)
    return true; /* main looks at it */
  bool well = ferror(file) == 0;
  well = fclose(file) == 0 && well;
  if (!well)
    ec_error("cannot write %s: %s", path, strerror(errno));
  return well;
}

int ec_trace(ec_options *options) {
  const char *path = options->operands[0];
  int exit_status;
  eg_error error = {0};
  eg_bytes key = {"", 0};
  int64_t since_us = 0;
  size_t n = options->limit >= 0 ? (size_t)options->limit : SIZE_MAX;
  if (options->operand_count > 1)
    key = eg_str(options->operands[1]);
  if (!ec_since(options, &since_us))
    return EC_USAGE;
  eg_guard *guard = ec_open(options, &exit_status);
  if (guard == NULL)
    return exit_status;
  FILE *file = open_file(path);
  eg_status status = EG_OK;
  if (file != NULL) {
    status = eg_write_past(guard, key, n, since_us, print, file, &error);
    exit_status = close_file(path, file) ? 0 : EC_FAILURE;
  } else {
    exit_status = EC_FAILURE;
  }
  eg_close(guard);
  if (status != EG_OK && status != EG_CANCELED)
    return ec_failed("trace", status, &error);
  if (exit_status == 0)
    ec_detail("open %s in ui.perfetto.dev or chrome://tracing", path);
  return exit_status;
}

bool ec_trace_begin(const ec_options *options) {
  eg_error error;
  if (options->trace == NULL || eg_trace_start(0, &error) == EG_OK)
    return true;
  ec_error("--trace: %s", error.message);
  return false;
}

/* The command has run: what becomes of its picture changes nothing of that. */
void ec_trace_end(const ec_options *options) {
  eg_error error = {0};
  if (options->trace == NULL)
    return;
  FILE *file = open_file(options->trace);
  if (eg_trace_stop(file != NULL ? print : NULL, file, NULL, &error) ==
      EG_NOMEM)
    ec_error("--trace: %s", error.message);
  if (file != NULL)
    close_file(options->trace, file);
}
