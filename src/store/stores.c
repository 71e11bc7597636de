/* SPDX-License-Identifier: MIT
** The table of stores: which scheme is which, and where those are that are
** objects of their own.
**
** A store that needs a client library of its own (redis, postgres, etcd) is
** loaded when a URL first names it, and stays: an empty program that is linked
** to them all takes milliseconds to start.  store_NAME.so is looked for
**
**   1. in $EXECUTIONGUARD_STORES, and nowhere else where that is set (not for
**      programs with privileges of another user);
**   2. beside the object that holds this code: the Lua module, the library,
**      the program;
**   3. in the folder executionguard beside that;
**   4. in ../lib/executionguard from there.
*/
#include "store/store.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* XX(scheme): its operations are egi_<scheme>_ops. */
#define STORES(XX) XX(memory) XX(file)

/* XX(scheme, store, package): in store_<store>.so, as egi_<store>_ops; the
** package is Debian's name of what it needs. */
#define REMOTE_STORES(XX)                                                     \
  XX("redis", "redis", "libhiredis0.14")                                      \
  XX("redis+unix", "redis", "libhiredis0.14")                                 \
  XX("rediss", "redis", "libhiredis0.14")                                     \
  XX("postgres", "postgres", "libpq5")                                        \
  XX("postgresql", "postgres", "libpq5")                                      \
  XX("etcd", "etcd", "libcurl4 and libjansson4")                              \
  XX("etcds", "etcd", "libcurl4 and libjansson4")

typedef struct remote {
  const char *scheme, *store, *package;
} remote;

static const egi_store_ops *const stores[] = {
#define XX(scheme) &egi_##scheme##_ops,
    STORES(XX)
#undef XX
};

static const remote remotes[] = {
#define XX(scheme, store, package) {scheme, store, package},
    REMOTE_STORES(XX)
#undef XX
};

static const char *const schemes[] = {
#define XX(scheme) #scheme,
    STORES(XX)
#undef XX
#define XX(scheme, store, package) scheme,
        REMOTE_STORES(XX)
#undef XX
            NULL,
};

const char *const *eg_schemes(void) { return schemes; }

bool egi_is_scheme(const char *scheme) {
  for (const char *const *s = schemes; *s != NULL; s++)
    if (strcmp(*s, scheme) == 0)
      return true;
  return false;
}

static eg_status fail(eg_error *error, const char *store, const char *package,
                      const char *why) {
  if (error == NULL)
    return EG_UNSUPPORTED;
  error->status = EG_UNSUPPORTED;
  error->os_errno = 0;
  snprintf(error->message, sizeof error->message,
           "the %s store cannot be loaded; install %s, and the build of this "
           "library that has store_%s.so: %.120s",
           store, package, store, why);
  return EG_UNSUPPORTED;
}

/* ------------------------------------------------------------- loading -- */

/* The folder of the object that holds this code, without its last slash. */
static bool own_folder(char *folder, size_t size) {
  Dl_info info;
  char *path = NULL;
  if (dladdr((const void *)(uintptr_t)&egi_is_scheme, &info) != 0 &&
      strchr(info.dli_fname, '/') != NULL)
    path = realpath(info.dli_fname, NULL);
  if (path == NULL) /* a program that was found by PATH */
    path = realpath("/proc/self/exe", NULL);
  if (path == NULL)
    return false;
  char *slash = strrchr(path, '/');
  size_t n = slash != NULL ? (size_t)(slash - path) : 0;
  bool fits = n > 0 && n < size;
  if (fits) {
    memcpy(folder, path, n);
    folder[n] = '\0';
  }
  free(path);
  return fits;
}

/* Loads FOLDER/store_NAME.so.  NULL: *why says why; a file that is not there
** does not take the place of a better reason. */
static void *load_from(const char *folder, const char *below,
                       const char *store, char *why, size_t size) {
  char path[PATH_MAX];
  int n = snprintf(path, sizeof path, "%s%s/store_%s.so", folder, below,
                   store);
  if (n < 0 || (size_t)n >= sizeof path || access(path, F_OK) != 0)
    return NULL;
  void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const char *reason = object == NULL ? dlerror() : NULL;
  if (reason != NULL)
    snprintf(why, size, "%s", reason);
  return object;
}

static void *load_object(const char *store, char *why, size_t size) {
  static const char *const places[] = {"", "/executionguard",
                                       "/../lib/executionguard"};
  char folder[PATH_MAX];
  void *object = NULL;
  const char *given = secure_getenv("EXECUTIONGUARD_STORES");
  snprintf(why, size, "no such file was found");
  if (given != NULL && *given != '\0')
    return load_from(given, "", store, why, size);
  if (!own_folder(folder, sizeof folder))
    return NULL;
  for (size_t i = 0; object == NULL && i < sizeof places / sizeof *places; i++)
    object = load_from(folder, places[i], store, why, size);
  return object;
}

static eg_status load(const remote *r, const egi_store_ops **ops,
                      eg_error *error) {
  char name[32], why[160];
  void *object = load_object(r->store, why, sizeof why);
  if (object == NULL)
    return fail(error, r->store, r->package, why);
  snprintf(name, sizeof name, "egi_%s_ops", r->store);
  *ops = dlsym(object, name);
  if (*ops == NULL || (*ops)->abi != EGI_STORE_ABI) {
    *ops = NULL;
    dlclose(object);
    return fail(error, r->store, r->package,
                "the file that was found belongs to another version");
  }
  return EG_OK;
}

eg_status egi_load_store(const char *scheme, const egi_store_ops **ops,
                         eg_error *error) {
  *ops = NULL;
  for (size_t i = 0; i < sizeof stores / sizeof *stores; i++)
    if (strcmp(schemes[i], scheme) == 0) {
      *ops = stores[i];
      return EG_OK;
    }
  for (size_t i = 0; i < sizeof remotes / sizeof *remotes; i++)
    if (strcmp(remotes[i].scheme, scheme) == 0)
      return load(&remotes[i], ops, error);
  return fail(error, scheme, "it", "there is no such store");
}

const egi_store_ops *egi_find_store(const char *scheme) {
  const egi_store_ops *ops;
  return egi_load_store(scheme, &ops, NULL) == EG_OK ? ops : NULL;
}
