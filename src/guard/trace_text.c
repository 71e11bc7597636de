/* SPDX-License-Identifier: MIT
** A picture as the JSON of Chrome's trace events: X (complete) events, i
** (instants) and M (names of rows), one a line, by row and then by time.
*/
#include "guard/out.h"
#include "guard/trace.h"

#include <stdio.h>
#include <string.h>

/* Lanes are threads to those who draw; real ones have smaller numbers. */
#define FIRST_LANE (UINT32_C(1) << 22)

typedef struct page {
  egi_out out;
  const egi_picture *picture;
  bool begun; /* an event stands there already */
} page;

static void put_string(egi_out *o, const void *data, size_t n) {
  const unsigned char *s = data, *end = s + n;
  egi_put(o, "\"", 1);
  while (s < end) {
    static const char digits[] = "0123456789abcdef";
    size_t len = egi_utf8(s, (size_t)(end - s));
    char hex[6] = {'\\', 'u', '0', '0', digits[*s >> 4], digits[*s & 15]};
    char bytes[5] = {'\\', '\\', 'x', digits[*s >> 4], digits[*s & 15]};
    if (len == 0) /* no text: \xNN */
      egi_put(o, bytes, sizeof bytes);
    else if (*s < ' ' || *s == '"' || *s == '\\')
      egi_put(o, hex, sizeof hex);
    else
      egi_put(o, s, len);
    s += len > 0 ? len : 1;
  }
  egi_put(o, "\"", 1);
}

static void put_field(egi_out *o, const char *name, uint64_t n) {
  egi_put_text(o, ",\"");
  egi_put_text(o, name);
  egi_put_text(o, "\":");
  egi_put_number(o, n);
}

static void begin_event(page *p, const char *phase) {
  egi_put_text(&p->out, p->begun ? ",\n{\"ph\":\"" : "\n{\"ph\":\"");
  egi_put_text(&p->out, phase);
  egi_put_text(&p->out, "\"");
  p->begun = true;
}

/* ------------------------------------------------------------ rows -- */

static void put_meta(page *p, const char *what, const egi_row *row,
                     uint32_t thread, const char *text) {
  begin_event(p, "M");
  egi_put_text(&p->out, ",\"name\":\"");
  egi_put_text(&p->out, what);
  egi_put_text(&p->out, "\"");
  put_field(&p->out, "pid", row->process);
  put_field(&p->out, "tid", thread);
  egi_put_text(&p->out, ",\"args\":{\"name\":");
  put_string(&p->out, text, strlen(text));
  egi_put_text(&p->out, "}}");
}

static void put_row(page *p, const egi_row *row, uint32_t lane,
                    uint32_t thread) {
  char text[80];
  const char *name = row->name[0] != '\0' ? row->name : "thread";
  if (lane == 0)
    put_meta(p, "process_name", row, thread, row->owner);
  if (lane == 0)
    snprintf(text, sizeof text, "%s %u", name, row->thread);
  else
    snprintf(text, sizeof text, "%s %u (%u)", name, row->thread, lane + 1);
  put_meta(p, "thread_name", row, thread, text);
}

/* ---------------------------------------------------------- items -- */

static const char *category(const egi_item *item) {
  static const char *const words[] = {
      [EGI_TRACE_RUN] = "run",         [EGI_TRACE_LOCK] = "lock",
      [EGI_TRACE_END] = "end",         [EGI_TRACE_FREED] = "end",
      [EGI_TRACE_WAIT] = "wait",       [EGI_TRACE_WAITED] = "end",
      [EGI_TRACE_HANDED] = "handover", [EGI_TRACE_RETRY] = "retry",
      [EGI_TRACE_RESET] = "reset",     [EGI_TRACE_TIMEOUT] = "timeout"};
  return words[item->kind];
}

static const char *end_of(const egi_item *item) {
  eg_status status = (eg_status)item->status;
  if (item->open)
    return item->kind == EGI_TRACE_WAIT ? "waiting" : "running";
  if (item->kind == EGI_TRACE_RUN && status == EG_OK)
    return "completed";
  return eg_status_word(status);
}

static void put_name(egi_out *o, const egi_item *item) {
  unsigned char text[EGI_TRACE_KEY + 24];
  const char *before = item->kind == EGI_TRACE_RUN ? "" : category(item);
  size_t n = (size_t)snprintf((char *)text, sizeof text, "%s%s", before,
                              *before != '\0' ? " " : "");
  size_t len = item->len;
  memcpy(text + n, item->key, len);
  n += len;
  for (int dots = 0; item->cut && dots < 3; dots++)
    text[n++] = '.';
  put_string(o, text, n);
}

static void put_item(page *p, const egi_item *item, uint32_t thread) {
  egi_out *o = &p->out;
  begin_event(p, item->instant ? "i" : "X");
  egi_put_text(o, ",\"name\":");
  put_name(o, item);
  egi_put_text(o, ",\"cat\":\"");
  egi_put_text(o, category(item));
  egi_put_text(o, "\"");
  put_field(o, "ts", (uint64_t)item->start_us);
  if (!item->instant)
    put_field(o, "dur", (uint64_t)(item->end_us - item->start_us));
  put_field(o, "pid", p->picture->rows[item->row].process);
  put_field(o, "tid", thread);
  egi_put_text(o, item->instant ? ",\"s\":\"t\",\"args\":{" : ",\"args\":{");
  if (!item->instant) {
    egi_put_text(o, "\"status\":\"");
    egi_put_text(o, end_of(item));
    egi_put_text(o, "\",");
  }
  egi_put_text(o,
               item->kind == EGI_TRACE_RETRY ? "\"attempt\":" : "\"token\":");
  egi_put_number(o, item->token);
  egi_put_text(o, "}}");
}

eg_status egi_picture_text(const egi_picture *picture, eg_write write,
                           void *ctx) {
  page p = {.picture = picture};
  uint32_t thread = 0, lanes = 0;
  egi_out_begin(&p.out, write, ctx);
  egi_put_text(&p.out, "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"dropped\""
                       ":");
  egi_put_number(&p.out, picture->dropped);
  egi_put_text(&p.out, "},\"traceEvents\":[");
  for (size_t i = 0; i < picture->n && !p.out.stopped; i++) {
    const egi_item *item = &picture->items[i];
    const egi_row *row = &picture->rows[item->row];
    if (i == 0 || item->row != item[-1].row || item->lane != item[-1].lane) {
      thread = item->lane == 0 ? row->thread : FIRST_LANE + lanes++;
      put_row(&p, row, item->lane, thread);
    }
    put_item(&p, item, thread);
  }
  egi_put_text(&p.out, "\n]}\n");
  return egi_out_end(&p.out);
}
