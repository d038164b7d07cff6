#!/usr/bin/env bash
# Runs the project's tests, or one kind of them: unit spec lint system examples valgrind cover.
# Prints each runner's own output when it fails, and ends with one line: N passed, N failed, N skipped.
set -u
cd "$(dirname "$0")/.."
kinds=${*:-lint unit spec system examples}
jobs=$(nproc 2>/dev/null || echo 2)
passed=0 failed=0 skipped=0
mkdir -p build
start=$SECONDS

say() { printf '%s\n' "$*"; }
make_() { make --no-print-directory "$@"; }

need() { # need TARGET...: build, or count as one failure and stop
  if ! make_ "$@" >build/make.log 2>&1; then tail -40 build/make.log; say "build failed: $*"; say "0 passed, 1 failed"; exit 1; fi
}

one() { # one NAME COMMAND...: a check that passes or fails as a whole
  local name=$1 out; shift
  if out=$("$@" 2>&1); then passed=$((passed + 1)); else failed=$((failed + 1)); say "FAILED $name"; say "$out" | tail -60; fi
}

lint() {
  for f in tests/lint/*.lua; do one "lint $(basename "$f" .lua)" luajit "$f"; done
  one "lint luacheck" luacheck -q lua policies spec examples
}

unit() {
  local mode=${1:-asan} wrap=${2:-} log count t
  need -j"$jobs" MODE="$mode" unitbins
  for t in tests/unit/*/*_test.c; do
    local bin=build/$mode/${t%.c}
    log=build/$(basename "$bin").log
    if CLAW_ROOT=. timeout 300 $wrap "$bin" >"$log" 2>&1; then :; else failed=$((failed + 1)); say "FAILED $t"; tail -60 "$log"; fi
    count=$(grep -c '\[       OK \]' "$log" || true); passed=$((passed + count))
    count=$(grep -c '\[  SKIPPED \] [a-z_A-Z0-9]*$' "$log" || true); skipped=$((skipped + count))
  done
}

spec() {
  local out
  if out=$(busted 2>&1); then :; else failed=$((failed + 1)); say "FAILED spec"; say "$out" | tail -80; fi
  local n; n=$(say "$out" | grep -oE '^[0-9]+ success' | grep -oE '[0-9]+' | tail -1); passed=$((passed + ${n:-0}))
}

py() { # py NAME ARGS...: pytest, its counts added
  local name=$1 log=build/pytest-$1.log; shift
  if ! make_ build/venv/ok >build/venv.log 2>&1; then tail -20 build/venv.log; failed=$((failed + 1)); say "FAILED $name: no Python environment"; return; fi
  if build/venv/bin/python -m pytest -q -x --maxfail=20 -p no:cacheprovider "$@" >"$log" 2>&1; then :; else say "FAILED $name"; tail -80 "$log"; fi
  local line; line=$(grep -E '^[=]* ?[0-9]+ (passed|failed|skipped|error)' "$log" | tail -1)
  count() { say "$line" | grep -oE "[0-9]+ $1" | grep -oE '[0-9]+' | head -1; }
  local p f s e; p=$(count passed); f=$(count failed); s=$(count skipped); e=$(count errors?)
  passed=$((passed + ${p:-0})); skipped=$((skipped + ${s:-0})); failed=$((failed + ${f:-0} + ${e:-0}))
  [ -n "$line" ] || { failed=$((failed + 1)); }
}

system() { [ -n "${CLAW_BINARY:-}" ] || need -j"$jobs" build; py system tests/system; }
examples() { need -j"$jobs" build; py examples tests/examples; }

make_ -j"$jobs" testdeps >build/deps.log 2>&1 || { tail -20 build/deps.log; say "0 passed, 1 failed"; exit 1; }
for k in $kinds; do
  t=$SECONDS
  case $k in
    lint | unit | spec | system | examples) $k ;;
    valgrind) unit debug "$CLAW_WRAPPER" ;;
    cover) unit cover ;;
    *) say "unknown kind of test: $k"; exit 2 ;;
  esac
  say "$k: $((SECONDS - t)) s"
done
say "took $((SECONDS - start)) s"
say "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
