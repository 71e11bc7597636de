/* SPDX-License-Identifier: MIT
** What the tests of trouble share: a folder, a guard on it, and processes that
** can be killed.
*/
#ifndef SPEC_FAULTS_H
#define SPEC_FAULTS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "executionguard.h"

#include <cmocka.h>

typedef struct trouble {
  char folder[64]; /* of the store */
  char url[96];
  eg_guard *guard;
  eg_policy policy;
  eg_grant grant;
  eg_reply reply;
  eg_record record;
  eg_error error;
  void *shared; /* 64 KiB that children see too */
} trouble;

/* Set-up and tear-down of a test: *state is a trouble. */
int trouble_begin(void **state);
int trouble_end(void **state);

#define TROUBLE(test)                                                         \
  { #test, test, trouble_begin, trouble_end, NULL }

/* One more guard on the folder; NULL with t->error filled. */
eg_guard *trouble_open(trouble *t, const char *query);

eg_status trouble_ask(trouble *t, eg_guard *guard, const char *key,
                      eg_want want, int64_t wait_ms);
eg_status trouble_finish(trouble *t, eg_guard *guard, const char *key);
eg_status trouble_fetch(trouble *t, const char *key);

/* A child that runs body(t) with guards of its own, and exits with what it
** returns. */
pid_t trouble_child(trouble *t, int (*body)(trouble *t));

/* From now on the kernel answers that system call of this process, and of what
** it becomes, with that errno, 0: with success, and does nothing.  Where that
** is not to be had (in a container) the process exits with NO_FILTER. */
enum { TROUBLE_NO_FILTER = 97 };
void trouble_answer(long call, int err);

/* Exit status; 128 + signal. */
int trouble_wait(pid_t child);

/* A flag of the shared memory: raise it, await it (at most a minute). */
void trouble_raise(trouble *t, int flag);
int trouble_await(trouble *t, int flag);

/* Until the database says that the key runs: the keeper of who runs it writes
** that down after some milliseconds. */
void trouble_await_row(trouble *t, const char *key);

/* Runs a shell command; its exit status. */
int trouble_shell(trouble *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

int64_t trouble_now_us(void);
int trouble_scaled(int count);

#endif
