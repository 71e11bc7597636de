/* SPDX-License-Identifier: MIT
** Every rule of store.h against the store of EXECUTIONGUARD_STORE: by a handle
** with a name; of the memory store, by one without a name as well (of the
** others a handle without a name has one all the same).
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rules.h"

#include <cmocka.h>

typedef struct rule {
  rule_fn check;
  bool named;
  world w;
} rule;

static int open_world(void **state) {
  rule *r = *state;
  return world_open(&r->w, NULL, r->named) ? 0 : -1;
}

static int close_world(void **state) {
  rule *r = *state;
  world_close(&r->w);
  return 0;
}

static void store_follows_the_rule(void **state) {
  rule *r = *state;
  const char *why = r->check(&r->w);
  if (why != NULL)
    fail_msg("%s", why);
}

static void store_gives_all_its_memory_back(void **state) {
  (void)state;
  assert_int_equal(alloc_blocks(), 0);
  assert_false(alloc_was_misused());
}

/* --------------------------------------------------------------- table -- */

#define XX(name) static rule unnamed_##name = {.check = name};
RULES(XX)
#undef XX
#define XX(name) static rule named_##name = {.check = name, .named = true};
RULES(XX)
SHARED_RULES(XX)
#undef XX

#define ENTRY(prefix, rule)                                                   \
  {                                                                           \
#prefix " " #rule, store_follows_the_rule, open_world, close_world,       \
        &prefix##_##rule                                                      \
  }

int main(void) {
  const struct CMUnitTest unnamed[] = {
#define XX(name) ENTRY(unnamed, name),
      RULES(XX)
#undef XX
  };
  const struct CMUnitTest named[] = {
#define XX(name) ENTRY(named, name),
      RULES(XX) SHARED_RULES(XX)
#undef XX
          cmocka_unit_test(store_gives_all_its_memory_back),
  };
  const char *url = getenv("EXECUTIONGUARD_STORE");
  int failed = 0;
  alarm(600); /* a lost wake-up ends the program, not the day */
  if (url == NULL || *url == '\0' || strncmp(url, "memory", 6) == 0)
    failed = cmocka_run_group_tests_name("store rules, unnamed", unnamed, NULL,
                                         NULL);
  return failed +
         cmocka_run_group_tests_name("store rules", named, NULL, NULL);
}
