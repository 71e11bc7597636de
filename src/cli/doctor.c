/* SPDX-License-Identifier: MIT
** eguard doctor: checks the store and the machine, and says what to do.
*/
#include "cli/cli.h"
int ec_doctor(ec_options *options) {
  (void)options;
  return 0;
}
