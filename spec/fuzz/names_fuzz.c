/* SPDX-License-Identifier: MIT
** Any text as a key, a name, a store's URL, a duration: refused with a message,
** or taken; never more than was given.
*/
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "fuzz.h"
#include "guard/guard.h"

static void as_url(const char *text) {
  egi_url url;
  eg_error error = {.status = EG_OK};
  char shown[256];
  eg_status status = egi_url_parse(text, &url, &error);
  if (status != EG_OK)
    assert(error.status == status && error.message[0] != '\0');
  else
    egi_url_has(&url, "sync", "full");
  ec_public_url(text, shown, sizeof shown);
}

/* What is printed of a key cannot steer a terminal. */
static void as_text(eg_bytes bytes) {
  char shown[512];
  eg_printable(bytes, shown, sizeof shown);
  for (const char *at = shown; *at != '\0'; at++)
    assert((unsigned char)*at >= 0x20 && *at != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  eg_error error;
  int64_t ms;
  eg_bytes bytes = {data, size};
  char *text = malloc(size + 1);
  assert(text != NULL);
  memcpy(text, data, size);
  text[size] = '\0';
  egi_check_key(bytes, &error);
  egi_check_name(text, &error);
  as_url(text);
  as_text(bytes);
  if (ec_parse_duration(text, &ms))
    assert(ms >= 0);
  free(text);
  return 0;
}
