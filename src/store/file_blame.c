/* SPDX-License-Identifier: MIT
** Who keeps us from a file or a mutex, for messages: a process that was
** stopped (SIGSTOP, ^Z) in the midst of a step has to be found by a person.
**
** The kernel's list of locks names processes, a mutex the thread that has it.
** Processes of another pid namespace have no number here, or that of somebody
** else: a process is not believed to have a mutex if it is seen not to have
** the side file mapped.
*/
#include "store/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct suspect {
  long pid;
  char name[32];
  char state; /* as in /proc: T and t are stopped ones */
} suspect;

/* Of a process, or of one of its threads. */
static bool find(long id, suspect *s) {
  char path[40], line[128];
  snprintf(path, sizeof path, "/proc/%ld/status", id);
  FILE *file = fopen(path, "re");
  if (file == NULL)
    return false;
  *s = (suspect){0};
  while (s->pid == 0 && fgets(line, sizeof line, file) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    if (sscanf(line, "State: %c", &s->state) != 1 &&
        sscanf(line, "Tgid: %ld", &s->pid) != 1 && s->name[0] == '\0')
      sscanf(line, "Name: %31[^\n]", s->name);
  }
  fclose(file);
  return s->pid > 0;
}

static void describe(const suspect *s, char text[EGI_BLAME]) {
  int n = snprintf(text, EGI_BLAME, "process %ld (%s) has it", s->pid,
                   s->name);
  if ((s->state == 'T' || s->state == 't') && n > 0 && n < EGI_BLAME)
    snprintf(text + n, EGI_BLAME - (size_t)n,
             ", and is stopped: kill -CONT %ld lets it go on", s->pid);
}

/* --------------------------------------------------------------- mutexes */

/* False only if it is seen. */
static bool may_have_mapped(long pid) {
  char path[40], line[512];
  bool found = false, any = false;
  snprintf(path, sizeof path, "/proc/%ld/maps", pid);
  FILE *file = fopen(path, "re");
  if (file == NULL)
    return true;
  while (!found && fgets(line, sizeof line, file) != NULL) {
    any = true;
    found = strstr(line, "/guard.shm") != NULL;
  }
  fclose(file);
  return found || !any;
}

void egi_blame_mutex(const pthread_mutex_t *mutex, char text[EGI_BLAME]) {
  suspect s;
  long thread = 0;
#ifdef __GLIBC__ /* and the kernel, which has to know it of robust ones */
  enum { FUTEX_TID = 0x3fffffff };
  thread = *(const volatile int *)&mutex->__data.__lock & FUTEX_TID;
#else
  (void)mutex;
#endif
  if (thread > 0 && find(thread, &s) && may_have_mapped(s.pid))
    describe(&s, text);
  else
    snprintf(text, EGI_BLAME, "a process that was stopped has it");
}

/* ----------------------------------------------------------------- files */

/* 12: POSIX  ADVISORY  WRITE 4711 08:01:1234 120 120
** The device is not compared: on some file systems it is another one there
** than stat says.  Who waits ("->") is not meant, nor are we. */
static long writer_of(const char *line, const char *kind, uint64_t inode) {
  char how[8];
  long pid;
  uint64_t number;
  if (sscanf(line, "%*d: %7s %*s WRITE %ld %*x:%*x:%" SCNu64, how, &pid,
             &number) != 3 ||
      strcmp(how, kind) != 0 || number != inode || pid == (long)getpid())
    return 0;
  return pid;
}

bool egi_blame_file(int dir, const char *name, const char *kind,
                    char text[EGI_BLAME]) {
  struct stat st;
  suspect s;
  char line[256];
  long pid = 0;
  if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
    return false;
  FILE *locks = fopen("/proc/locks", "re");
  if (locks == NULL)
    return false;
  while (pid <= 0 && fgets(line, sizeof line, locks) != NULL)
    pid = writer_of(line, kind, (uint64_t)st.st_ino);
  fclose(locks);
  if (pid <= 0 || !find(pid, &s))
    return false;
  describe(&s, text);
  return true;
}
