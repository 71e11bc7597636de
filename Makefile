# ExecutionGuard: build, test, check, install.  `make help` lists the targets.
#
# Everything that is made goes below $(BUILD).  Sources are found by wildcard:
# a new file in a known folder needs no line here.
#
# Variables to override: BUILD CC CFLAGS CPPFLAGS LDFLAGS PREFIX DESTDIR LUA
# LUA_INCDIR LUA_CFLAGS BUSTED V=1 (print the commands).

BUILD   ?= build
CFLAGS  ?= -O2 -g
PREFIX  ?= /usr/local
LIBFLAG ?= -shared
LUA     ?= lua5.4
# busted's first line takes whatever is called `lua`; we mean 5.4.
BUSTED  ?= $(LUA) "$$(command -v busted)"
PKG_CONFIG ?= pkg-config
INSTALL ?= install

VERSION := $(shell sed -n 's/^.define EG_VERSION "\(.*\)"$$/\1/p' \
             src/executionguard.h 2>/dev/null)
SOVERSION := 0

MAKEFLAGS += --no-builtin-rules --no-print-directory
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif

# Only these goals run their parts side by side.  All others are lists of
# steps; each step that builds is a make of its own, which also sees what the
# step before it has installed.
ifneq ($(filter-out all lib lua-module test-programs,$(MAKECMDGOALS)),)
.NOTPARALLEL:
endif

.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-3s %s\n' '$(1)' '$(2)')

# ------------------------------------------------------------------ flags --

pc = $(shell $(PKG_CONFIG) $(1) 2>/dev/null)

LUA_CFLAGS ?= $(if $(LUA_INCDIR),-I$(LUA_INCDIR),$(call pc,--cflags lua5.4))
MPACK_CFLAGS ?= $(call pc,--cflags mpack)
PQ_CFLAGS ?= $(call pc,--cflags libpq)
PQ_LIBS ?= $(or $(call pc,--libs libpq),-lpq)
ETCD_CFLAGS ?= $(call pc,--cflags libcurl jansson)
ETCD_LIBS ?= $(or $(call pc,--libs libcurl jansson),-lcurl -ljansson)
HIREDIS_LIBS ?= $(or $(call pc,--libs hiredis),-lhiredis)
MPACK_LIBS   ?= $(or $(call pc,--libs mpack),-lmpack)
CMOCKA_LIBS  ?= $(or $(call pc,--libs cmocka),-lcmocka)
LUA_LIBS     ?= $(or $(call pc,--libs lua5.4),-llua5.4)

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
            -Wwrite-strings -Wpointer-arith -Wvla -Wundef \
            -Wconversion -Wno-sign-conversion
# The two below are set by the targets further down.
WERROR   :=
SANITIZE :=
SAN_FLAGS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)

# Optimised across files, where the compiler can; the objects stay readable for
# nm.  Not under a sanitizer.
LTO ?= $(if $(SANITIZE),,$(shell f='-flto=auto -ffat-lto-objects'; \
         $(CC) $$f -Werror -x c -c /dev/null -o /dev/null 2>/dev/null && \
         echo "$$f"))

# What the sources cannot do without; CFLAGS stays the user's.  No PLT: a call
# into Lua goes straight.
OWN_CFLAGS := -std=c11 -fPIC -fno-plt \
              -fvisibility=hidden -pthread $(WARNINGS) \
              $(WERROR) $(SAN_FLAGS) $(LTO)
OWN_CPPFLAGS := -Isrc -D_GNU_SOURCE $(MPACK_CFLAGS)
SQLITE_LIBS  ?= $(or $(call pc,--libs sqlite3),-lsqlite3)
MD_LIBS      ?= $(or $(call pc,--libs libmd),-lmd)
OWN_LIBS := $(MPACK_LIBS) $(SQLITE_LIBS) $(MD_LIBS) -pthread -ldl -lm

COMPILE = $(CC) $(OWN_CPPFLAGS) $(CPPFLAGS) $(OWN_CFLAGS) $(CFLAGS) -MMD -MP
LINK = $(CC) $(OWN_CFLAGS) $(CFLAGS) $(LDFLAGS)

# ---------------------------------------------------------------- sources --

objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

# Stores that need a client library are objects of their own, each with a copy
# of what they share; built where the library's header is.
REMOTE_SRC := $(wildcard src/store/remote*.c) src/store/holder.c \
              src/store/seen.c src/store/steady.c src/core/codec.c \
              src/core/counters.c src/core/histogram.c src/core/record.c \
              src/core/tally.c
REDIS_SRC := $(wildcard src/store/redis*.c)
HAS_REDIS := $(shell printf '\043include <hiredis/hiredis.h>\n' | \
               $(CC) $(CPPFLAGS) $(CFLAGS) -E -x c -o /dev/null - 2>/dev/null \
               && echo redis)
PG_SRC := $(wildcard src/store/postgres*.c)
HAS_PG := $(shell printf '\043include <libpq-fe.h>\n' | \
            $(CC) $(PQ_CFLAGS) $(CPPFLAGS) $(CFLAGS) -E -x c -o /dev/null - \
            2>/dev/null && echo postgres)
ETCD_SRC := $(wildcard src/store/etcd*.c)
HAS_ETCD := $(shell printf '\043include <curl/curl.h>\n\043include <jansson.h>\n' | \
              $(CC) $(ETCD_CFLAGS) $(CPPFLAGS) $(CFLAGS) -E -x c -o /dev/null - \
              2>/dev/null && echo etcd)
STORES := $(HAS_REDIS) $(HAS_PG) $(HAS_ETCD)

LIB_SRC := $(filter-out $(wildcard src/store/remote*.c) $(REDIS_SRC) $(PG_SRC) \
             $(ETCD_SRC),\
             $(wildcard src/core/*.c src/store/*.c src/guard/*.c))
LUA_SRC := $(wildcard src/lua/*.c)
# The web server of eguard serve is a program of its own, beside the command,
# which loads no libraries.
HAS_WEB := $(shell printf '\043include <microhttpd.h>\n' | \
             $(CC) $(CPPFLAGS) $(CFLAGS) -E -x c -o /dev/null - 2>/dev/null \
             && echo web)
WEB_LIBS ?= $(or $(call pc,--libs libmicrohttpd),-lmicrohttpd)
WEB_SRC := $(if $(HAS_WEB),$(wildcard src/cli/serve*.c))
PAGE := $(wildcard src/page/*)
CLI_SRC := $(filter-out $(wildcard src/cli/serve*.c),$(wildcard src/cli/*.c))
LUA_FILES := $(wildcard lua/executionguard/*.lua lua/executionguard/*/*.lua)
MAN_PAGES := $(wildcard man/*.1 man/*.3)

TEST_SRC := $(wildcard spec/c/*_test.c spec/conformance/*_test.c \
              spec/faults/*_test.c)
HELP_SRC_c := $(filter-out %_test.c,$(wildcard spec/c/*.c))
HELP_SRC_conformance := $(filter-out %_test.c,$(wildcard spec/conformance/*.c))
HELP_SRC_faults := $(filter-out %_test.c,$(wildcard spec/faults/*.c))
EXAMPLES := $(wildcard spec/examples/*.lua spec/examples/*.sh)

LIB_OBJ := $(call objects,$(LIB_SRC))
ALL_OBJ := $(call objects,$(LIB_SRC) $(REMOTE_SRC) $(REDIS_SRC) $(PG_SRC) \
             $(ETCD_SRC) $(LUA_SRC) $(CLI_SRC) $(WEB_SRC) $(TEST_SRC) $(HELP_SRC_c) \
             $(HELP_SRC_conformance) $(HELP_SRC_faults) \
             $(wildcard spec/fuzz/*_fuzz.c))

STATIC_LIB := $(BUILD)/lib/libexecutionguard.a
SHARED_LIB := $(BUILD)/lib/libexecutionguard.so
LUA_CORE   := $(if $(LUA_SRC),$(BUILD)/lua/executionguard/core.so)
STORE_OBJECTS := $(STORES:%=$(BUILD)/lib/executionguard/store_%.so)
LUA_STORES := $(STORES:%=$(BUILD)/lua/executionguard/store_%.so)
LUA_COPIES := $(LUA_FILES:%=$(BUILD)/%)
EGUARD_STATIC ?= $(if $(SANITIZE),,-static)
EGUARD     := $(if $(CLI_SRC),$(BUILD)/bin/eguard)
EGUARD_TWIN := $(if $(EGUARD_STATIC),$(if $(STORES),$(if $(CLI_SRC),\
                 $(BUILD)/lib/executionguard/eguard)))
EGUARD_WEB := $(if $(WEB_SRC),$(BUILD)/lib/executionguard/eguard-serve)
HEADERS    := $(patsubst src/%,$(BUILD)/include/%,\
                $(wildcard src/executionguard*.h))
PC_FILE    := $(BUILD)/lib/pkgconfig/executionguard.pc
TEST_PROGRAMS := $(TEST_SRC:spec/%.c=$(BUILD)/test/%)

# ------------------------------------------------------------------ build --

.PHONY: all lib lua-module test-programs

all: lib lua-module $(EGUARD) $(EGUARD_TWIN) $(EGUARD_WEB) ## build the libraries and the Lua module
lib: $(STATIC_LIB) $(SHARED_LIB) $(STORE_OBJECTS) $(HEADERS) $(PC_FILE)
lua-module: $(LUA_CORE) $(LUA_STORES) $(LUA_COPIES)
# One of the programs opens Lua states, which find the module here.
# What Lua specs need beside the module.
SPEC_HELPERS := $(BUILD)/test/handclock.so

test-programs: $(TEST_PROGRAMS) lua-module lib $(SPEC_HELPERS)
all lib lua-module test-programs: ; @:

# A stamp that changes when a flag does, so that objects follow.
FLAGS := $(BUILD)/flags
FLAGS_NOW := $(COMPILE) | $(LUA_CFLAGS) | $(LINK) $(LIBFLAG) $(OWN_LIBS)
.PHONY: FORCE
$(FLAGS): FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(FLAGS_NOW)' | cmp -s - $@ || \
	  printf '%s\n' '$(FLAGS_NOW)' >$@

# Says once, and by the name of the package, what is missing.
CHECKED := $(BUILD)/headers-checked
$(CHECKED): $(FLAGS)
	@spec/tools/headers $(CC) $(OWN_CPPFLAGS) $(CPPFLAGS) $(LUA_CFLAGS) \
	  $(CFLAGS)
	@touch $@

$(BUILD)/obj/src/lua/%.o: OWN_CPPFLAGS += $(LUA_CFLAGS)
$(BUILD)/obj/spec/%.o: OWN_CPPFLAGS += -Ispec/c -Ispec/conformance -Ispec/faults \
                                        $(LUA_CFLAGS)

$(BUILD)/obj/%.o: %.c $(FLAGS) $(CHECKED)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -c -o $@ $<

-include $(ALL_OBJ:.o=.d)

# The list of objects, so that a library loses what a removed file put there.
$(BUILD)/lib.list: FORCE
	@mkdir -p $(@D)
	@echo '$(LIB_OBJ)' | cmp -s - $@ || echo '$(LIB_OBJ)' >$@

$(STATIC_LIB): $(LIB_OBJ) $(BUILD)/lib.list
	$(call say,AR,$@)
	@mkdir -p $(@D)
	@rm -f $@
	$(Q)$(AR) rcs $@ $(LIB_OBJ)

$(SHARED_LIB): $(LIB_OBJ) $(BUILD)/lib.list
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) -shared -Wl,-soname,$(@F).$(SOVERSION) -Wl,-z,nodelete \
	  -Wl,--no-undefined -o $@.$(SOVERSION) $(LIB_OBJ) $(OWN_LIBS) $(LIBS)
	@ln -sf $(@F).$(SOVERSION) $@

# nodelete: threads and signal handlers may outlive the Lua state that loaded
# the module.
$(BUILD)/lua/executionguard/core.so: $(call objects,$(LUA_SRC)) $(LIB_OBJ) \
                                     $(BUILD)/lib.list
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) $(LIBFLAG) -Wl,-z,nodelete -o $@ $(filter %.o,$^) \
	  $(OWN_LIBS) $(LIBS)

# nodelete: threads and fork handlers are in them.
$(BUILD)/lib/executionguard/store_redis.so: \
    $(call objects,$(REDIS_SRC) $(REMOTE_SRC))
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) $(LIBFLAG) -Wl,-z,nodelete -Wl,--no-undefined -o $@ \
	  $(filter %.o,$^) $(HIREDIS_LIBS) $(MPACK_LIBS) \
	  -pthread -lm $(LIBS)

# The stem is a dot in one of them.
$(BUILD)/obj/src/store/postgres%o: OWN_CPPFLAGS += $(PQ_CFLAGS)

$(BUILD)/lib/executionguard/store_postgres.so: \
    $(call objects,$(PG_SRC) $(REMOTE_SRC))
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) $(LIBFLAG) -Wl,-z,nodelete -Wl,--no-undefined -o $@ \
	  $(filter %.o,$^) $(PQ_LIBS) $(MPACK_LIBS) \
	  -pthread -lm $(LIBS)

$(BUILD)/obj/src/store/etcd%o: OWN_CPPFLAGS += $(ETCD_CFLAGS)

$(BUILD)/lib/executionguard/store_etcd.so: \
    $(call objects,$(ETCD_SRC) $(REMOTE_SRC))
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) $(LIBFLAG) -Wl,-z,nodelete -Wl,--no-undefined -o $@ \
	  $(filter %.o,$^) $(ETCD_LIBS) $(MPACK_LIBS) \
	  -pthread -lm $(LIBS)

# Beside the Lua module, which looks there first.
$(BUILD)/lua/executionguard/store_%.so: \
    $(BUILD)/lib/executionguard/store_%.so
	@mkdir -p $(@D)
	@ln -sf ../../lib/executionguard/$(@F) $@

# A command that is started often loads no libraries: that halves its start.
# Where there are no static ones, or under a sanitizer, as everything else.
$(EGUARD): $(call objects,$(CLI_SRC)) $(STATIC_LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D) $(BUILD)/log
	$(Q)$(LINK) $(EGUARD_STATIC) -o $@ $(filter %.o,$^) $(STATIC_LIB) \
	  $(OWN_LIBS) $(LIBS) $(if $(EGUARD_STATIC),2>$(BUILD)/log/eguard || \
	  $(LINK) -o $@ $(filter %.o,$^) $(STATIC_LIB) $(OWN_LIBS) $(LIBS))

# What loads a store cannot be static.
$(EGUARD_TWIN): $(call objects,$(CLI_SRC)) $(STATIC_LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $(filter %.o,$^) $(STATIC_LIB) $(OWN_LIBS) $(LIBS)

$(BUILD)/gen/page.c: $(PAGE) spec/tools/embed
	$(call say,GEN,$@)
	@mkdir -p $(@D)
	$(Q)spec/tools/embed cli/serve.h $(PAGE) >$@

$(BUILD)/obj/page.o: $(BUILD)/gen/page.c $(FLAGS)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -c -o $@ $<

# Beside the libraries: the command goes on as this one.
$(EGUARD_WEB): $(call objects,$(CLI_SRC) $(WEB_SRC)) $(BUILD)/obj/page.o \
               $(STATIC_LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $(filter %.o,$^) $(STATIC_LIB) $(WEB_LIBS) $(OWN_LIBS) \
	  $(LIBS)

# What a server under test has for a clock.
$(BUILD)/test/handclock.so: spec/tools/handclock.c $(FLAGS)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -O2 -fPIC -shared -o $@ $<

# A file that is gone from lua/ shall not be found here either.
$(BUILD)/lua.list: FORCE
	@mkdir -p $(BUILD)/lua
	@echo '$(LUA_FILES)' | cmp -s - $@ || { \
	  find $(BUILD)/lua -name '*.lua' -delete; echo '$(LUA_FILES)' >$@; }

$(BUILD)/lua/%.lua: lua/%.lua $(BUILD)/lua.list
	@mkdir -p $(@D)
	@cp $< $@

$(HEADERS): $(BUILD)/include/%: src/%
	@mkdir -p $(@D)
	@cp $< $@

# $(call pc_text,prefix)
define pc_text
prefix=$(1)
includedir=$${prefix}/include
libdir=$${prefix}/lib

Name: executionguard
Description: run this once: guards, locks and results
Version: $(VERSION)
Cflags: -I$${includedir} -pthread
Libs: -L$${libdir} -lexecutionguard
Libs.private: $(MPACK_LIBS) $(SQLITE_LIBS) $(MD_LIBS) -pthread
endef

$(PC_FILE): export PC_TEXT = $(call pc_text,$(abspath $(BUILD)))
$(PC_FILE): src/executionguard.h Makefile
	@mkdir -p $(@D)
	@printf '%s\n' "$$PC_TEXT" >$@

# Tests see the internal symbols too, hence the archive.  Not optimised across
# files: that would be done again for each program.
helpers = $(call objects,$(HELP_SRC_c) \
            $(if $(filter conformance,$(1)),$(HELP_SRC_conformance)) \
            $(if $(filter faults,$(1)),$(HELP_SRC_faults)))

define test_program
$(BUILD)/test/$(1)/%_test: $(BUILD)/obj/spec/$(1)/%_test.o \
                           $(call helpers,$(1)) $(STATIC_LIB)
	$$(call say,LD,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(LINK) $$(if $$(LTO),-fno-lto) -o $$@ $$(filter %.o,$$^) \
	  $$(STATIC_LIB) $$(CMOCKA_LIBS) $$(OWN_LIBS) $$(LIBS)
endef
$(eval $(call test_program,c))
$(eval $(call test_program,conformance))
$(eval $(call test_program,faults))
LUA_TESTS := states interrupt deadlines signal private moving lua_memory \
             lua_fork lua_cost
$(LUA_TESTS:%=$(BUILD)/test/c/%_test): private OWN_LIBS += $(LUA_LIBS)
# The parts of the command, in a test of their own; others run it.
$(BUILD)/test/c/eguard_units_test: \
  $(filter-out %/main.o,$(call objects,$(CLI_SRC)))
$(BUILD)/test/c/eguard_serve_test: \
  $(filter-out %/main.o,$(call objects,$(CLI_SRC))) \
  $(filter %_access.o %_listen.o %_rows.o %_runs.o %_text.o,\
    $(call objects,$(WEB_SRC)))
$(BUILD)/test/c/eguard_serve_test: private OWN_LIBS += \
  -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
test-programs: $(EGUARD) $(EGUARD_TWIN) $(EGUARD_WEB)
$(BUILD)/test/c/workers_test: private OWN_LIBS += $(LUA_LIBS)
.SECONDARY: $(ALL_OBJ)

$(BUILD)/test/faults/fork_test $(BUILD)/test/faults/deadlines_test: \
  private OWN_LIBS += $(LUA_LIBS)

# ------------------------------------------------------- what is needed --

DEPS := spec/tools/deps

.PHONY: deps
deps: ## install what is missing to build and test (apt; sudo unless root)
	@$(DEPS) build test demo

# -------------------------------------------------------------------- use --

ROOT := $(abspath $(BUILD))
# Joined so that Lua's own default (`;;`) stays where nothing else was set.
OUR_PATH  := $(ROOT)/lua/?.lua;$(ROOT)/lua/?/init.lua
OUR_CPATH := $(ROOT)/lua/?.so

define env_text
export PATH='$(ROOT)/bin':"$$PATH"
export LUA_PATH='$(OUR_PATH);'"$${LUA_PATH-;}"
export LUA_CPATH='$(OUR_CPATH);'"$${LUA_CPATH-;}"
if test -n "$${LUA_PATH_5_4+x}"; then
  export LUA_PATH_5_4='$(OUR_PATH);'"$$LUA_PATH_5_4"
fi
if test -n "$${LUA_CPATH_5_4+x}"; then
  export LUA_CPATH_5_4='$(OUR_CPATH);'"$$LUA_CPATH_5_4"
fi
endef
export ENV_TEXT := $(env_text)
# In recipes: $(WITH_ENV) command
WITH_ENV := eval "$$ENV_TEXT";

.PHONY: env demo bench
env: ## print the exports that use what was built: eval "$(make -s env)"
	@printf '%s\n' "$$ENV_TEXT"

demo: ## build, and run the arena example
	@$(DEPS) build demo
	@$(MAKE) all
	@$(WITH_ENV) exec $(LUA) spec/examples/arena.lua

bench: ## build, and measure against the peers
	@$(DEPS) build bench page
	@$(MAKE) all
	@$(MAKE) $(ROOT)/node/node_modules/playwright-core/package.json
	@$(WITH_ENV) exec spec/bench/run

# ------------------------------------------------------------------- test --

RESULTS := $(BUILD)/results
SUITE := spec/tools/suite $(RESULTS)
# What is run against each store that is a server, too; counts of rounds are
# divided, for each is a round trip.
RULES_OF_STORES := $(patsubst %,$(BUILD)/test/conformance/store_%_test,\
                     rules model steps threads) \
                   $(BUILD)/test/conformance/fence_test
SCALE_redis := 40
SCALE_postgres := 40
SCALE_etcd := 200
remote_scale = $(shell expr $(or $(EXECUTIONGUARD_SPEC_SCALE),1) '*' $(SCALE_$(1)))
# An empty database, made once for all builds.
export PG_CACHE ?= $(abspath $(BUILD))/postgres
FOR_TESTS = EXECUTIONGUARD_BUILD=$(abspath $(BUILD)) \
            EXECUTIONGUARD_STORES=$(abspath $(BUILD))/lib/executionguard \
            WITH_POSTGRES_CACHE=$(PG_CACHE)
PICKED := $(filter-out $(addprefix $(BUILD)/test/,$(LEFT_OUT)),\
            $(if $(T),$(filter %/$(T:_test=)_test,$(TEST_PROGRAMS)),\
            $(TEST_PROGRAMS)))

torture: ## kill holders a thousand times; 20,000 deadlines, under tsan too
	@$(DEPS) build test
	@$(MAKE) all test-programs
	TORTURE=1000 $(BUILD)/test/faults/torture_test
	DEADLINES=20000 $(BUILD)/test/faults/deadlines_test
	DEADLINES=20000 $(MAKE) tsan T=deadlines

nemesis: ## the nemesis on stores that are servers; NEMESIS=60: seconds each
	@$(DEPS) build test
	@$(MAKE) all test-programs
	NEMESIS=$(or $(NEMESIS),60) $(FOR_TESTS) $(BUILD)/test/faults/nemesis_test

.PHONY: torture nemesis test test-c test-lua test-examples suite-c suite-lua suite-examples

test: ## run all tests: C, Lua specs, examples, the page in Chromium
	@$(DEPS) build test page demo
	@$(MAKE) all test-programs
	@rm -rf $(RESULTS)
	@status=0; \
	for suite in c lua examples page; do \
	  $(MAKE) suite-$$suite || status=1; \
	done; \
	$(SUITE) total || status=1; \
	exit $$status

test-c: ## run the C tests; T=name: one of them
	@$(DEPS) build test
	@$(MAKE) test-programs
	@rm -rf $(RESULTS)
	@$(MAKE) suite-c

test-lua: ## run the Lua specs; SPEC=file: one of them
	@$(DEPS) build test
	@$(MAKE) all $(SPEC_HELPERS)
	@rm -rf $(RESULTS)
	@$(MAKE) suite-lua

test-examples: ## run the examples; each must end well
	@$(DEPS) build test demo
	@$(MAKE) all
	@rm -rf $(RESULTS)
	@$(MAKE) suite-examples

# The rules of a store run against each store's URL.
suite-c:
	@rm -rf $(BUILD)/stores; mkdir -p $(BUILD)/stores; \
	for program in $(PICKED); do \
	  $(FOR_TESTS) \
	  $(SUITE) cmocka $${program#$(BUILD)/test/} $$program || :; \
	done; \
	for program in $(filter $(BUILD)/test/conformance/store_%,$(PICKED)); do \
	  $(FOR_TESTS) EXECUTIONGUARD_STORE=file:$(abspath $(BUILD))/stores \
	  $(SUITE) cmocka $${program#$(BUILD)/test/}-file $$program || :; \
	done; \
	for program in $(filter $(RULES_OF_STORES),$(PICKED)); do \
	  for store in $(foreach store,$(STORES),$(store):$(call remote_scale,$(store))); do \
	    scale=$${store#*:} store=$${store%:*}; \
	    $(FOR_TESTS) EXECUTIONGUARD_SPEC_SCALE=$$scale \
	    $(SUITE) cmocka $${program#$(BUILD)/test/}-$$store \
	      spec/tools/with-$$store $(BUILD)/test/handclock.so $$program || :; \
	  done; \
	done; \
	$(SUITE) close $(or $(SUITE_NAME),"C tests")

# Each file in a process of its own: one that hangs is named, and the others
# are run.  SUITE_JOBS: how many at once.
suite-lua:
	@$(WITH_ENV) \
	  printf '%s\n' \
	    $(patsubst spec/%,%,$(or $(SPEC),$(wildcard spec/lua/*_spec.lua))) | \
	  xargs -P $(or $(SUITE_JOBS),1) -I FILE $(SUITE) busted FILE $(BUSTED) \
	    --output plainTerminal spec/FILE || :; \
	$(SUITE) close $(or $(SUITE_NAME),specs)

suite-examples:
	@$(WITH_ENV) for example in $(EXAMPLES); do \
	  case $$example in *.sh) by=sh;; *) by=$(LUA);; esac; \
	  $(SUITE) program $${example#spec/} $$by $$example || :; \
	done; \
	$(SUITE) close examples

# The page of eguard serve in headless Chromium, by playwright-core.  A picture
# of each view is kept below build/page.
PLAYWRIGHT := 1.56.1
NODE_MODULES := $(ROOT)/node/node_modules
PAGE_BROWSER = env NODE_PATH=$(NODE_MODULES) node
$(NODE_MODULES)/playwright-core/package.json: Makefile
	@mkdir -p $(ROOT)/node
	@cd $(ROOT)/node && npm install --silent --no-audit --no-fund \
	  --no-package-lock --no-save playwright-core@$(PLAYWRIGHT) \
	  </dev/null >log 2>&1 || { cat log; exit 1; }
	@touch $@

.PHONY: test-page suite-page
test-page: ## the page of eguard serve, in Chromium
	@$(DEPS) build page
	@$(MAKE) all
	@rm -rf $(RESULTS)
	@$(MAKE) suite-page

suite-page: $(NODE_MODULES)/playwright-core/package.json
	@$(WITH_ENV) $(SUITE) busted page $(PAGE_BROWSER) spec/page/page_test.js \
	  $(ROOT)/page || :; $(SUITE) close page

# ------------------------------------------------------- sanitizers, leaks --

.PHONY: asan ubsan tsan valgrind

# Most of what these do is done by other processes, which run ten times slower
# under a sanitizer: they are for the long form, SANITIZE_ALL=1.
PROCESS_TESTS := c/eguard_processes_test $(patsubst spec/%.c,%,\
                   $(wildcard spec/faults/*_test.c \
                     spec/conformance/postgres_test.c \
                     spec/conformance/herd_test.c \
                     spec/conformance/leave_test.c \
                     spec/conformance/redis_*_test.c \
                     spec/conformance/etcd_*test.c))

# $(call sanitizer,name,what,flags,variable,options[,command to run it with])
# Reports go to files, so that one of a forked child is seen too.
define sanitizer
	@$(DEPS) build test
	+@$(MAKE) test-programs BUILD=$(BUILD)/$(1) SANITIZE=$(2) \
	  CFLAGS="-O1 -g $(3)"
	@rm -rf $(BUILD)/$(1)/results $(BUILD)/$(1)/report*
	+@EXECUTIONGUARD_SPEC_SCALE=10 SUITE_REPORTS=$(ROOT)/$(1)/report \
	  SUITE_QUIET=1 SUITE_WITH="$(6)" $(4)=log_path=$(ROOT)/$(1)/report:$(5) \
	  $(MAKE) suite-c BUILD=$(BUILD)/$(1) SUITE_NAME=$(1) \
	  $(if $(SANITIZE_ALL),,STORES= LEFT_OUT="$(PROCESS_TESTS)")
	@$(if $(SANITIZE_ALL),,echo '$(1): left out (SANITIZE_ALL=1 runs them): \
	  $(words $(PROCESS_TESTS)) programs of processes and servers')
endef

# Its own signal stack: handlers that run there make it take the frames of the
# thread's stack for dead ones.
asan: ## C tests with the address sanitizer, leaks included
	$(call sanitizer,asan,address,,ASAN_OPTIONS,$\
	detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1$\
	:use_sigaltstack=0)

ubsan: ## C tests with the undefined behaviour sanitizer
	$(call sanitizer,ubsan,undefined,-fno-sanitize-recover=all,$\
	UBSAN_OPTIONS,print_stacktrace=1:halt_on_error=1)

# The children of forking tests may start threads of their own.  The sanitizer
# of older compilers cannot live with the address layout of newer kernels.
tsan: ## C tests with the thread sanitizer
	$(call sanitizer,tsan,thread,,TSAN_OPTIONS,$\
	halt_on_error=0:second_deadlock_stack=1:die_after_fork=0,$\
	$$(setarch $$(uname -m) -R true 2>/dev/null && echo setarch $$(uname -m) -R))

# The stack is made deep first: valgrind cannot deliver a signal onto a page of
# it that is not there yet.
DEEPEN := local function deep() ("x"):gsub("x", deep) end pcall(deep)

# Fair: else a thread that loops keeps valgrind's one lock, and the keeper waits
# for it.  Not the specs of real servers, whose clocks do not wait for valgrind;
# nor those of the command, which is another process.  As many at once as there
# are cores, the long ones first.
VALGRIND_SPECS = $(filter-out %/redis_spec.lua %/postgres_spec.lua \
                   %/etcd_spec.lua %/prometheus_spec.lua \
                   %/postgres_tls_spec.lua %/executor_processes_spec.lua \
                   $(wildcard spec/lua/eguard_*_spec.lua),\
                   $(shell ls -S spec/lua/*_spec.lua))

valgrind: ## Lua specs under valgrind; fails on what involves our module
	@$(DEPS) build test valgrind
	@$(MAKE) all $(SPEC_HELPERS)
	@rm -rf $(BUILD)/valgrind && mkdir -p $(BUILD)/valgrind
	@EXECUTIONGUARD_SPEC_SCALE=100 SUITE_LIMIT=600 SUITE_QUIET=1 \
	  SUITE_JOBS="$$(nproc)" LUA_INIT='$(DEEPEN)' \
	  SUITE_WITH="valgrind --quiet --fair-sched=try --xml=yes --leak-check=full \
	  --num-callers=40 --xml-file=$(ROOT)/valgrind/%p.xml" \
	  $(MAKE) suite-lua RESULTS=$(BUILD)/valgrind/results \
	  SUITE_NAME=valgrind SPEC="$(or $(SPEC),$(VALGRIND_SPECS))"
	@$(LUA) spec/tools/valgrind-ours executionguard/core.so \
	  $(BUILD)/valgrind/*.xml

# ------------------------------------------------------------------- fuzz --

.PHONY: fuzz fuzz-programs

FUZZ ?= 5
FUZZ_SRC := $(wildcard spec/fuzz/*_fuzz.c)
FUZZ_PROGRAMS := $(FUZZ_SRC:spec/%.c=$(BUILD)/test/%)

$(BUILD)/test/fuzz/%_fuzz: $(BUILD)/obj/spec/fuzz/%_fuzz.o $(STATIC_LIB) \
                           $(filter-out %/main.o,$(call objects,$(CLI_SRC))) \
                           $(call objects,$(LUA_SRC))
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) -fsanitize=fuzzer -o $@ $(filter %.o,$^) $(STATIC_LIB) \
	  $(OWN_LIBS) $(LUA_LIBS) $(LIBS)

fuzz-programs: $(FUZZ_PROGRAMS)

fuzz: ## parsers of stored bytes, names, pages, by libFuzzer; FUZZ=seconds each
	@$(DEPS) build fuzz
	+@$(MAKE) fuzz-programs BUILD=$(BUILD)/fuzz CC=clang \
	  SANITIZE=fuzzer-no-link,address,undefined \
	  CFLAGS="-O1 -g -fno-sanitize-recover=all"
	@spec/tools/fuzz $(FUZZ) $(FUZZ_PROGRAMS:$(BUILD)/%=$(BUILD)/fuzz/%)

# ----------------------------------------------------------------- models --

.PHONY: model

model: ## models of the protocols, by spin; MODEL=long: larger worlds too
	@$(DEPS) model
	@CC='$(CC)' MODEL='$(MODEL)' spec/tools/model $(BUILD)/model

# ------------------------------------------------------------------ check --

LINTED := $(LIB_SRC) $(LUA_SRC) $(CLI_SRC) $(WEB_SRC) $(TEST_SRC) $(HELP_SRC_c) \
          $(HELP_SRC_conformance) $(HELP_SRC_faults)
C_FILES := $(wildcard src/*.h src/*/*.[ch] spec/c/*.[ch] \
             spec/conformance/*.[ch] spec/fuzz/*.[ch] spec/faults/*.[ch])
LUA_TOOLS := spec/tools/layers spec/tools/sizes spec/tools/valgrind-ours \
             spec/tools/check-history
SHELL_FILES := .ci/run $(addprefix spec/tools/,deps embed fuzz headers model rock suite \
                 with-redis with-postgres with-etcd \
                 new-database store-server) $(wildcard spec/examples/*.sh)

.PHONY: check check-warnings check-lint check-lua check-format check-shell
.PHONY: layers sizes luarocks-test format

check: ## everything that is looked at without running it, and the rock
	@$(DEPS) build test check
	@$(MAKE) check-warnings
	@$(MAKE) check-lint
	@$(MAKE) check-lua check-format check-shell sizes layers
	@$(MAKE) luarocks-test
	@echo 'check: nothing found'

check-warnings: ## build with warnings as errors, by gcc and by clang
	@for cc in gcc clang; do \
	  command -v $$cc >/dev/null || continue; \
	  $(MAKE) all test-programs BUILD=$(BUILD)/werror-$$cc CC=$$cc \
	    WERROR=-Werror || exit 1; \
	done

check-lint: ## clang-tidy, by .clang-tidy
	$(call say,LINT,$(words $(LINTED)) files)
	@mkdir -p $(BUILD)
	$(Q)printf '%s\n' $(LINTED) | xargs -I FILE -P "$$(nproc)" \
	  clang-tidy --quiet FILE -- -std=c11 $(OWN_CPPFLAGS) $(CPPFLAGS) \
	  $(LUA_CFLAGS) -Ispec/c -Ispec/conformance -Ispec/faults 2>$(BUILD)/lint.err || \
	  { grep -v 'warnings generated' $(BUILD)/lint.err; exit 1; }

check-lua: ## luacheck
	$(call say,LUA,lua spec)
	$(Q)luacheck --quiet --no-color lua spec $(LUA_TOOLS) .busted \
	  .luacheckrc rockspec/*.rockspec

check-format: ## is everything formatted as .clang-format says?
	$(call say,FMT,$(words $(C_FILES)) files)
	$(Q)clang-format --dry-run -Werror $(C_FILES)

check-shell: ## shellcheck
	$(call say,SH,$(SHELL_FILES))
	$(Q)shellcheck $(SHELL_FILES)

sizes: ## no function over 60 lines, no file over 600, no line over 79
	@$(LUA) spec/tools/sizes src lua

layers: ## do includes and calls point downwards only?
	@$(MAKE) all
	@$(LUA) spec/tools/layers $(BUILD)/obj

luarocks-test: ## install the rock into a tree of its own and load it
	@spec/tools/rock

format: ## format the C files
	$(Q)clang-format -i $(C_FILES)

# ---------------------------------------------------------------- install --

INST_LIBDIR ?= $(DESTDIR)$(PREFIX)/lib/lua/5.4
INST_LUADIR ?= $(DESTDIR)$(PREFIX)/share/lua/5.4
TO := $(DESTDIR)$(PREFIX)
# Where bash, zsh and fish look by themselves.
COMPLETIONS := $(TO)/share/bash-completion/completions/eguard \
               $(TO)/share/zsh/site-functions/_eguard \
               $(TO)/share/fish/vendor_completions.d/eguard.fish

.PHONY: install install-lua-module uninstall clean help

install: export PC_TEXT = $(call pc_text,$(PREFIX))
install: ## install below PREFIX (/usr/local), staged by DESTDIR
	@$(MAKE) all
	$(INSTALL) -d $(TO)/include $(TO)/lib/pkgconfig
	$(INSTALL) -m 644 $(wildcard src/executionguard*.h) $(TO)/include/
	$(INSTALL) -m 644 $(STATIC_LIB) $(TO)/lib/
	$(INSTALL) -m 755 $(SHARED_LIB).$(SOVERSION) $(TO)/lib/
	ln -sf $(notdir $(SHARED_LIB)).$(SOVERSION) \
	  $(TO)/lib/$(notdir $(SHARED_LIB))
	@printf '%s\n' "$$PC_TEXT" >$(TO)/lib/pkgconfig/executionguard.pc
	$(if $(EGUARD),$(INSTALL) -d $(TO)/bin)
	$(if $(EGUARD),$(INSTALL) -m 755 $(EGUARD) $(TO)/bin/)
	$(if $(EGUARD),$(INSTALL) -d $(dir $(COMPLETIONS)))
	$(if $(EGUARD),$(EGUARD) completion bash >$(word 1,$(COMPLETIONS)))
	$(if $(EGUARD),$(EGUARD) completion zsh >$(word 2,$(COMPLETIONS)))
	$(if $(EGUARD),$(EGUARD) completion fish >$(word 3,$(COMPLETIONS)))
	$(if $(STORES)$(EGUARD_WEB),$(INSTALL) -d $(TO)/lib/executionguard)
	$(if $(STORES)$(EGUARD_WEB),$(INSTALL) -m 755 $(STORE_OBJECTS) \
	  $(EGUARD_TWIN) $(EGUARD_WEB) $(TO)/lib/executionguard/)
	$(foreach page,$(MAN_PAGES),$(INSTALL) -D -m 644 $(page) \
	  $(TO)/share/man/man$(subst .,,$(suffix $(page)))/$(notdir $(page));)
	@$(MAKE) install-lua-module

install-lua-module: # also what the rock installs
	$(INSTALL) -d $(INST_LIBDIR)/executionguard
	$(INSTALL) -m 755 $(BUILD)/lua/executionguard/core.so $(STORE_OBJECTS) \
	  $(INST_LIBDIR)/executionguard/
	@for file in $(LUA_FILES:lua/%=%); do \
	  $(INSTALL) -D -m 644 lua/$$file $(INST_LUADIR)/$$file || exit 1; \
	done

uninstall: ## remove what install put there
	rm -f $(TO)/include/executionguard.h \
	  $(TO)/include/executionguard_host.h \
	  $(TO)/include/executionguard_view.h $(TO)/lib/libexecutionguard.a \
	  $(TO)/lib/libexecutionguard.so $(TO)/lib/libexecutionguard.so.* \
	  $(TO)/lib/pkgconfig/executionguard.pc $(TO)/bin/eguard $(COMPLETIONS) \
	  $(foreach page,$(MAN_PAGES),\
	  $(TO)/share/man/man$(subst .,,$(suffix $(page)))/$(notdir $(page)))
	rm -rf $(INST_LIBDIR)/executionguard $(INST_LUADIR)/executionguard \
	  $(TO)/lib/executionguard

clean: ## remove everything that was built
	rm -rf $(BUILD)

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | \
	  while IFS='|' read -r target text; do \
	    printf '  %-16s %s\n' "$$target" "$$text"; \
	  done
