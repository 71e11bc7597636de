/* SPDX-License-Identifier: MIT
** Rebuilding a store whose database can no longer be read.
*/
#include "guard/guard.h"

eg_status eg_rebuild(const char *store, const eg_env *given,
                     eg_rebuilt *rebuilt, eg_error *error) {
  egi_url url;
  const egi_store_ops *ops;
  eg_env env = given != NULL ? *given : (eg_env){0};
  egi_env_complete(&env);
  eg_status status = egi_url_parse(store, &url, error);
  if (status == EG_OK)
    status = egi_load_store(url.scheme, &ops, error);
  if (status != EG_OK)
    return status;
  if (ops->rebuild == NULL)
    return egi_fail(error, EG_UNSUPPORTED,
                    "store %s has no database of its own to rebuild",
                    url.scheme);
  return ops->rebuild(&url, &env, rebuilt, error);
}
