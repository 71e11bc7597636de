/* SPDX-License-Identifier: MIT
** eguard release, reset: somebody else's grant is ended.
*/
#include "cli/cli.h"
int ec_release(ec_options *options) {
  (void)options;
  return 0;
}
int ec_reset(ec_options *options) {
  (void)options;
  return 0;
}
