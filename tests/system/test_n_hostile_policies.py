"""N: hostile policies. Whatever a policy does, its own request ends in bounded time, and nobody else notices."""
import json

import pytest

from client import ask, chat, eventually
from hostile import ADDED_MS, ANSWER_MS, BUDGET_MS, hold, meanwhile, ping, release, route, within
from proxy import Proxy, run

pytestmark = pytest.mark.alone

# Each is the body of request(req, body). STOPPED: ends by the budget; FAILS: ends with some error; ENDS: may also be well.
STOPPED, FAILS, ENDS = "stopped", "fails", "ends"

SCRIPTS = {
    # loops
    "loop": (STOPPED, "while true do end"),
    "loop_repeat": (STOPPED, "local n = 0 repeat n = n + 1 until false"),
    "loop_for": (STOPPED, "for i = 1, math.huge do end"),
    "loop_tail_calls": (STOPPED, "local function f() return f() end f()"),
    "loop_in_pcall": (STOPPED, "while true do pcall(function() while true do end end) end"),
    "loop_of_pcalls": (STOPPED, "local function f() pcall(f) f() end while true do pcall(f) end"),
    "loop_in_xpcall": (STOPPED, "while true do xpcall(function() while true do end end, function() while true do end end) end"),
    "loop_in_handler": (STOPPED, "xpcall(error, function() while true do end end, 'x')"),
    "loop_after_catch": (STOPPED, "pcall(function() while true do end end) while true do end"),
    "loop_in_coroutine": (STOPPED, "while true do coroutine.wrap(function() while true do end end)() end"),
    "loop_of_coroutines": (STOPPED, "while true do pcall(coroutine.wrap(function() while true do end end)) end"),
    "loop_of_yields": (STOPPED, "local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end"),
    "loop_deep_coroutines": (STOPPED, "local function f(n) if n == 0 then while true do end end coroutine.resume(coroutine.create(f), n - 1) while true do end end f(20)"),
    "loop_in_sort": (STOPPED, "table.sort({ 3, 2, 1 }, function() while true do end end)"),
    "loop_in_gsub": (STOPPED, "(('x'):rep(100)):gsub('x', function() while true do end end)"),
    "loop_in_iterator": (STOPPED, "for _ in function() return 1 end do end"),
    "loop_of_services": (STOPPED, "while true do claw.hash('x') claw.json.encode({ 1, 2, 3 }) claw.time.now() end"),
    "loop_of_strings": (STOPPED, "while true do local s = ('x'):rep(1000):upper():reverse() end"),
    # patterns
    "pattern_stars": (STOPPED, "return (('a'):rep(5000)):find(('a*'):rep(20) .. 'b')"),
    "pattern_options": (STOPPED, "return (('a'):rep(30)):match(('a?'):rep(30) .. ('a'):rep(31))"),
    "pattern_lazy": (STOPPED, "return string.find(('a'):rep(1000000), '.-.-.-b')"),
    "pattern_balance": (STOPPED, "return string.match(('('):rep(1000000), '%b()')"),
    "pattern_gmatch": (STOPPED, "for _ in (('a'):rep(200000)):gmatch('a*a*a*b') do end"),
    "pattern_gsub": (STOPPED, "return (('a'):rep(200000)):gsub('(a*)*%1b', '')"),
    "pattern_in_pcall": (STOPPED, "while true do pcall(string.find, ('a'):rep(5000), ('a*'):rep(20) .. 'b') end"),
    "pattern_captures": (FAILS, "return (('x'):rep(50)):find(('(x)'):rep(40))"),
    "pattern_nesting": (FAILS, "return (('a'):rep(300)):find(('(a?)'):rep(31) .. ('a?'):rep(300))"),
    "pattern_plain": (ENDS, "return string.find(('a'):rep(2000000), ('a'):rep(1000000) .. 'b', 1, true)"),
    "pattern_glob": (ENDS, "require('claw.glob').compile('*' .. ('a'):rep(500000) .. 'b*')(('a'):rep(1000000))"),
    # much of something
    "memory_doubling": (FAILS, "local s = 'x' while true do s = s .. s end"),
    "memory_doubling_caught": (STOPPED, "local s = 'x' while true do pcall(function() s = s .. s end) end"),
    "memory_table": (FAILS, "local t = {} for i = 1, 1e9 do t[i] = i end"),
    "memory_objects": (FAILS, "local t = {} for i = 1, 1e9 do t[i] = { {} } end"),
    "memory_strings": (FAILS, "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(100000) .. i end"),
    "memory_rep": (FAILS, "return ('x'):rep(1e9)"),
    "memory_concat": (FAILS, "local s, t = ('x'):rep(1e6), {} for i = 1, 1000 do t[i] = s end return table.concat(t)"),
    "memory_format": (FAILS, "return ('%99999d'):format(1)"),
    "memory_closures": (FAILS, "local f = function() end while true do local g = f f = function() return g() end end"),
    "memory_coroutines": (FAILS, "local t = {} for i = 1, 200000 do t[i] = coroutine.create(function() end) end while true do end"),
    "memory_unpack": (FAILS, "return unpack({}, 1, 1e8)"),
    "memory_pieces": (FAILS, "return (('x'):rep(100000)):gsub('x', ('y'):rep(10000))"),
    "sort_huge": (ENDS, "local t = {} for i = 1, 50000 do t[i] = (i * 7919) % 50021 end for i = 1, 100 do table.sort(t) end"),
    "insert_in_front": (STOPPED, "local t = {} for i = 1, 1e7 do table.insert(t, 1, i) end"),
    # the stack
    "deep_recursion": (FAILS, "local function f() return 1 + f() end return f()"),
    "deep_pcall": (ENDS, "local function f() pcall(f) end f() while true do pcall(f) end"),
    "deep_gsub": (FAILS, "local function f() return (('x'):gsub('x', f)) end return f()"),
    "deep_sort": (FAILS, "local function f() table.sort({ 1, 2, 3 }, f) return false end return f()"),
    "deep_wrap": (FAILS, "local function f() return coroutine.wrap(f)() end return f()"),
    "deep_resume": (ENDS, "local function f() coroutine.resume(coroutine.create(f)) end f()"),
    "deep_require": (FAILS, "require('lib.' .. ('x'):rep(100000))"),
    # odd errors
    "error_nil": (FAILS, "error(nil)"),
    "error_table": (FAILS, "error({ policy = 'other', hook = 'admit', message = {}, traceback = print })"),
    "error_function": (FAILS, "error(function() end)"),
    "error_coroutine": (FAILS, "error(coroutine.create(function() end))"),
    "error_huge": (FAILS, "error(('secret-detail'):rep(100000))"),
    "error_array": (FAILS, "error(claw.json.array())"),
    "error_document": (FAILS, "error(body)"),
    "error_in_coroutine": (FAILS, "coroutine.wrap(function() error({ 1 }) end)()"),
    "yield": (FAILS, "coroutine.yield(1)"),
    "json_long_text": (FAILS, "claw.json.decode('[' .. ('1,'):rep(4000000) .. '1]') claw.log('info', 'went on')"),
    "yield_in_pcall": (FAILS, "pcall(coroutine.yield, 1) error('went on')"),
    "answer_function": (FAILS, "return function() end"),
    "answer_coroutine": (FAILS, "return coroutine.create(function() end)"),
    "answer_cycle": (FAILS, "local t = {} t.t = t return t"),
    "answer_many_times_itself": (FAILS, "local t = { 1 } for i = 1, 60 do t = { t, t } end return t"),
    # writes and escapes
    "global": (FAILS, "leaked = 1"),
    "global_by_table": (FAILS, "_G.leaked = 1"),
    "library": (FAILS, "string.find = nil"),
    "service": (FAILS, "claw.json.encode = nil"),
    "methods": (FAILS, "('x').find = nil"),
    "no_metatables": (FAILS, "setmetatable(_G, nil)"),
    "no_string_metatable": (FAILS, "getmetatable('').__index = {}"),
    "no_environment": (FAILS, "setfenv(1, {})"),
    "no_bytecode": (FAILS, "return string.dump(function() end)"),
    "no_loader": (FAILS, "return loadstring('return 1')()"),
    "no_files": (FAILS, "return io.open('/etc/passwd')"),
    "no_commands": (FAILS, "return os.execute('true')"),
    "no_modules": (FAILS, "return require('ffi')"),
    "no_engine": (FAILS, "return require('claw.engine')"),
    # wrong, huge and cyclic values for every service
    "json_cycle": (FAILS, "local t = {} t[1] = t return claw.json.encode(t)"),
    "json_many_times_itself": (FAILS, "local t = { 1 } for i = 1, 60 do t = { t, t } end return claw.json.encode(t)"),
    "json_wide": (FAILS, "local t = { 1 } for i = 1, 4 do local u = {} for j = 1, 200 do u['k' .. j] = t end t = u end return claw.json.encode(t)"),
    "json_odd": (FAILS, "return claw.json.encode({ pcall })"),
    "json_function": (FAILS, "return claw.json.encode(claw.json.encode)"),
    "json_deep_text": (ENDS, "return tostring(claw.json.decode(('['):rep(1000000)))"),
    "json_many_arrays": (ENDS, "while true do claw.json.decode('[' .. ('[],'):rep(50000) .. '[]]') end"),
    "json_escapes": (ENDS, "claw.json.decode('[[],\"' .. ('\\\\n'):rep(2000000) .. '\"]')"),
    "json_array_of_library": (FAILS, "return claw.json.array(string)"),
    "base64_huge": (ENDS, "return claw.base64.encode(('x'):rep(8000000))"),
    "base64_odd": (FAILS, "return claw.base64.decode({})"),
    "log_many_times_itself": (ENDS, "local t = { 1 } for i = 1, 60 do t = { t, t } end claw.log('info', 'x', { t = t })"),
    "log_wide": (ENDS, "local t = { 1 } for i = 1, 4 do local u = {} for j = 1, 1000 do u[j] = t end t = u end claw.log('info', 'x', { t = t })"),
    "log_odd": (FAILS, "claw.log({}, function() end, 7)"),
    "hash_odd": (FAILS, "claw.hash({})"),
    "state_odd": (FAILS, "claw.state('x')"),
    "route_odd": (FAILS, "claw.route.failover({ 1, 2 }, {})"),
    "route_facts": (STOPPED, "claw.route.lowest_latency({ { name = 'a' }, { name = 'b' } }, { outstanding = function() while true do end end, latency_ms = function() while true do end end })"),
    "cost_odd": (FAILS, "claw.cost(1, 2)"),
    "doc_cycle": (FAILS, "local t = {} t.t = t body.x = t"),
    "doc_many_times_itself": (FAILS, "local t = { 1 } for i = 1, 60 do t = { t, t } end body.x = t"),
    "doc_grows": (FAILS, "body.list = { 1 } while true do body.list:append(('x'):rep(10000)) end"),
    "doc_odd": (FAILS, "claw.doc.insert(7, {}, print)"),
    "doc_path": (ENDS, "return claw.doc.get(body, ('a.'):rep(1000000))"),
    "header_huge": (FAILS, "req.upstream.headers['x-a'] = ('x'):rep(10000000)"),
    "header_split": (FAILS, "req.upstream.headers['x-a'] = 'a\\r\\nx-b: c'"),
    "path_odd": (FAILS, "req.upstream.path = {}"),
}

OTHER_HOOKS = {
    "hook_admit": (STOPPED, "admit = function(req) while true do end end"),
    "hook_route": (STOPPED, "route = function(req, candidates) while true do end end"),
    "hook_response": (STOPPED, "response = function(req, body) while true do end end"),
    "hook_route_list": (FAILS, "route = function(req, candidates) local t = {} for i = 1, 1e5 do t[i] = i end return t end"),
    "hook_response_table": (FAILS, "response = function(req, body) local t = { 1 } for i = 1, 60 do t = { t, t } end return t end"),
}


def policy(name, code):
    return f'local P = {{ name = "{name}", api = 1 }}\nfunction P.request(req, body)\n    {code}\nend\nreturn P\n'


@pytest.fixture(scope="module")
def proxy():
    files = {f"{n}.lua": policy(n, code) for n, (_, code) in SCRIPTS.items()}
    files.update({f"{n}.lua": f'return {{ name = "{n}", api = 1, {code} }}\n' for n, (_, code) in OTHER_HOOKS.items()})
    files["skipping.lua"] = 'return { name = "skipping", api = 1, on_error = "skip", request = function() while true do end end }\n'
    p = Proxy({"upstreams": {"a": {"type": "mock", "models": ["m"]}}, "routes": [route("plain")] + [route(n[:-4], n[:-4]) for n in files],
               "policies": {"always": []}}, policies=files)
    hold(p)
    yield p
    release(p)
    p.stop()


@pytest.mark.parametrize("name", [*SCRIPTS, *OTHER_HOOKS])
def test_nobody_else_notices(proxy, name):
    kind = {**SCRIPTS, **OTHER_HOOKS}[name][0]
    answers = []

    def added():
        answer, computed = meanwhile(proxy, name)
        answers.append(answer)
        return computed
    within(ADDED_MS, added)
    within(ANSWER_MS, lambda: max(ping(c) for c in proxy.held))
    assert proxy.process.poll() is None
    for answer in answers:
        assert answer.status in ((200, 500) if kind == ENDS else (500,))
        if answer.status == 200:
            continue
        error = answer.json()["error"]
        assert error["code"] == "policy_error"
        text = answer.body.decode()
        assert ".lua" not in text and name not in text and "traceback" not in text and "detail" not in text and len(text) < 400
        rid = answer.get("x-openclaw-request-id")
        line = proxy.wait_log(lambda e: e.get("msg") == "a policy failed" and e.get("request_id") == rid)
        assert line["policy"] == name and f"policies/{name}.lua" in line["error"] + line["traceback"]
        assert line["hook"] == (name.split("_")[1] if name in OTHER_HOOKS else "request")
        if kind == STOPPED:
            assert f"stopped after {BUDGET_MS} ms of CPU time (policies.budget_ms)" in line["error"]
            assert f"policies/{name}.lua:" in line["error"]
            assert proxy.metric("openclaw_policy_stops_total", policy=name) >= 1


def test_a_stopped_policy_that_skips(proxy):
    assert ask(proxy, chat(), headers=[("x-route", "skipping")]).status == 200
    assert proxy.metric("openclaw_policy_stops_total", policy="skipping", hook="request") == 1
    line = proxy.wait_log(lambda e: e.get("msg") == "a policy failed and was skipped" and e.get("policy") == "skipping")
    assert f"policies/skipping.lua:1: stopped after {BUDGET_MS} ms" in line["message"]


@pytest.mark.parametrize("text", ["while true do end", "return { name = 'x', api = 1, init = function() while true do pcall(error) end end }",
                                  "return { name = 'x', api = 1, selftest = function() while true do end end }",
                                  "local t = {} while true do t[#t + 1] = {} end", "return (('a'):rep(9000)):find(('a*'):rep(20) .. 'b')"])
def test_a_file_that_does_not_load_in_time_is_refused(tmp_path, text):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "x.lua").write_text(text)
    (tmp_path / "openclaw.yaml").write_text(json.dumps({"upstreams": {"a": {"type": "mock"}}, "policies": {"dir": "policies"},
                                                        "routes": [{"id": "r", "match": {"path": "/*"}, "strategy": {"type": "failover", "upstreams": ["a"]}}]}))
    told = run("-config", tmp_path / "openclaw.yaml", "-check")
    assert told.returncode != 0
    assert "policies/x.lua:1: " in told.stdout + told.stderr
    assert "stopped after 100 ms" in told.stdout + told.stderr or "not enough memory" in told.stdout + told.stderr


def test_a_file_of_lib_is_watched(proxy):
    lib = proxy.policies / "lib"
    lib.mkdir()
    (lib / "words.lua").write_text('return { "first" }')
    before = proxy.generation()
    (proxy.policies / "speaking.lua").write_text(
        'local words = require("lib.words")\nreturn { name = "speaking", api = 1, admit = function() return { deny = 418, code = words[1] } end }')
    proxy.write_config({**proxy.config, "routes": proxy.config["routes"] + [route("speaking", "speaking")]})
    eventually(lambda: proxy.generation() > before)
    assert eventually(lambda: ask(proxy, chat(), headers=[("x-route", "speaking")]).json()["error"]["code"] == "first")
    (lib / "words.lua").write_text('return { "second" }')
    assert eventually(lambda: ask(proxy, chat(), headers=[("x-route", "speaking")]).json()["error"]["code"] == "second")
