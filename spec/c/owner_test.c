/* SPDX-License-Identifier: MIT
** Who holds a key: the owner line, and whose it is.
*/
#include "support.h"

#include <errno.h>
#include <unistd.h>

static eg_owner owner_of(spec_world *w, const char *key) {
  spec_fetch(w, key);
  assert_true(w->record.locked);
  return w->record.owner;
}

static void states_are_numbers_that_nobody_else_has(void **state) {
  (void)state;
  uint32_t a = eg_next_state(), b = eg_next_state();
  assert_int_not_equal(a, 0);
  assert_int_not_equal(b, 0);
  assert_int_not_equal(a, b);
}

static void owner_is_this_process_and_guard(void **state) {
  spec_world *w = *state;
  char host[64] = "";
  gethostname(host, sizeof host - 1);
  assert_int_equal(spec_ask(w, "k", EG_WANT_RUN), EG_OK);
  eg_owner owner = owner_of(w, "k");
  assert_true(owner.mine);
  assert_int_equal(owner.pid, getpid());
  assert_string_equal(owner.host, host);
  assert_int_equal(owner.guard, w->guard->number);
  assert_int_equal(owner.state, 0);
}

static void owner_text_is_the_program_unless_somebody_says(void **state) {
  spec_world *w = *state;
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  eg_owner owner = owner_of(w, "k");
  assert_string_equal(owner.text, program_invocation_short_name);
  assert_null(strchr(owner.text, '/')); /* and no command line */
}

static void owner_text_of_the_guard_and_of_the_call(void **state) {
  spec_world *w = *state;
  eg_guard *other;
  eg_options options = {.name = w->name, .owner = "nightly", .env = w->env};
  assert_int_equal(spec_open(w, &options, &other, NULL), EG_OK);
  assert_int_equal(eg_acquire(other, eg_str("a"), EG_WANT_RUN, NULL, 0,
                              &w->grant, &w->reply),
                   EG_OK);
  eg_reply_free(&w->reply);
  eg_owner owner = owner_of(w, "a");
  assert_string_equal(owner.text, "nightly");
  assert_false(owner.mine);
  w->policy.owner = "this call";
  assert_int_equal(eg_acquire(other, eg_str("b"), EG_WANT_RUN, &w->policy, 0,
                              &w->grant, &w->reply),
                   EG_OK);
  eg_reply_free(&w->reply);
  assert_string_equal(owner_of(w, "b").text, "this call");
  w->policy.owner = "";
  assert_int_equal(eg_acquire(other, eg_str("c"), EG_WANT_LOCK, &w->policy, 0,
                              &w->grant, &w->reply),
                   EG_OK);
  eg_reply_free(&w->reply);
  assert_string_equal(owner_of(w, "c").text, "nightly");
  eg_close(other);
}

static void owner_text_when_too_long_is_cut(void **state) {
  spec_world *w = *state;
  char text[400];
  memset(text, 'o', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  eg_guard *other;
  eg_options options = {.name = w->name, .owner = text, .env = w->env};
  assert_int_equal(spec_open(w, &options, &other, NULL), EG_OK);
  assert_int_equal(eg_acquire(other, eg_str("a"), EG_WANT_LOCK, NULL, 0,
                              &w->grant, &w->reply),
                   EG_OK);
  eg_reply_free(&w->reply);
  assert_int_equal(strlen(owner_of(w, "a").text), EG_OWNER_MAX);
  eg_close(other);
  w->policy.owner = text;
  assert_int_equal(spec_ask(w, "b", EG_WANT_LOCK), EG_OK);
  assert_int_equal(strlen(owner_of(w, "b").text), EG_OWNER_MAX);
}

static void since_is_the_wall_time_of_the_grant(void **state) {
  spec_world *w = *state;
  spec_advance_ms(5);
  int64_t now = spec_clock.now_us(NULL);
  int64_t wall = now + spec_clock.offset_us(NULL, now);
  assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
  spec_advance_ms(500);
  assert_true(owner_of(w, "k").since_us == wall);
}

static void owner_is_gone_with_the_grant(void **state) {
  spec_world *w = *state;
  spec_run(w, "k", spec_done());
  assert_int_equal(spec_fetch(w, "k"), EG_OK);
  assert_false(w->record.locked);
  assert_false(w->record.owner.mine);
  assert_int_equal(w->record.owner.pid, 0);
  assert_string_equal(w->record.owner.text, "");
}

static void line_is_of_its_guard_and_state(void **state) {
  spec_world *w = *state;
  unsigned char line[EGI_HOLDER_MAX];
  uint32_t one = eg_next_state();
  eg_guard *a = spec_another(w, one), *b = spec_another(w, one);
  eg_guard *c = spec_another(w, eg_next_state());
  eg_bytes bytes = egi_owner_line(a, NULL, EGI_NO_TIME, line);
  assert_true(bytes.len <= EGI_HOLDER_MAX);
  assert_true(egi_owner_is_guard(a, bytes));
  assert_false(egi_owner_is_guard(b, bytes));
  assert_true(egi_owner_is_state(a, bytes));
  assert_true(egi_owner_is_state(b, bytes));
  assert_false(egi_owner_is_state(c, bytes));
  eg_close(a);
  eg_close(b);
  eg_close(c);
}

static void state_0_is_nobody_s(void **state) {
  spec_world *w = *state;
  unsigned char line[EGI_HOLDER_MAX];
  eg_bytes bytes = egi_owner_line(w->guard, "text", EGI_NO_TIME, line);
  assert_true(egi_owner_is_guard(w->guard, bytes));
  assert_false(egi_owner_is_state(w->guard, bytes));
}

static void line_that_is_none_belongs_to_nobody(void **state) {
  spec_world *w = *state;
  eg_owner owner;
  eg_bytes lines[] = {{"", 0}, {NULL, 0}, {"short", 5}};
  for (int i = 0; i < 3; i++) {
    assert_false(egi_owner_is_guard(w->guard, lines[i]));
    assert_false(egi_owner_is_state(w->guard, lines[i]));
    egi_owner_read(w->guard, lines[i], &owner);
    assert_false(owner.mine);
    assert_int_equal(owner.pid, 0);
  }
}

static void text_of_a_guard_that_is_closed_is_empty(void **state) {
  spec_world *w = *state;
  unsigned char line[EGI_HOLDER_MAX];
  eg_owner owner;
  eg_guard *other = spec_another(w, 0);
  uint32_t number = other->number;
  eg_bytes bytes = egi_owner_line(other, NULL, EGI_NO_TIME, line);
  eg_close(other);
  egi_owner_read(w->guard, bytes, &owner);
  assert_string_equal(owner.text, "");
  assert_int_equal(owner.guard, number);
  assert_false(owner.mine);
}

static void closing_in_any_order_keeps_the_list(void **state) {
  spec_world *w = *state;
  eg_guard *g[4];
  for (int i = 0; i < 4; i++)
    g[i] = spec_another(w, 0);
  static const int order[] = {1, 3, 0, 2};
  for (int i = 0; i < 4; i++) {
    assert_int_equal(spec_ask(w, "k", EG_WANT_LOCK), EG_OK);
    assert_string_equal(owner_of(w, "k").text, program_invocation_short_name);
    assert_int_equal(spec_release(w, "k"), EG_OK);
    eg_close(g[order[i]]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(states_are_numbers_that_nobody_else_has),
      BOTH_WAYS(owner_is_this_process_and_guard),
      BOTH_WAYS(owner_text_is_the_program_unless_somebody_says),
      BOTH_WAYS(owner_text_of_the_guard_and_of_the_call),
      BOTH_WAYS(owner_text_when_too_long_is_cut),
      BOTH_WAYS(since_is_the_wall_time_of_the_grant),
      BOTH_WAYS(owner_is_gone_with_the_grant),
      ONE_WAY(line_is_of_its_guard_and_state),
      ONE_WAY(state_0_is_nobody_s),
      ONE_WAY(line_that_is_none_belongs_to_nobody),
      ONE_WAY(text_of_a_guard_that_is_closed_is_empty),
      ONE_WAY(closing_in_any_order_keeps_the_list),
  };
  return cmocka_run_group_tests_name("owner", tests, NULL, NULL);
}
