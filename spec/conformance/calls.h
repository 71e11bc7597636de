/* SPDX-License-Identifier: MIT
** Calls of a guard, as tests make them: in one line each.
*/
#ifndef SPEC_CALLS_H
#define SPEC_CALLS_H

#include "executionguard.h"

/* message: NULL, or room for that of a failure. */
eg_status ask_by(eg_guard *guard, const char *key, eg_want want,
                 const eg_policy *policy, int64_t wait_ms, eg_grant *grant,
                 char *message);
eg_status ask(eg_guard *guard, const char *key, eg_want want, int64_t wait_ms,
              eg_grant *grant);
eg_status lock(eg_guard *guard, const char *key);
eg_status unlock(eg_guard *guard, const char *key);
/* With the result 7. */
eg_status commit(eg_guard *guard, const char *key, eg_grant *grant);
/* count: NULL, or how often it was started. */
eg_run status_of(eg_guard *guard, const char *key, uint32_t *count);

#endif
