/* SPDX-License-Identifier: MIT
** Stopping, as ^Z wants it: between two steps of the store, since a process
** that is stopped in the midst of one keeps all others from theirs.
*/
#include "cli/cli.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "executionguard_host.h"

static void on_stop(int signal_number);

/* Stopped by the signal itself, if it does that: a process whose shell is gone
** is not, then.  Any thread may be the one that does it. */
static void stop(int signal_number) {
  struct sigaction was, fatal = {.sa_handler = SIG_DFL};
  sigset_t one, mask;
  bool stops = sigaction(signal_number, NULL, &was) == 0 &&
               (was.sa_handler == SIG_DFL || was.sa_handler == on_stop);
  if (!stops) {
    raise(SIGSTOP);
    return;
  }
  sigemptyset(&one);
  sigaddset(&one, signal_number);
  sigaction(signal_number, &fatal, NULL);
  raise(signal_number); /* waits until it is let in */
  pthread_sigmask(SIG_UNBLOCK, &one, &mask);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  sigaction(signal_number, &was, NULL);
}

static void on_stop(int signal_number) {
  int kept = errno;
  eg_between_steps(stop, signal_number);
  errno = kept;
}

void ec_stop_as(int signal_number) { eg_between_steps(stop, signal_number); }

void ec_stop_between_steps(void) {
  struct sigaction was, ours = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
  eg_count_steps();
  if (sigaction(SIGTSTP, &ours, &was) == 0 && was.sa_handler == SIG_IGN)
    sigaction(SIGTSTP, &was, NULL);
}
