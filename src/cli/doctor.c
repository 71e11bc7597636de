/* SPDX-License-Identifier: MIT
** eguard doctor: checks the store and the machine, and says what to do.
**
** It opens nothing of the database itself: closing a descriptor of it would
** drop SQLite's locks.  What it tries out, it tries on a file of its own.
*/
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

typedef enum verdict { GOOD, WORTH_A_LOOK, BAD } verdict;

typedef struct doctor {
  const ec_options *options;
  const char *url;
  char dir[4100]; /* of a file store; else empty */
  eg_guard *guard;
  ec_json json;
  int worst;
} doctor;

static void report(doctor *d, const char *what, verdict v, const char *detail,
                   const char *advice) {
  static const char *const words[] = {"ok", "note", "bad"};
  static const eg_run colours[] = {EG_RUN_COMPLETED, EG_RUN_TIMEDOUT,
                                   EG_RUN_FAILED};
  if ((int)v > d->worst)
    d->worst = (int)v;
  if (!d->options->json) {
    const char *colour = ec_colour_of(colours[v]);
    printf("%s%-4s%s  %-11s %s\n", colour, words[v],
           *colour != '\0' ? ec_colour_end() : "", what, detail);
    if (*advice != '\0')
      printf("      %-11s -> %s\n", "", advice);
    return;
  }
  ec_json_open(&d->json, NULL, '{');
  ec_json_text(&d->json, "check", what);
  ec_json_text(&d->json, "verdict", words[v]);
  ec_json_text(&d->json, "detail", detail);
  ec_json_text(&d->json, "advice", advice);
  ec_json_close(&d->json, '}');
}

/* ------------------------------------------------------------ the store -- */

static void check_open(doctor *d) {
  eg_error error = {0};
  eg_options how = {.store = d->url, .name = d->options->name};
  eg_status status = eg_open(&how, &d->guard, &error);
  char shown[4200];
  if (ec_public_url(d->url, shown, sizeof shown) == NULL)
    strcpy(shown, "(its URL is too long)");
  if (status == EG_OK)
    report(d, "store", GOOD, shown, "");
  else
    report(d, "store", BAD, error.message,
           "mend what the message names; --store=URL names another store");
}

typedef struct findings {
  uint64_t total, running, crashed, corrupt;
  int64_t newest_us;
  char example[100], corrupt_one[100];
} findings;

static bool look(void *ctx, const eg_record *record) {
  findings *f = ctx;
  f->running += record->locked;
  f->total += !record->only_locked;
  if (record->crashed && f->crashed++ == 0)
    eg_printable(record->key, f->example, sizeof f->example);
  if (record->corrupt && f->corrupt++ == 0)
    eg_printable(record->key, f->corrupt_one, sizeof f->corrupt_one);
  int64_t latest = record->last_us > record->start_us ? record->last_us
                                                      : record->start_us;
  if (latest > f->newest_us)
    f->newest_us = latest;
  return true;
}

static void report_left_overs(doctor *d, const findings *f) {
  char text[300];
  if (f->corrupt > 0) {
    snprintf(text, sizeof text,
             "the records of %" PRIu64 " keys cannot be read, for example of "
             "%s",
             f->corrupt, f->corrupt_one);
    report(d, "left-overs", WORTH_A_LOOK, text,
           "nothing runs under them: look whether their work was done, then "
           "eguard reset KEY");
  }
  if (f->crashed > 0) {
    snprintf(text, sizeof text,
             "the owners of %" PRIu64 " runs died, for example of %s",
             f->crashed, f->example);
    report(d, "left-overs", WORTH_A_LOOK, text,
           "they run again when asked; eguard show KEY tells more, eguard "
           "reset KEY forgets it");
  }
}

static void check_records(doctor *d, findings *f) {
  char text[300];
  eg_error error = {0};
  memset(f, 0, sizeof *f);
  eg_status status = eg_scan_held(d->guard, (eg_bytes){"", 0}, look, f,
                                  &error);
  if (status != EG_OK) {
    report(d, "records", BAD,
           error.message[0] != '\0' ? error.message : eg_status_text(status),
           strstr(error.message, "guard.shm") != NULL
               ? "mend what the message names"
               : "eguard doctor --rebuild recovers what can be read");
    return;
  }
  snprintf(text, sizeof text, "%" PRIu64 " record%s, %" PRIu64 " held now",
           f->total, f->total == 1 ? "" : "s", f->running);
  report(d, "records", GOOD, text, "");
  report_left_overs(d, f);
}

/* ---------------------------------------------------------- the machine -- */

static void check_clock(doctor *d, const findings *f) {
  char now[EC_DURATION_TEXT], newest[EC_DURATION_TEXT], text[200];
  int64_t wall = eg_wall_us();
  ec_format_rfc3339(wall, now);
  if (wall < INT64_C(1704067200) * 1000000) { /* 2024 */
    report(d, "clock", BAD, now, "the clock is wrong: set it, by NTP best");
  } else if (f->newest_us > wall + 60000000) {
    snprintf(text, sizeof text, "it is %s, and a record is of %s", now,
             ec_format_rfc3339(f->newest_us, newest));
    report(d, "clock", WORTH_A_LOOK, text,
           "the clock was set back; tokens rise all the same");
  } else {
    report(d, "clock", GOOD, now, "");
  }
}

static const char *file_system(const char *dir, verdict *v) {
  static const struct {
    long type;
    const char *name;
    verdict v;
  } known[] = {{0xef53, "ext", GOOD},
               {0x58465342, "xfs", GOOD},
               {0x9123683e, "btrfs", GOOD},
               {0x2fc12fc1, "zfs", GOOD},
               {0xf2f52010, "f2fs", GOOD},
               {0x01021994, "tmpfs", GOOD},
               {0x794c7630, "overlayfs", GOOD},
               {0x6969, "nfs", BAD},
               {0xff534d42, "cifs", BAD},
               {0xfe534d42, "smb2", BAD},
               {0x01021997, "9p", BAD},
               {0x65735546, "fuse", WORTH_A_LOOK},
               {0x4d44, "vfat", BAD}};
  struct statfs fs;
  *v = GOOD;
  if (statfs(dir, &fs) != 0)
    return "unknown";
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if ((unsigned long)known[i].type == (unsigned long)fs.f_type) {
      *v = known[i].v;
      return known[i].name;
    }
  return "another kind";
}

static void check_file_system(doctor *d) {
  verdict v;
  const char *name = file_system(d->dir, &v);
  report(d, "filesystem", v, name,
         v == GOOD ? ""
         : v == BAD
             ? "lock files and SQLite need a local file system: move the store"
             : "make sure that it is local, and that flock works on it");
  if (strcmp(name, "tmpfs") == 0)
    report(d, "filesystem", WORTH_A_LOOK, "tmpfs is gone with the next start",
           "move the store if records shall outlive that");
}

static void check_permissions(doctor *d) {
  struct stat st;
  char text[200];
  if (lstat(d->dir, &st) != 0) {
    report(d, "permissions", BAD, strerror(errno), "");
    return;
  }
  snprintf(text, sizeof text, "mode %04o, owner %ld",
           (unsigned)st.st_mode & 07777u, (long)st.st_uid);
  bool mine = st.st_uid == geteuid() || st.st_uid == 0;
  if (!S_ISDIR(st.st_mode) || (st.st_mode & S_IWOTH) != 0 ||
      (!mine && (st.st_mode & S_IWGRP) == 0))
    report(d, "permissions", BAD, text,
           "chmod 0700 the directory; it has to be yours, and no link");
  else if (access(d->dir, W_OK | X_OK) != 0)
    report(d, "permissions", BAD, strerror(errno),
           "this user may not write there");
  else
    report(d, "permissions", GOOD, text, "");
}

static void check_disk(doctor *d) {
  struct statvfs fs;
  char text[200];
  if (statvfs(d->dir, &fs) != 0)
    return;
  uint64_t mib = (uint64_t)fs.f_bavail * fs.f_frsize >> 20;
  bool inodes = fs.f_files == 0 || fs.f_favail > 100;
  snprintf(text, sizeof text, "%" PRIu64 " MiB free%s", mib,
           inodes ? "" : ", but no room for more files");
  if ((fs.f_flag & ST_RDONLY) != 0)
    report(d, "disk", BAD, "mounted read-only", "mount it writable");
  else if (mib < 16 || !inodes)
    report(d, "disk", mib < 1 || !inodes ? BAD : WORTH_A_LOOK, text,
           "make room: outcomes that cannot be written are not recorded");
  else
    report(d, "disk", GOOD, text, "");
}

/* --------------------------------------------------------------- flock -- */

/* In another process: can the file be locked?  0: yes. */
static int other_process_locks(const char *path) {
  pid_t child = fork();
  if (child == 0) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    _exit(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : 1);
  }
  int status = 1;
  if (child > 0)
    waitpid(child, &status, 0);
  return child > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}

static void check_flock(doctor *d) {
  char path[4200];
  static const char advice[] =
      "lock files do not exclude here: move the store to a local file system";
  snprintf(path, sizeof path, "%s/.doctor-%ld", d->dir, (long)getpid());
  int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) {
    report(d, "flock", BAD, strerror(errno), "files cannot be made there");
    return;
  }
  if (flock(fd, LOCK_EX | LOCK_NB) != 0)
    report(d, "flock", BAD, strerror(errno), advice);
  else if (other_process_locks(path) == 0)
    report(d, "flock", BAD, "two processes had the same lock", advice);
  else if (flock(fd, LOCK_UN) != 0 || other_process_locks(path) != 0)
    report(d, "flock", BAD, "a lock that was given back could not be had",
           advice);
  else
    report(d, "flock", GOOD, "excludes a second process, and lets go", "");
  unlink(path);
  close(fd);
}

/* ---------------------------------------------------------------- all -- */

static void check_all(doctor *d) {
  findings f = {0};
  ec_file_dir(d->url, d->dir, sizeof d->dir);
  check_open(d);
  if (d->guard != NULL)
    check_records(d, &f);
  check_clock(d, &f);
  if (*d->dir == '\0' || access(d->dir, F_OK) != 0)
    return;
  check_file_system(d);
  check_permissions(d);
  check_disk(d);
  check_flock(d);
}

int ec_doctor(ec_options *options) {
  doctor d = {.options = options, .url = ec_store_url(options)};
  if (d.url == NULL)
    return EC_FAILURE;
  if (options->rebuild)
    return ec_rebuild(options, d.url);
  if (options->json) {
    ec_json_begin(&d.json, stdout);
    ec_json_open(&d.json, NULL, '[');
  }
  check_all(&d);
  eg_close(d.guard);
  if (options->json) {
    ec_json_close(&d.json, ']');
    if (ec_json_end(&d.json) != 0)
      return EC_FAILURE;
  }
  return d.worst == BAD ? 1 : 0;
}
