/* SPDX-License-Identifier: MIT
** The folder and the files in it: made where they are missing, opened without
** following a link, and checked on the descriptor.
**
** Checked are DIR and what is in it, not its parents: a link, a stranger's
** ownership, or permission for others to write is refused, and so is a file
** system on which flock is not what it is on local ones.
*/
#include "store/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

/* ------------------------------------------------------------- checks -- */

/* Is this user in that group? */
static bool in_group(gid_t gid) {
  gid_t groups[256];
  if (getegid() == gid)
    return true;
  int n = getgroups(256, groups);
  for (int i = 0; i < n; i++)
    if (groups[i] == gid)
      return true;
  return false;
}

static bool owner_is_fine(const struct stat *st,
                          const egi_file_options *options) {
  if (st->st_uid == geteuid() || st->st_uid == 0)
    return true;
  return (options->mode & 0070) == 0070 && in_group(st->st_gid);
}

eg_status egi_file_check(int dir, const char *name, const struct stat *st,
                         bool folder, const egi_file_options *options,
                         eg_error *error) {
  char text[EGI_NAMED];
  unsigned others = (unsigned)st->st_mode & 0022;
  if ((options->mode & 0020) != 0)
    others &= 0002;
  if (folder ? !S_ISDIR(st->st_mode) : !S_ISREG(st->st_mode))
    return egi_file_fail(error, EG_DENIED, 0,
                         "%s is not a %s; remove it, or name another folder",
                         egi_file_named(dir, name, text),
                         folder ? "folder" : "regular file");
  if (!owner_is_fine(st, options))
    return egi_file_fail(error, EG_DENIED, 0,
                         "%s belongs to user %lu, this is user %lu: chown it, "
                         "use a folder of your own, or share it by "
                         "?mode=0770 with a group that both are in",
                         egi_file_named(dir, name, text),
                         (unsigned long)st->st_uid, (unsigned long)geteuid());
  if (others != 0)
    return egi_file_fail(error, EG_DENIED, 0,
                         "%s may be written by %s: chmod %s it%s",
                         egi_file_named(dir, name, text),
                         others & 0002 ? "everybody" : "its group",
                         others & 0002 ? "o-w" : "g-w",
                         others & 0002 ? "" : ", or share it by ?mode=0770");
  return EG_OK;
}

/* File systems of other machines. */
static const struct {
  unsigned long type;
  const char *name;
} remote[] = {
    {0x6969, "NFS"},      {0x517B, "SMB"},       {0xFF534D42, "CIFS"},
    {0xFE534D42, "SMB2"}, {0x01021997, "9p"},    {0x5346414F, "AFS"},
    {0x6B414653, "AFS"},  {0x00C36400, "Ceph"},  {0x0BD00BD0, "Lustre"},
    {0x73757245, "Coda"}, {0x01161970, "GFS2"},  {0x7461636F, "OCFS2"},
    {0x47504653, "GPFS"}, {0x19830326, "BeeGFS"}};

/* 22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw.  What a chroot is on
** is not listed there: then by its number. */
void egi_file_system(int fd, char name[EGI_SYSTEM_NAME]) {
  struct stat st;
  struct statfs fs;
  char line[1024], type[EGI_SYSTEM_NAME] = "";
  unsigned major, minor;
  if (fstatfs(fd, &fs) == 0)
    snprintf(name, EGI_SYSTEM_NAME, "file system 0x%lx",
             (unsigned long)fs.f_type & 0xFFFFFFFFUL);
  else
    snprintf(name, EGI_SYSTEM_NAME, "the file system");
  FILE *mounts = fopen("/proc/self/mountinfo", "re");
  if (mounts == NULL)
    return;
  while (fstat(fd, &st) == 0 && *type == '\0' &&
         fgets(line, sizeof line, mounts) != NULL) {
    const char *rest = strstr(line, " - ");
    if (rest != NULL && sscanf(line, "%*d %*d %u:%u", &major, &minor) == 2 &&
        makedev(major, minor) == st.st_dev)
      sscanf(rest, " - %31s", type);
  }
  fclose(mounts);
  if (*type != '\0')
    snprintf(name, EGI_SYSTEM_NAME, "%s", type);
}

static eg_status check_system(int fd, const char *path, eg_error *error) {
  struct statfs fs;
  if (fstatfs(fd, &fs) != 0)
    return egi_file_fail(error, EG_UNAVAILABLE, errno,
                         "cannot ask what file system %s is on: %s", path,
                         strerror(errno));
  for (size_t i = 0; i < sizeof remote / sizeof *remote; i++)
    if (((unsigned long)fs.f_type & 0xFFFFFFFFUL) == remote[i].type)
      return egi_file_fail(error, EG_UNSUPPORTED, 0,
                           "%s is on %s, where locks and SQLite's files "
                           "cannot be trusted: use a folder on a local disk",
                           path, remote[i].name);
  return EG_OK;
}

static eg_status cannot_open(int dir, const char *name, int err,
                             eg_error *error) {
  char text[EGI_NAMED];
  eg_status status = err == ENOMEM ? EG_NOMEM
                     : err == EACCES || err == EPERM || err == EROFS ||
                             err == ELOOP || err == ENOTDIR
                         ? EG_DENIED
                         : EG_UNAVAILABLE;
  const char *hint = "";
  if (err == ELOOP || err == ENOTDIR)
    hint = " (a symbolic link, or no folder: name the real one)";
  else if (err == EMFILE || err == ENFILE)
    hint = " (raise the limit of open files: ulimit -n)";
  return egi_file_fail(error, status, err, "cannot open %s: %s%s",
                       egi_file_named(dir, name, text), strerror(err), hint);
}

/* -------------------------------------------------------------- files -- */

static int open_retried(int dir, const char *name, int flags, mode_t mode) {
  int fd;
  do
    fd = openat(dir, name, flags, mode);
  while (fd < 0 && errno == EINTR);
  return fd;
}

eg_status egi_file_open_bare(int dir, const char *name, int flags,
                             const egi_file_options *options, int *fd,
                             eg_error *error) {
  mode_t mode = options->mode & 0660;
  flags |= O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  bool for_group = (mode & 0060) != 0 && (flags & O_CREAT) != 0;
  int first = for_group ? flags & ~(O_CREAT | O_EXCL) : flags;
  int opened = open_retried(dir, name, first, mode);
  if (for_group && opened < 0 && errno == ENOENT) {
    opened = open_retried(dir, name, flags, mode);
    if (opened >= 0) /* whatever the umask says */
      fchmod(opened, mode);
  }
  if (opened < 0)
    return cannot_open(dir, name, errno, error);
  *fd = opened;
  return EG_OK;
}

eg_status egi_file_open(int dir, const char *name, int flags,
                        const egi_file_options *options, int *fd,
                        eg_error *error) {
  struct stat st;
  eg_status status = egi_file_open_bare(dir, name, flags, options, fd, error);
  if (status != EG_OK)
    return status;
  if (fstat(*fd, &st) != 0)
    status = cannot_open(dir, name, errno, error);
  else
    status = egi_file_check(dir, name, &st, false, options, error);
  if (status != EG_OK)
    close(*fd);
  return status;
}

/* ------------------------------------------------------------ folders -- */

/* A folder that a group shares hands its group on to what is made in it, by
** whomever: SQLite's files too, and of users whose own group is another. */
static eg_status hand_on_group(int fd, const struct stat *st,
                               const egi_file_options *options,
                               eg_error *error) {
  char text[EGI_NAMED];
  bool ours = st->st_uid == geteuid() || geteuid() == 0;
  if ((options->mode & 0070) == 0 || (st->st_mode & S_ISGID) != 0)
    return EG_OK;
  if (ours && fchmod(fd, (st->st_mode & 07777) | S_ISGID) == 0)
    return EG_OK;
  if (st->st_gid == getegid())
    return EG_OK;
  return egi_file_fail(error, EG_DENIED, 0,
                       "%s is shared by a group, and what this user makes in "
                       "it would be of another: its owner may chmod g+s it",
                       egi_file_named(fd, ".", text));
}

static eg_status open_folder(int dir, const char *name,
                             const egi_file_options *options, int *fd,
                             eg_error *error) {
  struct stat st;
  int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  int opened = open_retried(dir, name, flags, 0);
  if (opened < 0)
    return cannot_open(dir, name, errno, error);
  eg_status status = EG_OK;
  if (fstat(opened, &st) != 0)
    status = cannot_open(dir, name, errno, error);
  else
    status = egi_file_check(dir, name, &st, true, options, error);
  if (status == EG_OK)
    status = hand_on_group(opened, &st, options, error);
  if (status != EG_OK)
    close(opened);
  else
    *fd = opened;
  return status;
}

/* Its mode is what was asked for, whatever the umask says.  0, also where it
** is there already; else an errno. */
static int make_folder(int dir, const char *name, unsigned mode) {
  if (mkdirat(dir, name, mode) == 0) {
    fchmodat(dir, name, mode, 0);
    return 0;
  }
  return errno == EEXIST ? 0 : errno;
}

eg_status egi_file_subfolder(int dir, const char *name,
                             const egi_file_options *options, int *fd,
                             eg_error *error) {
  int err = make_folder(dir, name, options->mode);
  if (err != 0)
    return cannot_open(dir, name, err, error);
  return open_folder(dir, name, options, fd, error);
}

void egi_file_close_fd(int fd) { close(fd); }

/* The parents of a path, and then itself.  What cannot be made need not be
** missing, and is to blame only if the path turns out to be: then part is what
** could not be made. */
static int make_all(const char *path, unsigned mode, char part[PATH_MAX]) {
  int refused = 0;
  size_t len = strlen(path), at = 0;
  for (size_t i = 1; i < len; i++) {
    if (path[i] != '/')
      continue;
    memcpy(part, path, i);
    part[i] = '\0';
    int err = make_folder(AT_FDCWD, part, 0700);
    if (err != 0 && err != EROFS && err != EACCES && refused == 0)
      return err;
    if (err != 0 && refused == 0) {
      refused = err;
      at = i;
    }
  }
  int err = make_folder(AT_FDCWD, path, mode);
  if (err != ENOENT || refused == 0)
    at = len;
  else
    err = refused;
  memcpy(part, path, at);
  part[at] = '\0';
  return err;
}

eg_status egi_file_folder(const char *path, const egi_file_options *options,
                          int *fd, char *absolute, bool *made,
                          eg_error *error) {
  char trimmed[PATH_MAX];
  size_t len = strlen(path);
  if (len >= sizeof trimmed)
    return cannot_open(AT_FDCWD, path, ENAMETOOLONG, error);
  memcpy(trimmed, path, len + 1);
  while (len > 1 && trimmed[len - 1] == '/') /* a link shall be seen as one */
    trimmed[--len] = '\0';
  struct stat st;
  *made = lstat(trimmed, &st) != 0;
  if (*made) {
    char part[PATH_MAX];
    int err = make_all(trimmed, options->mode, part);
    if (err != 0)
      return egi_file_fail(
          error,
          err == EACCES || err == EPERM || err == EROFS ? EG_DENIED
                                                        : EG_UNAVAILABLE,
          err, "cannot make the folder %s: %s", part, strerror(err));
  }
  eg_status status = open_folder(AT_FDCWD, trimmed, options, fd, error);
  if (status != EG_OK)
    return status;
  status = check_system(*fd, trimmed, error);
  if (status == EG_OK && realpath(trimmed, absolute) == NULL)
    status = cannot_open(AT_FDCWD, trimmed, errno, error);
  if (status != EG_OK)
    close(*fd);
  if (status != EG_OK && *made)
    rmdir(trimmed);
  return status;
}
