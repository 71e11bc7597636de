/* SPDX-License-Identifier: MIT
** The rules notice a store that breaks them: each of the broken stores fails
** the rules that are named beside it, and the same wrapper without a defect
** fails none.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include "broken.h"
#include "rules.h"

#include <cmocka.h>

typedef struct suspicion {
  defect what;
  rule_fn rule;
  const char *name;
  bool named;
} suspicion;

#define SUSPECT(what, rule)                                                   \
  { what, rule, #what " in " #rule, false }
#define SHARED(what, rule)                                                    \
  { what, rule, #what " in " #rule, true }

static const suspicion suspicions[] = {
    SUSPECT(REUSES_VERSIONS, rule_01_every_swap_changes_the_version),
    SUSPECT(REUSES_VERSIONS, rule_01_no_version_is_used_twice),
    SUSPECT(REUSES_VERSIONS, rule_03_stale_version_conflicts),
    SUSPECT(REUSES_VERSIONS,
            rule_01_version_of_before_the_key_was_gone_conflicts),
    SUSPECT(IGNORES_VERSIONS, rule_03_stale_version_conflicts),
    SUSPECT(IGNORES_VERSIONS, rule_03_wrong_guess_of_absence_conflicts),
    SUSPECT(IGNORES_VERSIONS, rule_03_every_hold_and_write_needs_the_version),
    SUSPECT(IGNORES_VERSIONS, rule_07_life_over_is_absent),
    SUSPECT(IGNORES_TOKENS, rule_03_older_token_conflicts),
    SUSPECT(IGNORES_TOKENS, rule_03_token_of_a_hold_that_ended_conflicts),
    SUSPECT(IGNORES_TOKENS, rule_03_token_after_its_lease_conflicts),
    SUSPECT(TAKES_WHAT_IS_HELD, rule_04_take_of_a_held_key_conflicts),
    SUSPECT(CHANGES_AND_CONFLICTS, rule_03_stale_version_conflicts),
    SUSPECT(LOSES_WAKE_UPS, rule_10_swap_with_wake_wakes_every_watch),
    SUSPECT(LOSES_WAKE_UPS, rule_10_every_end_of_a_lock_wakes),
    SUSPECT(SHARES_TOKENS, rule_02_take_and_break_raise_the_token),
    SUSPECT(SHARES_TOKENS, rule_02_token_rises_though_the_key_was_absent),
    SUSPECT(RENEWS_ALL, rule_09_renew_of_what_does_not_hold_is_lost),
    SUSPECT(RENEWS_ALL, rule_09_renew_of_many_judges_each),
    SUSPECT(VISITS_TWICE, rule_11_scan_visits_every_record_once),
    SUSPECT(VISITS_TWICE, rule_11_visitor_may_use_the_store),
    SUSPECT(VISITS_LOCKS, rule_11_scan_visits_every_record_once),
    SUSPECT(FORGETS_NOTHING, rule_08_forget_leaves_no_bytes),
    SUSPECT(FORGETS_NOTHING, rule_08_forget_leaves_a_hold),
    SUSPECT(LEAVES_NO_TIME, rule_06_leave_time_leaves),
    SUSPECT(STRETCHES_LEASES, rule_05_lease_over_frees_and_the_bytes_stay),
    SUSPECT(CHANGES_WITHOUT_MEMORY,
            rule_13_swap_without_memory_changes_nothing),
    SHARED(LEAKS_HOLDS, rule_12_close_drops_its_holds),
    SHARED(LEAKS_HOLDS, rule_12_close_wakes_the_watchers_of_its_holds),
};

/* NULL: the store with that defect follows the rule. */
static const char *judge(defect what, rule_fn rule, bool named) {
  world w;
  const egi_store_ops *good = egi_find_store("memory");
  assert_non_null(good);
  if (!world_open(&w, broken_ops(good, what), named))
    return "it cannot be opened";
  w.patience_ms = 100;
  const char *why = rule(&w);
  world_close(&w);
  broken_end();
  return why;
}

static void rules_notice_each_defect(void **state) {
  (void)state;
  size_t unnoticed = 0;
  bool tried[DEFECTS] = {true};
  for (size_t i = 0; i < sizeof suspicions / sizeof *suspicions; i++) {
    const suspicion *s = &suspicions[i];
    tried[s->what] = true;
    if (judge(s->what, s->rule, s->named) == NULL) {
      print_error("not noticed: %s\n", s->name);
      unnoticed++;
    }
  }
  assert_int_equal(unnoticed, 0);
  for (int i = 0; i < DEFECTS; i++)
    assert_true(tried[i]);
}

static void rules_suspect_no_good_store(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof suspicions / sizeof *suspicions; i++) {
    const suspicion *s = &suspicions[i];
    const char *why = judge(NO_DEFECT, s->rule, s->named);
    if (why != NULL)
      fail_msg("%s: %s", s->name, why);
  }
}

/* --------------------------------------------------------------- table -- */

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rules_notice_each_defect),
      cmocka_unit_test(rules_suspect_no_good_store),
  };
  alarm(600);
  return cmocka_run_group_tests_name("suite can fail", tests, NULL, NULL);
}
