#!/usr/bin/env bash
# Runs the project's tests, or one kind of them: unit spec lint system examples; deploy, the package and what else is in deploy/;
# and the ones that look inside: asan tsan valgrind gcstress slowio cover.
# Prints each runner's own output when it fails, and ends with one line: N passed, N failed, N skipped.
set -u
cd "$(dirname "$0")/.."
kinds=${*:-lint unit spec system examples}
jobs=$(nproc 2>/dev/null || echo 2)
passed=0 failed=0 skipped=0
mkdir -p build
start=$SECONDS
export ASAN_OPTIONS=${ASAN_OPTIONS-detect_stack_use_after_return=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS-print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS-suppressions=$PWD/tests/tsan.supp:second_deadlock_stack=1}

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
  one "lint luacheck" luacheck -q lua policies spec examples deploy rocks
}

unit() { # unit [MODE [WRAPPER [NAME...]]]: all of them, or those named
  local mode=${1:-asan} wrap=${2:-} names=${*:3} log count t files=() bins=()
  for t in tests/unit/*/*_test.c; do
    if [ -n "$names" ] && ! [[ " $names " == *" $(basename "$t" _test.c) "* ]]; then continue; fi
    files+=("$t"); bins+=("build/$mode/${t%.c}")
  done
  need -j"$jobs" MODE="$mode" "${bins[@]}"
  for t in "${files[@]}"; do
    local bin=build/$mode/${t%.c}
    log=$bin.log
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
  local name=$1 log=build/pytest-$1.log kept=build/pytest-$1; shift
  if ! make_ build/venv/ok >build/venv.log 2>&1; then tail -20 build/venv.log; failed=$((failed + 1)); say "FAILED $name: no Python environment"; return; fi
  rm -rf "$kept"
  if build/venv/bin/python -m pytest -rs --maxfail=20 -o cache_dir="$PWD/$kept" "$@" >"$log" 2>&1; then :; else say "FAILED $name"; tail -80 "$log"; fi
  grep -E '^SKIPPED ' "$log" || true
  local line; line=$(counts "$log")
  count() { say "$line" | grep -oE "[0-9]+ $1" | grep -oE '[0-9]+' | head -1; }
  local p f s e; p=$(count passed); f=$(count failed); s=$(count skipped); e=$(count errors?)
  local bad=$((${f:-0} + ${e:-0}))
  if [ "$bad" -gt 0 ] && [ "$bad" -le 2 ] && [ -z "${CLAW_BINARY:-}" ] && again "$log.again" "$kept" "$@"; then p=$((${p:-0} + ${f:-0})); bad=0; fi
  passed=$((passed + ${p:-0})); skipped=$((skipped + ${s:-0})); failed=$((failed + bad))
  [ -n "$line" ] || { failed=$((failed + 1)); }
}
counts() { grep -E '^[=]* ?[0-9]+ (passed|failed|skipped|error)' "$1" | tail -1; }

# Deadlines and orders of events are for a machine that does something else besides: one or two that failed beside others get
# a second try with the machine to themselves. It is said which; what fails twice has failed. Not for the kinds that look inside.
again() { # again LOG CACHE ARGS...
  local log=$1 kept=$2; shift 2
  build/venv/bin/python -m pytest -v --lf --lfnf=none -o cache_dir="$PWD/$kept" "$@" -n 0 >"$log" 2>&1 || { tail -40 "$log"; return 1; }
  grep -E ' PASSED' "$log" | sed 's/^/passed at the second try: /'
}

# Files run side by side, one more than there are processors since most of a test is waiting; those that measure ("alone") go
# one after the other behind them.
both() { # both NAME FILES...
  local name=$1; shift
  if [ "$jobs" -gt 1 ]; then py "$name" -n "$((jobs < 4 ? jobs + 1 : 4))" --dist loadfile -m "not alone" "$@"; py "$name-alone" -m alone "$@"; else py "$name" "$@"; fi
}
system() { [ -n "${CLAW_BINARY:-}" ] || need -j"$jobs" build; both system tests/system; }
examples() { need -j"$jobs" build; py examples tests/examples; }
# What is not there (lintian, helm, buildah …) is skipped, each with its name.
deploy() { need -j"$jobs" build; py deploy tests/deploy; }

# ---- the kinds that look inside. CLAW_KIND names them to the system suite, which leaves out what cannot be judged there;
# CLAW_SLOW stretches its deadlines.

inside() { # inside KIND MODE SLOW FILES...: the system suite, or a part, with a binary of this mode
  local kind=$1 mode=$2 slow=$3; shift 3
  need -j"$jobs" MODE="$mode" "build/$mode/openclaw-proxy"
  CLAW_KIND=$kind CLAW_BINARY=$PWD/build/$mode/openclaw-proxy CLAW_SLOW=${CLAW_SLOW:-$slow} both "$kind" "$@"
}

asan() { inside asan asan 4 tests/system; }

# The unit tests of what more than one thread touches, then the whole.
tsan() {
  local still=
  # GCC's ThreadSanitizer before 14.1 knows where programs are mapped with 28 random bits and not with more.
  if [ "$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28)" -gt 28 ]; then
    still="setarch -R"
    $still true 2>/dev/null || { say "tsan needs \"setarch -R\" (not permitted here) or: sysctl vm.mmap_rnd_bits=28"; failed=$((failed + 1)); return; }
  fi
  unit tsan "$still" loop lane offload log tls resolve stream stream_soon stream_tls stream_lane metrics facts pool store tally budget
  CLAW_WRAPPER=$still inside tsan tsan 8 tests/system
}

valgrind() {
  local v="valgrind -q --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --error-exitcode=99 --suppressions=$PWD/tests/valgrind.supp"
  CLAW_KIND=valgrind unit debug "$v"
  CLAW_WRAPPER=$v inside valgrind debug 15 tests/system/test_a_basics.py tests/system/test_e_upstream_failures.py tests/system/test_i_policies.py \
    tests/system/test_q_generations.py::test_reloads_under_load_leave_nothing_behind
}

# With AddressSanitizer: a string that C still looks at when the collector has freed it is found.
gcstress() { OPENCLAW_GCSTRESS=1 inside gcstress asan 6 tests/system; }
slowio() { OPENCLAW_SLOWIO=1 inside slowio release 4 tests/system; }

cover() {
  rm -f $(find build/cover -name '*.gcda' 2>/dev/null)
  unit cover
  local f
  for f in core/*/*.c; do
    gcov -n -o "build/cover/${f%.c}.o" "$f" 2>/dev/null | awk -v f="$f" '/^File/ {mine = index($0, "'\''" f "'\''")}
      mine && /^Lines executed/ {split($0, a, "[:% ]+"); printf "%s %s %s\n", f, a[3], a[5]; mine = 0}'
  done | awk '{split($1, d, "/"); hit = $2 * $3 / 100; floor[d[2]] += hit; of[d[2]] += $3; all += hit; n += $3; printf "%6.1f %%  %s\n", $2, $1}
    END {for (k in floor) printf "%6.1f %%  core/%s\n", 100 * floor[k] / of[k], k; if (n) printf "%6.1f %%  of %d lines\n", 100 * all / n, n}' | tee build/cover.txt
}

make_ -j"$jobs" testdeps >build/deps.log 2>&1 || { tail -20 build/deps.log; say "0 passed, 1 failed"; exit 1; }
for k in $kinds; do
  t=$SECONDS
  case $k in
    lint | unit | spec | system | examples | deploy | asan | tsan | valgrind | gcstress | slowio | cover) $k ;;
    *) say "unknown kind of test: $k"; exit 2 ;;
  esac
  say "$k: $((SECONDS - t)) s"
done
say "took $((SECONDS - start)) s"
say "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
