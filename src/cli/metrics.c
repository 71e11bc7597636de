/* SPDX-License-Identifier: MIT
** eguard metrics: the records in numbers, for Prometheus.
*/
#include "cli/cli.h"

static bool print(void *ctx, const void *data, size_t n) {
  (void)ctx;
  return fwrite(data, 1, n, stdout) == n;
}

int ec_metrics(ec_options *options) {
  int exit_status;
  eg_error error = {0};
  size_t top = options->top >= 0 ? (size_t)options->top : EG_METRICS_TOP;
  eg_guard *guard = ec_open(options, &exit_status);
  if (guard == NULL)
    return exit_status;
  eg_status status = eg_write_metrics(
      guard, top,
      options->openmetrics ? EG_METRICS_OPENMETRICS : EG_METRICS_TEXT, print,
      NULL, &error);
  eg_close(guard);
  if (status == EG_OK || status == EG_CANCELED) /* nobody reads us */
    return 0;
  return ec_failed("metrics", status, &error);
}
