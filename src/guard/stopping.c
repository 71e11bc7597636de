/* SPDX-License-Identifier: MIT
** Stopping between steps, for who handles SIGTSTP.
*/
#include "executionguard_host.h"
#include "store/stop.h"

void eg_count_steps(void) { egi_stops_wait = true; }

void eg_between_steps(void (*call)(int), int value) {
  egi_stop_between(call, value);
}
