/* SPDX-License-Identifier: MIT
** eguard serve, in the program that has no web server: the one that has it is
** beside this one's libraries.
*/
#include "cli/cli.h"

int ec_serve_here(ec_options *options) __attribute__((weak));

int ec_serve(ec_options *options) {
  if (ec_serve_here != NULL)
    return ec_serve_here(options);
  ec_become("eguard-serve");
  ec_error("this eguard was built without libmicrohttpd, which serve needs");
  return EC_FAILURE;
}
