/* SPDX-License-Identifier: MIT
** Reads test vectors: lines of `name value`, hex bytes behind `bytes` and
** `value`, and comments behind `#`.
*/
#include "vectors.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool join(char *path, size_t size, const char *root) {
  int n = snprintf(path, size, "%s/spec/conformance/vectors", root);
  return n > 0 && (size_t)n < size;
}

static DIR *open_vectors(char *path, size_t size) {
  const char *root = getenv("EXECUTIONGUARD_ROOT");
  DIR *dir = NULL;
  char up[64] = ".";
  if (root != NULL && join(path, size, root))
    dir = opendir(path);
  for (int i = 0; dir == NULL && i < 8; i++, strcat(up, "/.."))
    if (join(path, size, up))
      dir = opendir(path);
  if (dir == NULL) { /* this file is <root>/spec/c/vectors.c */
    char built[512];
    int n = snprintf(built, sizeof built, "%.*s/../..",
                     (int)(sizeof __FILE__ - sizeof "/vectors.c"), __FILE__);
    if (n > 0 && (size_t)n < sizeof built && join(path, size, built))
      dir = opendir(path);
  }
  return dir;
}

size_t vector_paths(char *paths[VECTORS_MAX]) {
  char folder[1024];
  size_t n = 0;
  DIR *dir = open_vectors(folder, sizeof folder);
  if (dir == NULL)
    return 0;
  for (struct dirent *e; n < VECTORS_MAX && (e = readdir(dir)) != NULL;) {
    const char *dot = strrchr(e->d_name, '.');
    if (dot == NULL || strcmp(dot, ".hex") != 0)
      continue;
    size_t size = strlen(folder) + strlen(e->d_name) + 2;
    paths[n] = malloc(size);
    if (paths[n] != NULL)
      snprintf(paths[n++], size, "%s/%s", folder, e->d_name);
  }
  closedir(dir);
  return n;
}

/* Appends the hex digits of text; false where there is anything else. */
static bool read_hex(const char *text, unsigned char *out, size_t cap,
                     size_t *len) {
  static const char digits[] = "0123456789abcdef";
  while (*(text += strspn(text, " ")) != '\0') {
    const char *high = strchr(digits, text[0]);
    const char *low = text[1] != '\0' ? strchr(digits, text[1]) : NULL;
    if (high == NULL || low == NULL || *len == cap)
      return false;
    out[(*len)++] = (unsigned char)((high - digits) * 16 + (low - digits));
    text += 2;
  }
  return true;
}

static bool read_run(const char *text, eg_run *run) {
  static const char *const words[] = {
#define XX(name, number, word) [number] = word,
      EG_RUN_MAP(XX)
#undef XX
  };
  for (int i = 0; i < EG_RUN_COUNT; i++)
    if (strcmp(words[i], text) == 0) {
      *run = (eg_run)i;
      return true;
    }
  return false;
}

static bool read_kind(const char *text, eg_kind *kind) {
  *kind = strcmp(text, "value") == 0    ? EG_KIND_VALUE
          : strcmp(text, "opaque") == 0 ? EG_KIND_OPAQUE
                                        : EG_KIND_NONE;
  return *kind != EG_KIND_NONE || strcmp(text, "none") == 0;
}

static bool read_text(const char *text, char *out, size_t cap, eg_bytes *to) {
  int n = snprintf(out, cap, "%s", text);
  to->data = out;
  to->len = strlen(out);
  return n >= 0 && (size_t)n < cap;
}

static bool read_line(const char *name, const char *text, vector *v) {
  egi_record *r = &v->record;
  if (strcmp(name, "bytes") == 0)
    return read_hex(text, v->bytes, sizeof v->bytes, &v->len);
  if (strcmp(name, "value") == 0) {
    r->value.data = v->value;
    return read_hex(text, v->value, sizeof v->value, &r->value.len);
  }
  if (strcmp(name, "tally") == 0) {
    r->tally.data = v->tally;
    return read_hex(text, v->tally, sizeof v->tally, &r->tally.len);
  }
  if (strcmp(name, "refused") == 0)
    v->valid = false;
  else if (strcmp(name, "status") == 0)
    return read_run(text, &r->head.status);
  else if (strcmp(name, "kind") == 0)
    return read_kind(text, &r->head.kind);
  else if (strcmp(name, "crashed") == 0)
    r->head.crashed = strcmp(text, "yes") == 0;
  else if (strcmp(name, "count") == 0)
    r->count = (uint32_t)strtoul(text, NULL, 10);
  else if (strcmp(name, "start") == 0)
    r->start_us = strtoll(text, NULL, 10);
  else if (strcmp(name, "duration") == 0)
    r->duration_us = strtoll(text, NULL, 10);
  else if (strcmp(name, "last") == 0)
    r->last_us = strtoll(text, NULL, 10);
  else if (strcmp(name, "error") == 0)
    return read_text(text, v->error, sizeof v->error, &r->error);
  else if (strcmp(name, "trace") == 0)
    return read_text(text, v->trace, sizeof v->trace, &r->trace);
  else
    return false;
  return true;
}

const char *vector_read(const char *path, vector *v) {
  char line[1024];
  bool ok = true;
  memset(v, 0, sizeof *v);
  v->valid = true;
  FILE *file = fopen(path, "r");
  if (file == NULL)
    return "cannot be opened";
  while (ok && fgets(line, sizeof line, file) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    if (line[0] == '#' || line[0] == '\0')
      continue;
    size_t n = strcspn(line, " ");
    char *text = line + n + strspn(line + n, " ");
    line[n] = '\0';
    ok = read_line(line, text, v);
  }
  fclose(file);
  if (!ok)
    return "has a line that is not understood";
  return v->len > 0 ? NULL : "has no bytes";
}
