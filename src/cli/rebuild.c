/* SPDX-License-Identifier: MIT
** eguard doctor --rebuild: what can be read of a damaged database becomes a
** new one.
*/
#include "cli/cli.h"

#include <inttypes.h>
#include <string.h>

static int print_json(const eg_rebuilt *r) {
  ec_json json;
  ec_json_begin(&json, stdout);
  ec_json_open(&json, NULL, '{');
  ec_json_bool(&json, "whole", r->whole);
  ec_json_unsigned(&json, "records", r->records);
  ec_json_unsigned(&json, "history", r->history);
  ec_json_unsigned(&json, "blocked", r->blocked);
  ec_json_unsigned(&json, "unnamed", r->unnamed);
  if (r->kept[0] != '\0')
    ec_json_text(&json, "kept", r->kept);
  else
    ec_json_null(&json, "kept");
  ec_json_close(&json, '}');
  return ec_json_end(&json);
}

static const char *s(uint64_t n) { return n == 1 ? "" : "s"; }

static void print_text(const eg_rebuilt *r) {
  if (r->whole) {
    puts("nothing is wrong with the database; nothing was done");
    return;
  }
  printf("recovered %" PRIu64 " record%s and %" PRIu64 " ended run%s\n",
         r->records, s(r->records), r->history, s(r->history));
  if (r->blocked > 0)
    printf("blocked %" PRIu64 " key%s whose records could not be read: look "
           "whether their work\n  was done, then eguard reset KEY\n",
           r->blocked, s(r->blocked));
  if (r->unnamed > 0)
    printf("%" PRIu64 " lock file%s of long keys do not tell their keys: "
           "nothing is known of those\n",
           r->unnamed, s(r->unnamed));
  if (r->kept[0] != '\0')
    printf("the old database is kept as %s in the same folder\n", r->kept);
}

int ec_rebuild(const ec_options *options, const char *url) {
  eg_rebuilt rebuilt;
  eg_error error = {0};
  memset(&rebuilt, 0, sizeof rebuilt);
  eg_status status = eg_rebuild(url, NULL, &rebuilt, &error);
  if (status != EG_OK)
    return ec_failed("doctor --rebuild", status, &error);
  if (options->json)
    return print_json(&rebuilt);
  print_text(&rebuilt);
  return 0;
}
