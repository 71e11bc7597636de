/* SPDX-License-Identifier: MIT
** A condition whose timed waits are by the steady clock.
*/
#include "store/store.h"

#include <time.h>

int egi_steady_cond(pthread_cond_t *cond) {
  pthread_condattr_t attr;
  int rc = pthread_condattr_init(&attr);
  if (rc != 0)
    return rc;
  rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  if (rc == 0)
    rc = pthread_cond_init(cond, &attr);
  pthread_condattr_destroy(&attr);
  return rc;
}
