/* SPDX-License-Identifier: MIT
** eguard serve's parts that need no server: secrets, hosts and sites, escapes,
** rows and runs as JSON; and each allocation of the tables failing once.
**
** The headers of a request stand in a table here; those of real requests are
** met in spec/lua/eguard_serve_spec.lua.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if !__has_include(<microhttpd.h>)
int main(void) {
  puts("SKIPPED: eguard serve is not built where microhttpd.h is missing");
  return 0;
}
#else
#include "cli/serve.h"

/* ------------------------------------------------------------ allocator -- */

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's names */
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);

static int until_it_fails = -1; /* below 0: none does */

static bool fails(void) {
  return until_it_fails >= 0 && until_it_fails-- == 0;
}
void *__wrap_malloc(size_t size) {
  return fails() ? NULL : __real_malloc(size);
}
void *__wrap_calloc(size_t n, size_t size) {
  return fails() ? NULL : __real_calloc(n, size);
}
void *__wrap_realloc(void *old, size_t size) {
  return fails() ? NULL : __real_realloc(old, size);
}
/* NOLINTEND(bugprone-reserved-identifier) */

/* -------------------------------------------------------------- secrets -- */

static void only_the_same_secret_is_the_same(void **state) {
  (void)state;
  static const char right[] = "0123456789abcdef";
  assert_true(ec_same_secret(right, right, 16));
  static const struct {
    const char *given;
    size_t n;
  } wrong[] = {{"", 0},
               {right, 15},
               {"0123456789abcdef0", 17},
               {"0123456789abcdee", 16},
               {"1123456789abcdef", 16},
               {"0123456789abcdef0123456789abcdef", 32},
               {"0123456789ABCDEF", 16},
               {"0123456789abcde\0", 16}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    assert_false(ec_same_secret(right, wrong[i].given, wrong[i].n));
  assert_false(ec_same_secret("", "", 0)); /* a link that was used */
  assert_false(ec_same_secret("", "x", 1));
}

/* ---------------------------------------------------------------- hosts -- */

static void hosts_are_ours_or_not(void **state) {
  (void)state;
  static const char names[] = "games.example.org,Ops";
  static const char *const ours[] = {
      "127.0.0.1",  "127.0.0.1:9464",    "10.1.2.3:1",
      "localhost",  "LocalHost:80",      "[::1]",
      "[::1]:9464", "games.example.org", "GAMES.example.org:443",
      "ops"};
  static const char *const foreign[] = {"",
                                        ":",
                                        "evil.example",
                                        "evil.example:9464",
                                        "127.0.0.1.evil.example",
                                        "localhost.evil.example",
                                        "games.example.org.evil.example",
                                        "games.example",
                                        "games.example.org,Ops",
                                        "127.0.0.1:9464x",
                                        "127.0.0.1:94:64",
                                        "[::1",
                                        "[::1]x",
                                        "[127.0.0.1]",
                                        "[evil.example]",
                                        "::1",
                                        "2130706433"};
  char longest[400];
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    if (!ec_host_is_ours(ours[i], names))
      fail_msg("%s is foreign", ours[i]);
  for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
    if (ec_host_is_ours(foreign[i], names))
      fail_msg("%s is ours", foreign[i]);
  assert_false(ec_host_is_ours("ops", NULL));
  memset(longest, 'a', sizeof longest - 1);
  longest[sizeof longest - 1] = '\0';
  assert_false(ec_host_is_ours(longest, longest));
}

/* ------------------------------------------------------------- requests -- */

typedef struct request {
  const char *host, *origin, *site, *mode, *cookie, *bearer;
} request;

const char *MHD_lookup_connection_value(struct MHD_Connection *connection,
                                        enum MHD_ValueKind kind,
                                        const char *key) {
  const request *r = (const request *)(void *)connection;
  if (kind == MHD_COOKIE_KIND)
    return strcmp(key, "eguard") == 0 ? r->cookie : NULL;
  return strcmp(key, "Host") == 0             ? r->host
         : strcmp(key, "Origin") == 0         ? r->origin
         : strcmp(key, "Sec-Fetch-Site") == 0 ? r->site
         : strcmp(key, "Sec-Fetch-Mode") == 0 ? r->mode
         : strcmp(key, "Authorization") == 0  ? r->bearer
                                              : NULL;
}

static ec_verdict judge(const ec_access *access, request r) {
  return ec_access_judge(access, (struct MHD_Connection *)(void *)&r);
}

static void sites_are_judged_by_host_and_origin(void **state) {
  (void)state;
  static const struct {
    request r;
    ec_verdict verdict;
  } cases[] = {
      {{.host = "127.0.0.1:9"}, EC_WELCOME},
      {{.host = NULL}, EC_WRONG_HOST},
      {{.host = "evil.example"}, EC_WRONG_HOST},
      {{.host = "localhost", .origin = "http://localhost"}, EC_WELCOME},
      {{.host = "localhost", .origin = "https://LOCALHOST"}, EC_WELCOME},
      {{.host = "localhost", .origin = "http://evil.example"}, EC_WRONG_SITE},
      {{.host = "localhost:9", .origin = "http://localhost"}, EC_WRONG_SITE},
      {{.host = "localhost", .origin = "null"}, EC_WRONG_SITE},
      {{.host = "localhost", .origin = ""}, EC_WRONG_SITE},
      {{.host = "localhost", .origin = "ftp://localhost"}, EC_WRONG_SITE},
      {{.host = "localhost", .site = "same-origin"}, EC_WELCOME},
      {{.host = "localhost", .site = "none"}, EC_WELCOME},
      {{.host = "localhost", .site = "same-site"}, EC_WRONG_SITE},
      {{.host = "localhost", .site = "cross-site"}, EC_WRONG_SITE},
      {{.host = "localhost", .site = "cross-site", .mode = "navigate"},
       EC_WELCOME},
      {{.host = "localhost", .site = "cross-site", .mode = "no-cors"},
       EC_WRONG_SITE},
  };
  ec_access access = {.guarded = false};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    assert_int_equal(judge(&access, cases[i].r), cases[i].verdict);
}

static void who_is_guarded_asks_for_token_or_cookie(void **state) {
  (void)state;
  ec_options options = {.new_token = true};
  ec_access access;
  char bearer[300];
  assert_int_equal(ec_access_setup(&access, &options, true), 0);
  assert_true(access.guarded && !access.form);
  assert_int_equal(strlen(access.token), 64);
  assert_int_equal(strlen(access.session), 64);
  assert_int_equal(strlen(access.link), 64);
  assert_string_not_equal(access.token, access.session);
  assert_string_not_equal(access.token, access.link);
  request r = {.host = "localhost"};
  assert_int_equal(judge(&access, r), EC_STRANGER);
  r.cookie = access.token; /* the cookie has another secret */
  assert_int_equal(judge(&access, r), EC_STRANGER);
  r.cookie = access.session;
  assert_int_equal(judge(&access, r), EC_WELCOME);
  r.origin = "http://evil.example"; /* a cookie is no excuse */
  assert_int_equal(judge(&access, r), EC_WRONG_SITE);
  static const char *const schemes[] = {"Bearer ", "bearer "};
  for (size_t i = 0; i < 2; i++) {
    snprintf(bearer, sizeof bearer, "%s%s", schemes[i], access.token);
    r = (request){.host = "localhost", .bearer = bearer};
    assert_int_equal(judge(&access, r), EC_WELCOME);
  }
  static const char *const wrong[] = {"Basic ", "Bearer", "Bearer  ", ""};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    snprintf(bearer, sizeof bearer, "%s%s", wrong[i], access.token);
    assert_int_equal(judge(&access, r), EC_STRANGER);
  }
  r.bearer = "Bearer ";
  assert_int_equal(judge(&access, r), EC_STRANGER);
}

/* ----------------------------------------------------------------- text -- */

static void is_text(ec_text *text, const char *expected) {
  assert_false(text->broken);
  assert_string_equal(text->at != NULL ? text->at : "", expected);
  ec_text_free(text);
}

static void json_strings_are_escaped(void **state) {
  (void)state;
  ec_text text = {0};
  ec_text_quote(&text, (eg_bytes){"a\"b\\c\n\x7f\0z", 9});
  is_text(&text, "\"a\\u0022b\\u005cc\\u000a\\u007f\\u0000z\"");
  ec_text_quote(&text, eg_str("</script><img src=x>"));
  is_text(&text, "\"</script><img src=x>\"");
  ec_text_quote(&text, eg_str("ü漢\xff\"\n"));
  is_text(&text, "\"ü漢\\ufffd\\\"\\n\"");
  ec_text_quote(&text, eg_str(""));
  is_text(&text, "\"\"");
  ec_text_key(&text, (eg_bytes){"k\xff\0/", 4});
  is_text(&text, "\"\\u0000k%FF%00%2F\"");
  ec_text_key(&text, (eg_bytes){"\0k", 2}); /* or it would be ambiguous */
  is_text(&text, "\"\\u0000%00k\"");
  ec_text_percent(&text, eg_str("a-B.9_~ /?&#%ü"));
  is_text(&text, "a-B.9_~%20%2F%3F%26%23%25%C3%BC");
}

static void text_that_is_too_long_to_be_said_is_broken(void **state) {
  (void)state;
  ec_text text = {0};
  char longest[500];
  memset(longest, 'x', sizeof longest - 1);
  longest[sizeof longest - 1] = '\0';
  ec_text_say(&text, "%s", longest);
  assert_true(text.broken);
  ec_text_free(&text);
}

/* What bash makes of it is what it was. */
static void words_of_a_shell_come_back(void **state) {
  (void)state;
  static const eg_bytes words[] = {
      {"plain/word-1.0:@%+,=_", 21}, {"", 0},          {"two words", 9},
      {"$(rm -rf /);`id`&|<>", 20},  {"it's 'so'", 9}, {"back\\slash", 10},
      {"a\nb\t\x1b[31m'\\", 11},     {"\xff\xfe'", 3}, {"ü 漢", 6},
      {"!!~*?[a]{b,c}#", 14},        {"-n", 2},        {"\x7f\\n", 3}};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    char back[200];
    ec_text command = {0}, whole = {0};
    ec_text_shell(&command, words[i]);
    assert_false(command.broken);
    assert_null(strpbrk(command.at, "\n\t\x1b\x7f"));
    ec_text_add(&whole, "printf %s ", 10);
    ec_text_add(&whole, command.at, command.len);
    setenv("EGUARD_TEST_LINE", whole.at, 1);
    FILE *from = popen("exec bash -c \"$EGUARD_TEST_LINE\"", "r");
    assert_non_null(from);
    size_t n = fread(back, 1, sizeof back, from);
    assert_int_equal(pclose(from), 0);
    if (n != words[i].len || (n > 0 && memcmp(back, words[i].data, n) != 0))
      fail_msg("%s comes back as %.*s", command.at, (int)n, back);
    ec_text_free(&command);
    ec_text_free(&whole);
  }
}

/* ------------------------------------------------------------ addresses -- */

static void places_are_read(void **state) {
  (void)state;
  ec_place place;
  char why[300];
  static const struct {
    const char *text;
    bool loopback;
  } good[] = {{"127.0.0.1:9464", true}, {"localhost:0", true},
              {"[::1]:9464", true},     {"0.0.0.0:80", false},
              {"[::]:65535", false},    {"127.8.8.8:1", true},
              {"10.0.0.1:1", false}};
  static const char *const bad[] = {
      "",      "9464", "127.0.0.1",   "127.0.0.1:", "1.2.3:1",    "[::1:1",
      "::1:1", "a:1",  "[::1]:65536", "1.2.3.4:x",  "1.2.3.4:-1", ":1"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    assert_true(ec_parse_place(good[i].text, &place, why, sizeof why));
    assert_int_equal(place.loopback, good[i].loopback);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (ec_parse_place(bad[i], &place, why, sizeof why))
      fail_msg("%s is taken", bad[i]);
}

/* ----------------------------------------------------------------- rows -- */

static eg_record record_of(const char *key, uint64_t version) {
  return (eg_record){.key = eg_str(key),
                     .status = EG_RUN_COMPLETED,
                     .version = version,
                     .count = 3,
                     .failed = 1,
                     .start_us = 1000000,
                     .end_us = 1500000,
                     .last_us = 1500000,
                     .duration_us = 500123,
                     .progress = -1};
}

static void a_row_is_what_its_columns_say(void **state) {
  (void)state;
  ec_known rows = {0};
  bool ended;
  eg_record r = record_of("<k>", 1);
  const ec_known_row *row = ec_known_see(&rows, &r, 2, &ended);
  assert_non_null(row);
  assert_true(ended);
  assert_string_equal(ec_known_columns,
                      "[\"key\",\"status\",\"locked\",\"startMs\",\"endMs\","
                      "\"durationMs\",\"runs\",\"failed\",\"timedOut\","
                      "\"lost\",\"p50Ms\",\"p95Ms\",\"waiters\",\"owner\","
                      "\"sinceMs\",\"error\",\"note\",\"progress\"]");
  assert_string_equal(row->json, "[\"<k>\",2,0,1000,1500,500.123,3,1,0,0,"
                                 "500.123,500.123,2,null,0,null,null,null]");
  r = record_of("<k>", 2);
  r.status = EG_RUN_RUNNING;
  r.locked = true;
  r.progress = 0.25;
  r.owner = (eg_owner){.pid = 7, .since_us = 2000000};
  strcpy(r.owner.text, "me");
  row = ec_known_see(&rows, &r, 0, &ended);
  assert_non_null(row);
  assert_false(ended);
  assert_non_null(
      strstr(row->json, ",0,\"pid 7 (me)\",2000,null,null,0.250]"));
  r = (eg_record){
      .key = eg_str("l"), .locked = true, .only_locked = true, .progress = -1};
  row = ec_known_see(&rows, &r, 0, &ended);
  assert_non_null(strstr(row->json, ",null,\"no record\",null]"));
  ec_known_free(&rows);
}

static void a_row_is_new_when_something_of_it_is(void **state) {
  (void)state;
  ec_known rows = {0};
  bool ended;
  eg_record r = record_of("k", 1);
  assert_non_null(ec_known_see(&rows, &r, 0, &ended));
  assert_null(ec_known_see(&rows, &r, 0, &ended));
  assert_false(ended);
  assert_non_null(ec_known_see(&rows, &r, 1, &ended));
  r.locked = true; /* its version is the same */
  assert_non_null(ec_known_see(&rows, &r, 1, &ended));
  r.progress = 0.5;
  assert_non_null(ec_known_see(&rows, &r, 1, &ended));
  assert_null(ec_known_see(&rows, &r, 1, &ended));
  r.version = 2;
  assert_non_null(ec_known_see(&rows, &r, 1, &ended));
  r.version = 3;
  r.last_us++;
  assert_non_null(ec_known_see(&rows, &r, 1, &ended));
  assert_true(ended);
  ec_known_free(&rows);
}

static void keys_that_are_not_seen_again_are_gone(void **state) {
  (void)state;
  enum { MANY = 500 };
  ec_known rows = {0};
  ec_text gone = {0};
  bool ended;
  char key[24];
  for (int round = 0; round < 2; round++) {
    rows.round++;
    for (int i = 0; i < MANY; i++) {
      snprintf(key, sizeof key, "key %d", i);
      eg_record r = record_of(key, 1);
      if (round == 0 || i % 100 != 7)
        assert_true((ec_known_see(&rows, &r, 0, &ended) != NULL) ==
                    (round == 0));
    }
    assert_int_equal(ec_known_sweep(&rows, &gone), round == 0 ? 0 : 5);
  }
  is_text(&gone, "\"key 7\",\"key 107\",\"key 207\",\"key 307\",\"key 407\"");
  assert_int_equal(rows.count, MANY - 5);
  eg_record r = record_of("key 8", 1);
  assert_null(ec_known_see(&rows, &r, 0, &ended));
  r = record_of("key 7", 1);
  assert_non_null(ec_known_see(&rows, &r, 0, &ended));
  ec_known_free(&rows);
}

/* ----------------------------------------------------------------- runs -- */

static void runs_are_kept_for_a_while(void **state) {
  (void)state;
  ec_runs runs = {0};
  ec_text fresh = {0}, text = {0};
  for (int i = 1; i <= 3; i++) {
    eg_past past = {.key = eg_str(i == 2 ? "\"" : "k"),
                    .status = i == 2 ? EG_FAILED : EG_OK,
                    .start_us = i * 1000000,
                    .duration_us = 1500};
    ec_runs_add(&runs, &past, &fresh);
  }
  is_text(&fresh, "[\"k\",1000,1.500,2],[\"\\u0022\",2000,1.500,4],"
                  "[\"k\",3000,1.500,2]");
  ec_runs_forget(&runs, 2500000);
  ec_runs_print(&runs, &text);
  is_text(&text, "{\"columns\":[\"key\",\"startMs\",\"durationMs\","
                 "\"status\"],\"complete\":true,\"remembered\":true,"
                 "\"runs\":[[\"k\",3000,1.500,2]]");
  ec_runs_free(&runs);
}

/* ---------------------------------------------------------- without room -- */

enum { KEYS = 150 };

/* A round of the collector.  False: something of it could not be had. */
static bool look(ec_known *rows, ec_runs *runs) {
  ec_text gone = {0}, fresh = {0};
  bool ended;
  char key[24];
  rows->broken = false;
  rows->round++;
  for (int i = 0; i < KEYS; i++) {
    snprintf(key, sizeof key, i % 50 == 9 ? "key \xff %d" : "key %d", i);
    eg_record r = record_of(key, 1);
    ec_known_see(rows, &r, 0, &ended);
    eg_past past = {.key = r.key, .status = EG_OK, .start_us = i};
    if (i % 25 == 0)
      ec_runs_add(runs, &past, &fresh);
  }
  ec_known_sweep(rows, &gone);
  bool whole = !rows->broken && !gone.broken && !fresh.broken;
  ec_text_free(&gone);
  ec_text_free(&fresh);
  return whole;
}

static void each_allocation_may_fail_once(void **state) {
  (void)state;
  bool ended = false;
  for (int nth = 0; !ended; nth++) {
    ec_known rows = {0};
    ec_runs runs = {0};
    until_it_fails = nth;
    bool whole = look(&rows, &runs);
    ended = until_it_fails >= 0;
    until_it_fails = -1;
    assert_true(whole || !ended);
    assert_true(look(&rows, &runs)); /* the next round has all of it */
    assert_int_equal(rows.count, KEYS);
    for (size_t i = 0; i < rows.count; i++)
      assert_non_null(rows.all[i]->json);
    assert_true(runs.count >= KEYS / 25);
    ec_known_free(&rows);
    ec_runs_free(&runs);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(only_the_same_secret_is_the_same),
      cmocka_unit_test(hosts_are_ours_or_not),
      cmocka_unit_test(sites_are_judged_by_host_and_origin),
      cmocka_unit_test(who_is_guarded_asks_for_token_or_cookie),
      cmocka_unit_test(json_strings_are_escaped),
      cmocka_unit_test(text_that_is_too_long_to_be_said_is_broken),
      cmocka_unit_test(words_of_a_shell_come_back),
      cmocka_unit_test(places_are_read),
      cmocka_unit_test(a_row_is_what_its_columns_say),
      cmocka_unit_test(a_row_is_new_when_something_of_it_is),
      cmocka_unit_test(keys_that_are_not_seen_again_are_gone),
      cmocka_unit_test(runs_are_kept_for_a_while),
      cmocka_unit_test(each_allocation_may_fail_once),
  };
  return cmocka_run_group_tests_name("eguard_serve", tests, NULL, NULL);
}
#endif
