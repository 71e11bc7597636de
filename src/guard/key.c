/* SPDX-License-Identifier: MIT
** Which keys and names are taken.
*/
#include "guard/guard.h"

#include <string.h>

eg_status egi_check_key(eg_bytes key, eg_error *error) {
  if (egi_is_key(key))
    return EG_OK;
  if (key.len == 0 || key.data == NULL)
    return egi_fail(error, EG_INVALID, "the key is empty");
  return egi_fail(error, EG_INVALID,
                  "the key has %zu bytes; at most %d are taken (hash it)",
                  key.len, EG_KEY_MAX);
}

eg_status egi_check_name(const char *name, eg_error *error) {
  if (name == NULL)
    return EG_OK;
  size_t len = strlen(name);
  if (len == 0)
    return egi_fail(error, EG_INVALID,
                    "the name is empty; leave it out for a private guard");
  if (len > EG_NAME_MAX)
    return egi_fail(error, EG_INVALID,
                    "the name has %zu bytes; at most %d are taken", len,
                    EG_NAME_MAX);
  return EG_OK;
}
