/* SPDX-License-Identifier: MIT
** The table of stores: which scheme is which.
*/
#include <string.h>

#include "store/store.h"

/* XX(scheme): its operations are egi_<scheme>_ops. */
#define STORES(XX) XX(memory)

static const egi_store_ops *const stores[] = {
#define XX(scheme) &egi_##scheme##_ops,
    STORES(XX)
#undef XX
};

static const char *const schemes[] = {
#define XX(scheme) #scheme,
    STORES(XX)
#undef XX
        NULL,
};

const char *const *eg_schemes(void) { return schemes; }

const egi_store_ops *egi_find_store(const char *scheme) {
  for (size_t i = 0; i < sizeof stores / sizeof *stores; i++)
    if (strcmp(schemes[i], scheme) == 0)
      return stores[i];
  return NULL;
}
