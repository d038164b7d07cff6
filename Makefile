# OpenClaw's one door. `make help` lists the targets; each installs what it needs, says what it does, and ends 0 only when
# all is well. Everything built lands under build/.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
MODE ?= release
B := build/$(MODE)
CC := gcc
JOBS := $(shell nproc 2>/dev/null || echo 2)

# ---- what the system must have (names of Debian's and Ubuntu's packages) ----------------------------------------------------
DEPS_RUN := gcc libc6-dev make pkg-config luajit libluajit-5.1-dev libuv1-dev libyaml-dev libmbedtls-dev libhiredis-dev libpcre2-dev libsqlite3-dev lua-cjson ca-certificates curl
# The tests start a redis-server of their own on a free port; the service that its package may start is not used.
DEPS_TEST := libcmocka-dev lua-busted lua-check python3 python3-venv binutils openssl redis-server
DEPS_BENCH := nginx-light wrk strace valgrind python3
DEPS_ROCK := luarocks lua-busted lua-cjson luajit
DEPS_FUZZ := clang libclang-rt-14-dev
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# Install what is missing of the packages named, and nothing when all are there.
define install
	@missing=""; for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; $(SUDO) apt-get update -qq; \
	DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$missing >build/apt.log 2>&1 || { tail -20 build/apt.log; exit 1; }; fi
endef

# ---- compiler --------------------------------------------------------------------------------------------------------------------
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-unused-parameter -Werror
# llhttp and the JSON scanner use what every x86 server since 2009 has; ARCH= builds for older ones.
ARCH ?= $(if $(filter x86_64,$(shell uname -m)),-march=x86-64-v2)
MODE_release := -O2 -fno-plt $(ARCH)
MODE_asan := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined -DCLAW_ARENA_EMU
MODE_tsan := -O1 -fno-omit-frame-pointer -fsanitize=thread
MODE_debug := -O0 -DCLAW_ARENA_EMU
MODE_cover := -O0 --coverage
VERSION := $(shell cat VERSION)
LUA_CPATH := $(wildcard /usr/lib/*/lua/5.1)
PKGS := libuv luajit yaml-0.1 hiredis libpcre2-8 sqlite3
LLHTTP := build/llhttp
CFLAGS = -std=gnu11 -D_GNU_SOURCE -g $(WARN) $(MODE_$(MODE)) -DLLHTTP_STRICT_MODE=1 -Icore -I$(LLHTTP)/include $(shell pkg-config --cflags $(PKGS)) \
  -DCLAW_VERSION='"$(VERSION)"' -DCLAW_LUA_CPATH='"$(firstword $(LUA_CPATH))/?.so"'
LIBS = $(shell pkg-config --libs $(PKGS)) -lmbedtls -lmbedx509 -lmbedcrypto -lpthread -lm -ldl

FLOORS := base net http proxy script app
SRC := $(foreach f,$(FLOORS),$(wildcard core/$(f)/*.c))
LIBSRC := $(filter-out core/app/main.c,$(SRC))
OBJ := $(SRC:%.c=$(B)/%.o)
LIB := $(B)/libclaw.a
BIN := $(B)/openclaw-proxy
LUA := $(shell find lua policies -name '*.lua' 2>/dev/null)
PAGES := $(wildcard core/app/pages/*)
UNIT := $(sort $(wildcard tests/unit/*/*_test.c))
UNITBIN := $(UNIT:%.c=$(B)/%)

# ---- building ---------------------------------------------------------------------------------------------------------------------
.PHONY: help deps build run test unit spec system examples bench lint fmt asan tsan valgrind fuzz gcstress slowio cover rock docs clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  \1\t\2/' | expand -t 14

build:
	@mkdir -p build
	@$(MAKE) --no-print-directory -j$(JOBS) deps
	@$(MAKE) --no-print-directory -j$(JOBS) $(BIN)

deps: ## install what building and running need
	@mkdir -p build
	$(call install,$(DEPS_RUN))
	@$(MAKE) --no-print-directory $(LLHTTP)/llhttp.c

# llhttp: the system's development package, or the sources in Debian 12's node-llhttp (unpacked, not installed: it would
# bring all of nodejs).
$(LLHTTP)/llhttp.c:
	@mkdir -p $(LLHTTP)/include $(LLHTTP)/deb
	@if pkg-config --exists libllhttp; then \
	  echo '/* the system library has it */' > $@; : > $(LLHTTP)/api.c; : > $(LLHTTP)/http.c; pkg-config --libs libllhttp > $(LLHTTP)/libs; \
	else echo "fetching node-llhttp"; cd $(LLHTTP)/deb; [ -n "$$(find /var/lib/apt/lists -name '*Packages*' -print -quit 2>/dev/null)" ] || $(SUDO) apt-get update -qq; \
	  apt-get -qq -o APT::Sandbox::User=root download node-llhttp; dpkg-deb -x node-llhttp_*.deb .; cd ../../..; \
	  cp $(LLHTTP)/deb/usr/share/include/llhttp/llhttp.h $(LLHTTP)/include/; cp $(LLHTTP)/deb/usr/share/llhttp/api.c $(LLHTTP)/deb/usr/share/llhttp/http.c $(LLHTTP)/; \
	  : > $(LLHTTP)/libs; cp $(LLHTTP)/deb/usr/share/llhttp/llhttp.c $@; fi

$(B)/core/%.o: core/%.c $(LLHTTP)/llhttp.c Makefile
	@mkdir -p $(@D)
	@echo "CC $<"
	@$(CC) $(CFLAGS) -MMD -MP -c $< -o $@

$(B)/llhttp/%.o: $(LLHTTP)/llhttp.c
	@mkdir -p $(@D)
	@$(CC) -O2 -g $(ARCH) -DLLHTTP_STRICT_MODE=1 $(filter -fsanitize%,$(MODE_$(MODE))) -I$(LLHTTP)/include -c $(LLHTTP)/$*.c -o $@

$(B)/embedded.c: $(LUA) $(PAGES) core/script/embed.lua
	@mkdir -p $(@D)
	@luajit core/script/embed.lua $@ lua policies core/app/pages
$(B)/embedded.o: $(B)/embedded.c
	@$(CC) $(CFLAGS) -c $< -o $@

$(LIB): $(LIBSRC:%.c=$(B)/%.o) $(B)/embedded.o $(B)/llhttp/llhttp.o $(B)/llhttp/api.o $(B)/llhttp/http.o
	@rm -f $@
	@ar rcs $@ $^

$(BIN): $(B)/core/app/main.o $(LIB)
	@echo "LD $@"
	@$(CC) $(MODE_$(MODE)) -rdynamic $^ $(LIBS) $$(cat $(LLHTTP)/libs) -o $@

-include $(OBJ:.o=.d)

include deploy/install.mk

run: build ## build and run the quickstart example with the built-in mock upstream
	@echo
	@echo "OpenClaw listens on http://127.0.0.1:8080 (Ctrl-C drains and stops). Try, in another terminal:"
	@echo
	@echo "  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\"
	@echo "    -d '{\"model\":\"mock-gpt\",\"messages\":[{\"role\":\"user\",\"content\":\"Hello!\"}]}'"
	@echo
	@echo "  the same, streamed: add \"stream\":true; the dashboard, with what each cost: http://127.0.0.1:9090/"
	@echo
	@exec $(BIN) -config examples/quickstart/openclaw.yaml

# ---- tests ---------------------------------------------------------------------------------------------------------------------------
$(B)/tests/unit/%: tests/unit/%.c $(LIB)
	@mkdir -p $(@D)
	@$(CC) $(CFLAGS) -Itests -MMD -MP -MF $@.d -rdynamic $< $(LIB) -lcmocka $(LIBS) $$(cat $(LLHTTP)/libs) -o $@
-include $(UNITBIN:%=%.d)

# promtool and prometheus are unpacked, not installed: the package starts a service and brings a web interface. Tests of
# metrics, alerts and the dashboard skip where it is not to be had.
build/prometheus/ok:
	@mkdir -p $(@D)
	@echo "fetching promtool and prometheus"; cd $(@D) && if apt-get -qq -o APT::Sandbox::User=root download prometheus 2>/dev/null; then \
	  dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool ./usr/bin/prometheus; rm -f *.deb; else echo "they are not to be had: their tests are skipped"; fi; : > ok

.PHONY: testdeps
testdeps: deps build/prometheus/ok
	$(call install,$(DEPS_TEST))

VENV := build/venv
$(VENV)/ok: tests/system/requirements.txt
	@echo "making the test suite's Python environment"
	@rm -rf $(VENV); python3 -m venv $(VENV)
	@$(VENV)/bin/pip install -q --disable-pip-version-check -r $< && touch $@

test: ## everything that must pass before a change lands; ends with one summary line
	@bash tests/run.sh

unit: testdeps ## C unit tests under ASan and UBSan
	@bash tests/run.sh unit
spec: testdeps ## specs of the Lua library and the shipped policies
	@bash tests/run.sh spec
system: testdeps ## the real binary against scripted upstreams and real clients
	@bash tests/run.sh system
examples: testdeps ## start and drive every example
	@bash tests/run.sh examples
lint: testdeps ## floors, names, docs, luacheck
	@bash tests/run.sh lint

asan: testdeps ## the system suite under AddressSanitizer, LeakSanitizer and UBSan
	@bash tests/run.sh asan
tsan: testdeps ## the unit tests of what threads share, and the system suite, under ThreadSanitizer
	@bash tests/run.sh tsan
valgrind: testdeps ## unit tests and the system suite's basics under valgrind
	$(call install,valgrind)
	@bash tests/run.sh valgrind
gcstress: testdeps ## the system suite with the Lua collector always at work
	@bash tests/run.sh gcstress
slowio: testdeps ## the system suite with reads of one byte, and writes that begin with one
	@bash tests/run.sh slowio
fuzz: deps ## run each fuzzer for FUZZ_SECONDS (default 60)
	$(call install,$(DEPS_FUZZ))
	@bash tests/fuzz/run.sh
# nginx's Lua module is unpacked, not installed: its LuaJIT is another package that would push ours out.
NGINX_LUA := libnginx-mod-http-lua libnginx-mod-http-ndk lua-resty-core lua-resty-lrucache libluajit2-5.1-2 libpcre3
build/bench/nginx-lua/ok:
	@mkdir -p $(@D)
	@echo "fetching nginx's Lua module"; cd $(@D) && if apt-get -qq -o APT::Sandbox::User=root download $(NGINX_LUA); then \
	  for d in *.deb; do dpkg-deb -x $$d .; done; else echo "it is not to be had: no comparison with it"; fi; : > ok
bench: build build/bench/nginx-lua/ok ## CPU, requests a second, time to first byte and memory beside nginx
	$(call install,$(DEPS_BENCH))
	@python3 tests/bench/bench.py
cover: testdeps ## line coverage of the C unit tests
	@bash tests/run.sh cover
# Installed beside, never into, the system; then a spec runs with nothing of this tree on its path.
ROCK := build/rock
rock: ## install the rock that tests policies into build/rock, and prove that it works there
	@mkdir -p build
	$(call install,$(DEPS_ROCK))
	@rm -rf $(ROCK)
	@luarocks --lua-version 5.1 make --tree $(ROCK) --deps-mode none rocks/openclaw-scm-1.rockspec >build/rock.log 2>&1 || { cat build/rock.log; exit 1; }
	@cd $(ROCK) && LUA_PATH="$$PWD/share/lua/5.1/?.lua;$$PWD/share/lua/5.1/?/init.lua;;" busted --lua=luajit $(CURDIR)/rocks/try_spec.lua
docs: $(BIN) ## write docs/policy-reference.md and docs/configuration.md from the tables that are gone by, and the rock's list of modules
	@luajit lua/openclaw/reference.lua docs/policy-reference.md
	@$(BIN) -reference >docs/configuration.md
	@luajit rocks/modules.lua
fmt: ## put C sources into the house's form
	$(call install,clang-format)
	@clang-format -i $$(find core tests -name '*.[ch]')
.PHONY: unitbins
unitbins: $(UNITBIN)
clean: ## remove what was built (dependencies stay)
	@rm -rf build/release build/asan build/tsan build/debug build/cover
