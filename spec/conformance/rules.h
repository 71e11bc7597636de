/* SPDX-License-Identifier: MIT
** The rules of store.h as functions, each named after its rule: the executable
** definition of a store.
*/
#ifndef SPEC_RULES_H
#define SPEC_RULES_H

#include "world.h"

/* Rules of one handle. */
#define RULES(XX)                                                             \
  XX(rule_01_untouched_key_is_absent)                                         \
  XX(rule_01_every_swap_changes_the_version)                                  \
  XX(rule_01_no_version_is_used_twice)                                        \
  XX(rule_01_version_of_before_the_key_was_gone_conflicts)                    \
  XX(rule_01_hold_alone_has_a_version)                                        \
  XX(rule_01_not_before_alone_has_a_version)                                  \
  XX(rule_01_keys_are_any_bytes)                                              \
  XX(rule_02_take_and_break_raise_the_token)                                  \
  XX(rule_02_keep_drop_and_renew_leave_the_token)                             \
  XX(rule_02_token_rises_though_the_key_was_absent)                           \
  XX(rule_02_token_fits_53_bits)                                              \
  XX(rule_03_stale_version_conflicts)                                         \
  XX(rule_03_wrong_guess_of_absence_conflicts)                                \
  XX(rule_03_every_hold_and_write_needs_the_version)                          \
  XX(rule_03_holder_that_names_its_token_lands)                               \
  XX(rule_03_older_token_conflicts)                                           \
  XX(rule_03_token_of_a_hold_that_ended_conflicts)                            \
  XX(rule_03_token_after_its_lease_conflicts)                                 \
  XX(rule_04_take_of_a_held_key_conflicts)                                    \
  XX(rule_04_take_of_a_free_key_lands)                                        \
  XX(rule_05_lease_over_frees_and_the_bytes_stay)                             \
  XX(rule_05_holder_is_seen_only_while_it_holds)                              \
  XX(rule_06_times_count_from_the_swap)                                       \
  XX(rule_06_leave_time_leaves)                                               \
  XX(rule_06_zero_clears)                                                     \
  XX(rule_06_what_is_left_never_grows)                                        \
  XX(rule_06_clock_set_back_prolongs_none)                                    \
  XX(rule_06_lease_is_set_by_take_and_ended_by_drop_and_break)                \
  XX(rule_06_long_times_do_not_overflow)                                      \
  XX(rule_06_stamp_is_of_the_last_put)                                        \
  XX(rule_07_life_over_is_absent)                                             \
  XX(rule_07_life_over_while_held_waits_for_the_end)                          \
  XX(rule_07_life_over_can_be_made_anew)                                      \
  XX(rule_08_forget_leaves_no_bytes)                                          \
  XX(rule_08_forget_leaves_a_hold)                                            \
  XX(rule_09_renew_prolongs_from_now)                                         \
  XX(rule_09_renew_of_what_does_not_hold_is_lost)                             \
  XX(rule_09_renew_of_many_judges_each)                                       \
  XX(rule_10_swap_with_wake_wakes_every_watch)                                \
  XX(rule_10_watch_of_an_old_version_returns_at_once)                         \
  XX(rule_10_wait_ends_at_its_deadline)                                       \
  XX(rule_10_wait_again_waits_for_the_next_change)                            \
  XX(rule_10_every_end_of_a_lock_wakes)                                       \
  XX(rule_11_scan_visits_every_record_once)                                   \
  XX(rule_11_scan_sees_what_load_sees)                                        \
  XX(rule_11_scan_visits_only_the_prefix)                                     \
  XX(rule_11_scan_stops_when_told)                                            \
  XX(rule_11_visitor_may_use_the_store)                                       \
  XX(rule_13_open_without_memory_leaves_nothing)                              \
  XX(rule_13_swap_without_memory_changes_nothing)                             \
  XX(rule_13_load_without_memory_changes_nothing)                             \
  XX(rule_13_watch_and_scan_without_memory_change_nothing)                    \
  XX(rule_13_table_without_memory_loses_no_key)                               \
  XX(rule_13_drop_needs_no_memory)                                            \
  XX(rule_14_tend_changes_nothing_that_stands)                                \
  XX(rule_14_tend_is_due_when_it_says)                                        \
  XX(rule_15_additions_sum_up)                                                \
  XX(rule_15_counts_are_shown_by_key_and_by_prefix)                           \
  XX(rule_15_add_changes_nothing_of_the_record)                               \
  XX(rule_15_counts_are_no_records)                                           \
  XX(rule_15_old_counts_go_but_not_those_of_a_record)                         \
  XX(rule_13_add_without_memory_adds_nothing)                                 \
  XX(rule_16_what_a_holder_reports_lasts_as_its_hold)

/* Rules that need a second handle on the namespace. */
#define SHARED_RULES(XX)                                                      \
  XX(rule_03_handles_see_each_other)                                          \
  XX(rule_12_close_drops_its_holds)                                           \
  XX(rule_12_close_leaves_the_holds_of_others)                                \
  XX(rule_12_close_wakes_the_watchers_of_its_holds)                           \
  XX(rule_14_tend_tells_of_a_hold_that_was_broken_once)                       \
  XX(rule_15_what_handles_add_at_once_sums_up)

#define XX(rule) const char *rule(world *w);
RULES(XX)
SHARED_RULES(XX)
#undef XX

#endif
