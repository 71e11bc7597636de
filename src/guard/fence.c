/* SPDX-License-Identifier: MIT
** Fences: what a grant protects outside of the store refuses an older token.
**
** A file has its fence beside it, "<path>.token": the token of its latest
** writer, as digits.  Who writes holds a flock on that file from its look at
** the token until the new contents have their name:
**
**   flock .token   is a newer one there? LOST
**   write .new, sync     write the token, sync     rename .new
**
** A crash in between leaves the old contents under the new token: nobody
** older gets through, and the same holder may write again.
*/
#include "guard/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DIGITS = 20 };

typedef struct fence {
  const char *path;
  uint64_t token, before;
  char beside[PATH_MAX], fresh[PATH_MAX];
  int lock, file;
  eg_error *error;
} fence;

static eg_status failed(const fence *f, const char *what, const char *path) {
  int number = errno;
  eg_status status = number == EACCES || number == EPERM || number == EROFS
                         ? EG_DENIED
                         : EG_UNAVAILABLE;
  return egi_fail_errno(f->error, status, number, "%s %.150s: %s", what, path,
                        strerror(number));
}

/* Somebody else may be writing; the machine's clock, for so does he. */
static eg_status lock(fence *f, int64_t wait_ms) {
  const eg_clock *machine = eg_system_clock();
  int64_t now = machine->now_us(machine->ctx);
  int64_t until = wait_ms < EG_FOREVER / 1000 - now ? now + wait_ms * 1000
                                                    : EG_FOREVER;
  useconds_t nap_us = 500;
  f->lock = open(f->beside, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (f->lock < 0)
    return failed(f, "cannot open", f->beside);
  while (flock(f->lock, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR)
      continue;
    if (errno != EWOULDBLOCK)
      return failed(f, "cannot lock", f->beside);
    if (machine->now_us(machine->ctx) >= until)
      return EG_LOCKED;
    usleep(nap_us);
    nap_us = nap_us < 10000 ? nap_us * 2 : nap_us;
  }
  return EG_OK;
}

static eg_status look(fence *f) {
  char text[DIGITS + 2] = "", *end = text;
  ssize_t n = pread(f->lock, text, sizeof text - 1, 0);
  if (n < 0)
    return failed(f, "cannot read", f->beside);
  f->before = n > 0 ? strtoull(text, &end, 10) : 0;
  if (n > 0 &&
      (end != text + DIGITS || *end != '\n' || f->before > EGI_TOKEN_MAX))
    return egi_fail(f->error, EG_CORRUPT, "what is in %.180s is no token",
                    f->beside);
  return f->before > f->token ? EG_LOST : EG_OK;
}

static bool write_all(int fd, eg_bytes bytes) {
  const char *at = bytes.data;
  for (size_t left = bytes.len; left > 0;) {
    ssize_t n = write(fd, at, left);
    if (n < 0 && errno != EINTR)
      return false;
    at += n > 0 ? n : 0;
    left -= n > 0 ? (size_t)n : 0;
  }
  return true;
}

/* The new contents, with the old one's mode. */
static eg_status write_fresh(fence *f, eg_bytes contents) {
  struct stat old;
  f->file = open(f->fresh,
                 O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (f->file < 0)
    return failed(f, "cannot open", f->fresh);
  if ((stat(f->path, &old) == 0 &&
       fchmod(f->file, old.st_mode & 07777) != 0) ||
      !write_all(f->file, contents) || fsync(f->file) != 0)
    return failed(f, "cannot write", f->fresh);
  return EG_OK;
}

static void sync_folder(const char *path) {
  char folder[PATH_MAX];
  const char *slash = strrchr(path, '/');
  size_t n = slash != NULL ? (size_t)(slash - path) + 1 : 0;
  memcpy(folder, path, n);
  memcpy(folder + n, ".", 2);
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return;
  fsync(fd);
  close(fd);
}

static eg_status replace(fence *f) {
  char text[DIGITS + 2];
  snprintf(text, sizeof text, "%020llu\n", (unsigned long long)f->token);
  if (f->before < f->token &&
      (pwrite(f->lock, text, DIGITS + 1, 0) != DIGITS + 1 ||
       fdatasync(f->lock) != 0))
    return failed(f, "cannot write", f->beside);
  if (rename(f->fresh, f->path) != 0)
    return failed(f, "cannot replace", f->path);
  sync_folder(f->path);
  return EG_OK;
}

eg_status eg_fence_write(const char *path, uint64_t token, eg_bytes contents,
                         int64_t wait_ms, eg_error *error) {
  fence f = {.path = path, .token = token, .file = -1, .error = error};
  if (token == 0 || token > EGI_TOKEN_MAX)
    return egi_fail(error, EG_INVALID,
                    "a token is that of a grant: 1 to 2^53 - 1");
  if (path == NULL || *path == '\0' ||
      snprintf(f.beside, PATH_MAX, "%s.token", path) >= PATH_MAX ||
      snprintf(f.fresh, PATH_MAX, "%s.new", path) >= PATH_MAX)
    return egi_fail(error, EG_INVALID, "the path is empty, or too long");
  eg_status status = lock(&f, wait_ms);
  if (status == EG_OK)
    status = look(&f);
  if (status == EG_OK)
    status = write_fresh(&f, contents);
  if (status == EG_OK)
    status = replace(&f);
  if (f.file >= 0)
    close(f.file);
  if (f.lock >= 0)
    close(f.lock);
  return status;
}

/* --------------------------------------------------------------- redis -- */

/* The head of a record is as in store/redis_script.c. */
static const char redis_script[] =
    "local v=redis.call('GET',KEYS[1])\n"
    "local t=redis.call('TIME')\n"
    "local now=t[1]*1000000+t[2]\n"
    "local f,fl,tok,last,lu,_=0,0,0,0,0,nil\n"
    "if v and #v>=72 then\n"
    " f,fl,_,_,_,tok,_,last,lu=struct.unpack('<BBI2I4I8I8I8I8I8',v)\n"
    "end\n"
    "if f~=1 or fl%2==0 or tok~=tonumber(ARGV[1]) or\n"
    "  lu>0 and lu<=math.max(now,last) then\n"
    " return redis.error_reply('STALE token '..ARGV[1]..' holds '..KEYS[1]..\n"
    "  ' no more')\n"
    "end\n"
    "return redis.call(unpack(ARGV,2))\n";

const char *eg_fence_redis_script(void) { return redis_script; }

size_t eg_fence_redis_key(const char *name, eg_bytes key,
                          char out[EG_FENCE_REDIS_KEY_MAX]) {
  char *to = out;
  if (name == NULL)
    name = "default";
  if (egi_check_key(key, NULL) != EG_OK || strlen(name) > EG_NAME_MAX)
    return 0;
  to = stpcpy(to, "eg:{");
  for (; *name != '\0'; name++) {
    if (*name == ':' || *name == '%')
      to = stpcpy(to, *name == ':' ? "%3A" : "%25");
    else
      *to++ = *name;
  }
  *to++ = ':';
  memcpy(to, key.data, key.len);
  to += key.len;
  *to++ = '}';
  return (size_t)(to - out);
}
