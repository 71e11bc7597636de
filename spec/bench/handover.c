/* SPDX-License-Identifier: MIT
** Two threads that hand a token over and back by a mutex and conditions:
** handover ROUNDS prints the nanoseconds of there and back.
*/
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned[2] = {PTHREAD_COND_INITIALIZER,
                                   PTHREAD_COND_INITIALIZER};
static int turn;

static void play(int side, long rounds) {
  pthread_mutex_lock(&mutex);
  for (long i = 0; i < rounds; i++) {
    while (turn != side)
      pthread_cond_wait(&turned[side], &mutex);
    turn = !side;
    pthread_cond_signal(&turned[!side]);
  }
  pthread_mutex_unlock(&mutex);
}

static void *other(void *rounds) {
  play(1, *(long *)rounds);
  return NULL;
}

int main(int argc, char **argv) {
  struct timespec start, end;
  pthread_t thread;
  long rounds = argc == 2 ? atol(argv[1]) : 0;
  if (rounds < 1)
    return fprintf(stderr, "usage: handover ROUNDS\n"), 1;
  if (pthread_create(&thread, NULL, other, &rounds) != 0)
    return fprintf(stderr, "handover: no thread\n"), 1;
  clock_gettime(CLOCK_MONOTONIC, &start);
  play(0, rounds);
  pthread_join(thread, NULL);
  clock_gettime(CLOCK_MONOTONIC, &end);
  printf("%.1f\n", ((double)(end.tv_sec - start.tv_sec) * 1e9 +
                    (double)(end.tv_nsec - start.tv_nsec)) /
                       (double)rounds);
  return 0;
}
