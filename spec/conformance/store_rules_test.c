/* SPDX-License-Identifier: MIT
** Every rule of store.h against the store of EXECUTIONGUARD_STORE: by a handle
** of its own without a name, and by one with a name.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
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
  const struct CMUnitTest tests[] = {
#define XX(name) ENTRY(unnamed, name),
      RULES(XX)
#undef XX
#define XX(name) ENTRY(named, name),
          RULES(XX) SHARED_RULES(XX)
#undef XX
              cmocka_unit_test(store_gives_all_its_memory_back),
  };
  alarm(600); /* a lost wake-up ends the program, not the day */
  return cmocka_run_group_tests_name("store rules", tests, NULL, NULL);
}
