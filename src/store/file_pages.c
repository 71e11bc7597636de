/* SPDX-License-Identifier: MIT
** Reading what is left of a database: page by page, without its trees.
**
** The formats are those of https://www.sqlite.org/fileformat2.html.  Nothing
** that is read is believed: every length is checked against what is there.
** A page of a tree begins with its kind; an overflow page with the number of
** the next, whose first byte is 0 in files of less than 64 GiB; so what users
** have stored is not taken for a page.
*/
#include "store/file_pages.h"

#include "store/file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum {
  INDEX_INSIDE = 2,
  INDEX_LEAF = 10,
  TABLE_LEAF = 13,
  LOG_HEAD = 32,
  FRAME_HEAD = 24,
  PAGE_MAX = 65536
};

typedef struct pages {
  int db, log;
  const eg_env *env;
  uint32_t size, usable, count;
  int64_t *frames;     /* of each page: where the log has it; 0: it has not */
  unsigned char *free; /* of each page: is it in the list of free ones? */
  unsigned char *payload;
  size_t payload_size;
  unsigned char page[PAGE_MAX];
  unsigned char other[PAGE_MAX];
} pages;

static uint32_t be(const unsigned char *at, int n) {
  uint32_t value = 0;
  while (n-- > 0)
    value = value << 8 | *at++;
  return value;
}

static bool read_at(int fd, void *to, size_t n, int64_t at) {
  ssize_t got;
  do
    got = pread(fd, to, n, (off_t)at);
  while (got < 0 && errno == EINTR);
  return got == (ssize_t)n;
}

static void *resize(const pages *p, void *block, size_t from, size_t to) {
  return p->env->alloc(p->env->alloc_ud, block, from, to);
}

/* --------------------------------------------------------------- pages -- */

static bool is_page_size(uint32_t size) {
  return size >= 512 && size <= PAGE_MAX && (size & (size - 1)) == 0;
}

/* From the header; else from the log's; else SQLite's default. */
static void find_size(pages *p) {
  unsigned char head[100], log[LOG_HEAD];
  p->size = 4096;
  p->usable = 0;
  if (p->log >= 0 && read_at(p->log, log, sizeof log, 0) &&
      is_page_size(be(log + 8, 4)))
    p->size = be(log + 8, 4);
  if (read_at(p->db, head, sizeof head, 0) &&
      memcmp(head, "SQLite format 3", 16) == 0) {
    uint32_t size = be(head + 16, 2);
    size = size == 1 ? PAGE_MAX : size;
    if (is_page_size(size)) {
      p->size = size;
      p->usable = size - head[20];
    }
  }
  if (p->usable < 480)
    p->usable = p->size;
}

static bool read_page(const pages *p, uint32_t number, unsigned char *to) {
  if (number == 0 || number > p->count)
    return false;
  if (p->frames[number] > 0)
    return read_at(p->log, to, p->size, p->frames[number]);
  return read_at(p->db, to, p->size, (int64_t)(number - 1) * p->size);
}

static void sum(const unsigned char *at, size_t n, bool big, uint32_t s[2]) {
  for (size_t i = 0; i + 8 <= n; i += 8) {
    uint32_t word[2];
    for (int k = 0; k < 2; k++) {
      const unsigned char *w = at + i + (size_t)4 * (size_t)k;
      word[k] = big ? be(w, 4)
                    : (uint32_t)w[0] | (uint32_t)w[1] << 8 |
                          (uint32_t)w[2] << 16 | (uint32_t)w[3] << 24;
    }
    s[0] += word[0] + s[1];
    s[1] += word[1] + s[0];
  }
}

/* The frames of the log that are whole and committed: the last of a page
** counts.  First round (take false): the highest page there is. */
static uint32_t read_log(pages *p, bool take) {
  unsigned char head[LOG_HEAD], frame[FRAME_HEAD];
  uint32_t s[2] = {0, 0}, highest = 0, committed = 0;
  int64_t at = LOG_HEAD, done = LOG_HEAD;
  if (p->log < 0 || !read_at(p->log, head, sizeof head, 0) ||
      (be(head, 4) & ~UINT32_C(1)) != 0x377f0682 || be(head + 8, 4) != p->size)
    return 0;
  bool big = (be(head, 4) & 1) != 0;
  sum(head, 24, big, s);
  if (s[0] != be(head + 24, 4) || s[1] != be(head + 28, 4))
    return 0;
  for (; read_at(p->log, frame, sizeof frame, at) &&
         memcmp(frame + 8, head + 16, 8) == 0 &&
         read_at(p->log, p->other, p->size, at + FRAME_HEAD);
       at += FRAME_HEAD + (int64_t)p->size) {
    sum(frame, 8, big, s);
    sum(p->other, p->size, big, s);
    if (s[0] != be(frame + 16, 4) || s[1] != be(frame + 20, 4))
      break;
    highest = be(frame, 4) > highest ? be(frame, 4) : highest;
    if (be(frame + 4, 4) == 0)
      continue;
    committed = highest;
    done = at + FRAME_HEAD + (int64_t)p->size;
  }
  for (at = LOG_HEAD; take && at < done; at += FRAME_HEAD + (int64_t)p->size)
    if (read_at(p->log, frame, sizeof frame, at) && be(frame, 4) <= p->count)
      p->frames[be(frame, 4)] = at + FRAME_HEAD;
  return committed;
}

/* Marks the free pages, as far as their list can be followed. */
static void find_free(pages *p) {
  if (!read_page(p, 1, p->page) || memcmp(p->page, "SQLite format 3", 16) != 0)
    return;
  uint32_t trunk = be(p->page + 32, 4), left = be(p->page + 36, 4);
  while (left > 0 && trunk > 1 && read_page(p, trunk, p->page) &&
         !p->free[trunk]) {
    uint32_t n = be(p->page + 4, 4);
    p->free[trunk] = 1;
    left--;
    if (n > p->usable / 4 - 2)
      return;
    for (uint32_t i = 0; i < n && left > 0; i++, left--) {
      uint32_t leaf = be(p->page + 8 + 4 * (size_t)i, 4);
      if (leaf > 1 && leaf <= p->count)
        p->free[leaf] = 1;
    }
    trunk = be(p->page, 4);
  }
}

/* ------------------------------------------------------------ payloads -- */

static size_t varint(const unsigned char *at, size_t room, uint64_t *value) {
  *value = 0;
  for (size_t i = 0; i < room && i < 9; i++) {
    if (i == 8) {
      *value = *value << 8 | at[i];
      return 9;
    }
    *value = *value << 7 | (at[i] & 0x7f);
    if ((at[i] & 0x80) == 0)
      return i + 1;
  }
  return 0;
}

/* How much of a payload is in the page itself. */
static size_t local_part(const pages *p, uint64_t size, bool of_index) {
  uint32_t u = p->usable;
  uint32_t most = of_index ? (u - 12) * 64 / 255 - 23 : u - 35;
  uint32_t least = (u - 12) * 32 / 255 - 23;
  if (size <= most)
    return (size_t)size;
  uint64_t k = least + (size - least) % (u - 4);
  return (size_t)(k <= most ? k : least);
}

/* Assembles a payload; what cannot be had is missing at its end. */
static eg_bytes assemble(pages *p, eg_bytes local, uint64_t size,
                         uint32_t next) {
  if (size > (uint64_t)p->count * p->size)
    return local; /* more than there is */
  if (p->payload_size < size) {
    void *grown = resize(p, p->payload, p->payload_size, (size_t)size);
    if (grown == NULL)
      return local;
    p->payload = grown;
    p->payload_size = (size_t)size;
  }
  memcpy(p->payload, local.data, local.len);
  size_t have = local.len;
  while (have < size && next > 1 && next <= p->count && !p->free[next] &&
         read_page(p, next, p->other)) {
    size_t n = (size_t)size - have;
    n = n < p->usable - 4 ? n : p->usable - 4;
    memcpy(p->payload + have, p->other + 4, n);
    have += n;
    next = be(p->other, 4);
  }
  return (eg_bytes){p->payload, have};
}

/* ------------------------------------------------------------- records -- */

static size_t length_of(uint64_t serial) {
  static const unsigned char lengths[] = {0, 1, 2, 3, 4, 6, 8, 8, 0, 0};
  if (serial < 10)
    return lengths[serial];
  return serial < 12 || serial > UINT32_MAX ? SIZE_MAX
                                            : (size_t)(serial - 12) / 2;
}

static int64_t number_of(const unsigned char *at, size_t n) {
  uint64_t value = n > 0 && (at[0] & 0x80) != 0 ? UINT64_MAX : 0;
  while (n-- > 0)
    value = value << 8 | *at++;
  return (int64_t)value;
}

static egi_column column_of(uint64_t serial, const unsigned char *at,
                            size_t n) {
  egi_column c = {.type = EGI_COLUMN_NULL};
  if (serial == 7) {
    c.type = EGI_COLUMN_REAL;
  } else if (serial >= 12) {
    c.type = serial % 2 == 0 ? EGI_COLUMN_BLOB : EGI_COLUMN_TEXT;
    c.bytes = (eg_bytes){at, n};
  } else if (serial > 0) {
    c.type = EGI_COLUMN_NUMBER;
    c.number = serial >= 8 ? (int64_t)serial - 8 : number_of(at, n);
  }
  return c;
}

/* False: that is no record. */
static bool split(eg_bytes payload, egi_cell *cell) {
  const unsigned char *data = payload.data;
  uint64_t head_size, serial;
  size_t at = varint(data, payload.len, &head_size), n;
  if (at == 0 || head_size < at || head_size > payload.len)
    return false;
  size_t body = (size_t)head_size;
  bool whole = true;
  cell->columns = cell->whole = 0;
  while (at < head_size) {
    n = varint(data + at, (size_t)head_size - at, &serial);
    size_t len = length_of(serial);
    if (n == 0 || len == SIZE_MAX)
      return false;
    at += n;
    whole = whole && len <= payload.len - body;
    if (whole && cell->columns < EGI_COLUMNS) {
      cell->column[cell->columns] = column_of(serial, data + body, len);
      cell->whole = cell->columns + 1;
      body += len;
    }
    cell->columns++;
  }
  return true;
}

/* --------------------------------------------------------------- cells -- */

static void visit_cell(pages *p, unsigned kind, size_t at, egi_cell_fn visit,
                       void *ctx) {
  egi_cell cell = {.of_index = kind != TABLE_LEAF};
  uint64_t size, rowid;
  if (kind == INDEX_INSIDE)
    at += 4;
  if (at >= p->usable)
    return;
  size_t n = varint(p->page + at, p->usable - at, &size);
  at += n;
  if (n > 0 && kind == TABLE_LEAF) {
    n = varint(p->page + at, p->usable - at, &rowid);
    cell.rowid = (int64_t)rowid;
    at += n;
  }
  if (n == 0)
    return;
  size_t local = local_part(p, size, cell.of_index);
  bool spills = local < size;
  if (local + (spills ? 4 : 0) > p->usable - at)
    return;
  eg_bytes payload = {p->page + at, local};
  if (spills)
    payload = assemble(p, payload, size, be(p->page + at + local, 4));
  if (split(payload, &cell))
    visit(ctx, &cell);
}

static void visit_page(pages *p, uint32_t number, egi_cell_fn visit,
                       void *ctx) {
  size_t at = number == 1 ? 100 : 0;
  unsigned kind = p->page[at];
  if (kind != INDEX_INSIDE && kind != INDEX_LEAF && kind != TABLE_LEAF)
    return;
  size_t list = at + (kind == INDEX_INSIDE ? 12 : 8);
  size_t cells = be(p->page + at + 3, 2);
  if (cells * 2 > p->usable - list)
    return;
  for (size_t i = 0; i < cells; i++)
    visit_cell(p, kind, be(p->page + list + 2 * i, 2), visit, ctx);
}

/* ------------------------------------------------------------ all of it -- */

static eg_status prepare(pages *p, eg_error *error) {
  find_size(p);
  off_t end = lseek(p->db, 0, SEEK_END);
  uint32_t in_log = read_log(p, false);
  p->count = end > 0 ? (uint32_t)((end + p->size - 1) / p->size) : 0;
  p->count = in_log > p->count ? in_log : p->count;
  size_t n = (size_t)p->count + 1;
  p->frames = resize(p, NULL, 0, n * sizeof *p->frames);
  p->free = resize(p, NULL, 0, n);
  if (p->frames == NULL || p->free == NULL)
    return egi_file_fail(error, EG_NOMEM, ENOMEM,
                         "not enough memory for a list of %u pages", p->count);
  memset(p->frames, 0, n * sizeof *p->frames);
  memset(p->free, 0, n);
  read_log(p, true);
  find_free(p);
  return EG_OK;
}

eg_status egi_pages_visit(int db, int log, const eg_env *env,
                          egi_cell_fn visit, void *ctx, eg_error *error) {
  pages *p = env->alloc(env->alloc_ud, NULL, 0, sizeof *p);
  if (p == NULL)
    return egi_file_fail(error, EG_NOMEM, ENOMEM,
                         "not enough memory to read pages");
  memset(p, 0, sizeof *p);
  p->db = db;
  p->log = log;
  p->env = env;
  eg_status status = prepare(p, error);
  for (uint32_t i = 1; status == EG_OK && i <= p->count; i++)
    if (!p->free[i] && read_page(p, i, p->page))
      visit_page(p, i, visit, ctx);
  size_t n = (size_t)p->count + 1;
  if (p->frames != NULL)
    resize(p, p->frames, n * sizeof *p->frames, 0);
  if (p->free != NULL)
    resize(p, p->free, n, 0);
  if (p->payload != NULL)
    resize(p, p->payload, p->payload_size, 0);
  resize(p, p, sizeof *p, 0);
  return status;
}
