/* SPDX-License-Identifier: MIT
** Who has a lock that another process has: what can be known, or guessed.
**
** A slot says it, unless its process is gone.  Somebody who shares the lock
** folder but not the side file (isolated commands and `eguard` do) has no slot
** there, but a line for people; flock(1) has neither.  The line is believed if
** the process that it names is there, on this host; else all that is known is
** since when the file is as it is.
*/
#include "store/file.h"
#include "store/holder.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct parsed {
  char host[64], text[EG_OWNER_MAX + 1];
} parsed;

/* Behind `"field":` in a line of ours; NULL. */
static const char *value_of(const char *line, const char *field) {
  char quoted[16];
  int n = snprintf(quoted, sizeof quoted, "\"%s\":", field);
  const char *at = strstr(line, quoted);
  return at != NULL ? at + n : NULL;
}

/* A string as egi_lock_line has escaped it; false: there is none. */
static bool read_string(const char *at, char *out, size_t room) {
  size_t n = 0;
  if (at == NULL || *at++ != '"')
    return false;
  for (; *at != '"' && *at != '\0'; at++) {
    char c = *at;
    if (c == '\\' && at[1] == 'u') {
      char hex[5] = {0};
      strncpy(hex, at + 2, 4);
      c = (char)strtoul(hex, NULL, 16);
      at += 1 + strlen(hex);
    } else if (c == '\\' && at[1] != '\0') {
      c = *++at;
    }
    if (n + 1 < room)
      out[n++] = c;
  }
  out[n] = '\0';
  return *at == '"';
}

/* 2026-01-01T00:00:00.000Z as microseconds since the epoch; 0: it is not. */
static int64_t read_time(const char *at) {
  char text[40];
  struct tm tm = {0};
  unsigned ms;
  if (!read_string(at, text, sizeof text))
    return 0;
  const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
  if (rest == NULL || sscanf(rest, ".%3uZ", &ms) != 1)
    return 0;
  return (int64_t)timegm(&tm) * 1000000 + (int64_t)ms * 1000;
}

static bool is_there(const egi_holder *holder) {
  char host[64] = "";
  gethostname(host, sizeof host - 1);
  if (holder->pid <= 0 || holder->host.len != strlen(host) ||
      memcmp(holder->host.data, host, holder->host.len) != 0)
    return false;
  return kill((pid_t)holder->pid, 0) == 0 || errno == EPERM;
}

static bool parse(const char *line, parsed *p, egi_holder *holder) {
  const char *pid = value_of(line, "pid");
  if (line[0] != '{' || pid == NULL ||
      !read_string(value_of(line, "host"), p->host, sizeof p->host) ||
      !read_string(value_of(line, "owner"), p->text, sizeof p->text))
    return false;
  holder->pid = strtol(pid, NULL, 10);
  holder->since_us = read_time(value_of(line, "since"));
  holder->host = (eg_bytes){p->host, strlen(p->host)};
  holder->text = (eg_bytes){p->text, strlen(p->text)};
  return holder->since_us > 0 && is_there(holder);
}

/* Is nothing the matter with what the slot says? */
static bool slot_is_right(const egi_at *at) {
  return at->holder.len > 0 &&
         (kill((pid_t)at->slot->pid, 0) == 0 || errno == EPERM);
}

eg_bytes egi_lock_holder(const egi_at *at, unsigned char *room) {
  char name[EGI_NAME_ROOM], line[EGI_LINE_MAX + 1];
  struct stat st = {0};
  parsed p;
  egi_holder holder = {.host = {"", 0}, .text = {"", 0}};
  if (slot_is_right(at))
    return at->holder;
  egi_file_name(at->name, at->key, name);
  int fd = openat(at->dir->locks_fd, name,
                  O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0)
    return at->holder;
  ssize_t n = pread(fd, line, EGI_LINE_MAX, 0);
  bool timed = fstat(fd, &st) == 0;
  close(fd);
  line[n > 0 ? n : 0] = '\0';
  if (parse(line, &p, &holder))
    return egi_holder_write(&holder, room);
  if (at->holder.len > 0 || !timed)
    return at->holder;
  holder = (egi_holder){.since_us = (int64_t)st.st_mtim.tv_sec * 1000000 +
                                    st.st_mtim.tv_nsec / 1000,
                        .host = {"", 0},
                        .text = {"", 0}};
  return egi_holder_write(&holder, room);
}
