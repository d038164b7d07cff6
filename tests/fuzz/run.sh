#!/usr/bin/env bash
# Builds each tests/fuzz/*_fuzz.c with libFuzzer, ASan and UBSan and runs it for FUZZ_SECONDS (default 60) over its corpus.
# FUZZ=h1 runs one. New inputs stay under build/fuzz; findings are kept there as crash-*.
set -eu
cd "$(dirname "$0")/../.."
seconds=${FUZZ_SECONDS:-60}
flags="-std=gnu11 -D_GNU_SOURCE -g -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -DLLHTTP_STRICT_MODE=1
  -Icore -Itests -Ibuild/llhttp/include $(pkg-config --cflags libuv luajit yaml-0.1)"
mkdir -p build/fuzz/obj
newest=$(find core -name '*.h' -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2)
objects=
for f in core/base/*.c core/http/h1*.c core/http/header.c core/http/sse.c core/http/event_stream.c core/http/multipart.c core/proxy/usage.c core/proxy/envelope.c core/proxy/dialect.c core/proxy/said.c build/llhttp/api.c build/llhttp/http.c build/llhttp/llhttp.c; do
  o=build/fuzz/obj/$(echo "$f" | tr / _).o
  [ "$o" -nt "$f" ] && [ "$o" -nt "$newest" ] || clang $flags -c "$f" -o "$o"
  objects="$objects $o"
done
passed=0 failed=0
for f in tests/fuzz/*_fuzz.c; do
  name=$(basename "$f" _fuzz.c)
  [ -z "${FUZZ:-}" ] || [ "$FUZZ" = "$name" ] || continue
  clang $flags -fsanitize=fuzzer "$f" $objects -lyaml -lpthread -lm -o "build/fuzz/$name"
  mkdir -p "build/fuzz/corpus/$name"
  echo "fuzzing $name for $seconds s"
  dict=; [ ! -f "tests/fuzz/$name.dict" ] || dict="-dict=tests/fuzz/$name.dict"
  if "build/fuzz/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 $dict -artifact_prefix="build/fuzz/$name-" \
    "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name" >"build/fuzz/$name.log" 2>&1; then
    passed=$((passed + 1)); grep -E 'number_of_executed_units' "build/fuzz/$name.log" || true
  else
    failed=$((failed + 1)); tail -40 "build/fuzz/$name.log"
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
