"""N: hostile uses of what policies are given: every claw.* function and what can be set, with what it is not for."""
import pytest

from client import Raw, ask, chat
from hostile import ADDED_MS, ANSWER_MS, BUDGET_MS, headed, hold, meanwhile, ping, release, route, within
from proxy import Proxy
from redis_server import Redis
from upstream import Upstream

pytestmark = pytest.mark.alone

KEY = "sk-hostile-0b7c2f51"

# What scripts say about what they get.
SAYING = """
local function gives(want, ...)
    local value, message, code = ...
    assert(value == nil and code == want, tostring(value) .. " " .. tostring(message) .. " " .. tostring(code))
end
local function raises(text, f, ...)
    local ok, err = pcall(f, ...)
    assert(not ok and tostring(err):find(text, 1, true), tostring(err))
end
local function never(f, ...) -- an answer; whether it raises or says why not is its own business
    local ok, value, message, code = pcall(f, ...)
    assert(not ok or (value == nil and type(code) == "string"), tostring(value))
    return ok and code or "raised"
end
local BYTES = {}
for i = 0, 255 do BYTES[i + 1] = string.char(i) end
BYTES = table.concat(BYTES)
local WIDE = { 1 }
for i = 1, 60 do WIDE = { WIDE, WIDE } end
local CYCLE = {}
CYCLE.t = CYCLE
local MANY = {}
local function many() -- over some calls: more than one of them may make
    for i = 1, 40000 do MANY[#MANY + 1] = "x" .. i end
    return MANY
end
"""

# Each is the body of request(req, body), what spreads over many turns of the loop in LONG. FINE: its own assertions hold, 200; STOPPED: by the budget; FAILS: some error of
# the policy's, told as one; ENDS: any of these.
FINE, STOPPED, FAILS, ENDS = "fine", "stopped", "fails", "ends"

PRIVATE = """127.0.0.1 127.1 127.0.1 0x7f.1 0x7f000001 0x7F.0x0.0x0.0x1 2130706433 0177.0.0.1 017700000001 127.0.0.1. 127.255.255.254
    localhost localhost. LOCALHOST [::1] [::ffff:127.0.0.1] [::ffff:7f00:1] [0:0:0:0:0:ffff:127.0.0.1] [::127.0.0.1] [::]
    [64:ff9b::7f00:1] [64:ff9b:1::7f00:1] [2002:7f00:1::] [2001:0:7f00:1::] [fe80::1] [fe80::1%25lo] [fe80::1%lo] [fc00::1] [fd00:ec2::254] [ff02::1] 0 0.0.0.0 00 169.254.169.254
    0xa9fea9fe 10.0.0.1 012.1 172.16.0.1 192.168.1.1 192.0.0.192 100.64.0.1 198.18.0.1 224.0.0.1 255.255.255.255 168.63.129.16""".split()
TRICKS = [
    "http://user:pw@127.0.0.1:PORT/", "http://example.com@127.0.0.1:PORT/", "http://example.com:80@127.0.0.1:PORT/", "http://127.0.0.1:PORT#@example.com/",
    "http://127.0.0.1:PORT\\\\@example.com/", "http:///127.0.0.1:PORT/", "http:127.0.0.1:PORT/", "//127.0.0.1:PORT/", "127.0.0.1:PORT/", "file:///etc/passwd", "gopher://127.0.0.1:PORT/",
    "redis://127.0.0.1:PORT/", "HTTP://127.0.0.1:PORT/", "http://127.0.0.1:99999/", "http://127.0.0.1:0/", "http://127.0.0.1:-1/", "http://127.0.0.1: 80/", "http://127.0.0.1:80:80/",
    "http://127.0.0.1:PORT:/", "http://[::1/", "http://[]/", "http://::1/", "http://", "", "http://127.0.0.1:PORT\\r\\n/", "http://127.0.0.1\\0.example.com/", "http://127。0。0。1/", "http://①②⑦.⓪.⓪.①/",
    "http://127.0.0.1%2f@example.com/", "http://%31%32%37.0.0.1/", "http://127.0.0.1\\t/", "http://*/", "http://127.0.0.1,127.0.0.1/", "http://127.0.0.1/ HTTP/1.1\\r\\nx: y\\r\\n\\r\\n",
]


def lua_list(texts):
    return "{" + ", ".join(f'"{t}"' for t in texts) + "}"


SCRIPTS = {
    # ---- claw.store
    "store_key_huge": (FINE, "gives('ETOO_LARGE', claw.store.set(('k'):rep(1e6), 1)) gives('ETOO_LARGE', claw.store.incr(('k'):rep(1e6))) assert(claw.store.get(('k'):rep(1e6)) == nil) assert(not claw.store.delete(('k'):rep(257)))"),
    "store_value_huge": (FINE, "gives('ETOO_LARGE', claw.store.set('big', ('v'):rep(1e6))) gives('ETOO_LARGE', claw.store.cas('big', nil, ('v'):rep(1e6))) assert(claw.store.get('big') == nil)"),
    "store_key_bytes": (FINE, "local k = BYTES:sub(1, 250) assert(claw.store.set(k, BYTES)) assert(claw.store.get(k) == BYTES and claw.store.get(k:sub(1, 249)) == nil) assert(claw.store.set('', 1) == true and claw.store.get('') == 1 and claw.store.get('\\0') == nil)"),
    "store_of_others": (FINE, "for _, k in ipairs({ 'secret', 'plain_store\\0secret', 'plain_store/secret', 'plain_store:secret', '\\0secret', '../plain_store/secret' }) do assert(claw.store.get(k) == nil and claw.store.get(k, { shared = true }) == nil, k) end"),
    "store_key_odd": (FINE, "for _, k in ipairs({ 1, true, {}, print or tostring, body, req }) do raises('a key is a string', claw.store.get, k) raises('a key is a string', claw.store.set, k, 1) raises('a key is a string', claw.store.cas, k, 1, 2) end raises('a key', claw.store.get)"),
    "store_ttl_odd": (FINE, "for _, t in ipairs({ 0 / 0, 1 / 0, -1 / 0, -1, 0, 0.5, 1e13, '1', true, {} }) do raises('ttl_ms', claw.store.set, 'k', 1, { ttl_ms = t }) raises('ttl_ms', claw.store.incr, 'k', 1, { ttl_ms = t }) end assert(claw.store.get('k') == nil)"),
    "store_value_odd": (FINE, "for _, v in ipairs({ {}, body, req, tostring, coroutine.create(tostring) }) do raises('a value is', claw.store.set, 'k', v) raises('a value is', claw.store.cas, 'k', v, 1) end raises('NaN', claw.store.set, 'k', 0 / 0) raises('a value is', claw.store.set, 'k', nil)"),
    "store_options_odd": (FINE, "for _, o in ipairs({ 'x', 1, body, req, { ttl = 1 }, { 1 }, { [BYTES] = 1 }, { shared = 'yes' }, { [('x'):rep(1e5)] = 1 } }) do raises('claw.store.set', claw.store.set, 'k', 1, o) end assert(claw.store.set('k', 1, claw.json))"),
    "store_incr_odd": (FINE, "for _, n in ipairs({ 0 / 0, 0.5, '1', {}, true }) do raises('whole number', claw.store.incr, 'n', n) end gives('ERANGE', claw.store.incr, 'n', 1 / 0)".replace("claw.store.incr, 'n', 1 / 0)", "claw.store.incr('n', 1 / 0))") + " gives('ERANGE', claw.store.incr('n', -1 / 0)) gives('ERANGE', claw.store.incr('n', 2 ^ 53)) claw.store.set('t', 'x') gives('EINVAL', claw.store.incr('t'))"),
    "store_cas_loop": (STOPPED, "while true do claw.store.cas('k', nil, 1) claw.store.cas('k', 1, 2) end"),
    "store_get_loop": (STOPPED, "claw.store.set('big', ('v'):rep(60000)) while true do claw.store.get('big') end"),
    "store_flood": (STOPPED, "for i = 1, 1e9 do claw.store.set('k' .. i, ('v'):rep(60000), { shared = true }) end"),
    # ---- claw.http.fetch
    "fetch_private": (FINE, f"local to = {lua_list(PRIVATE)} for i = 1, #to do never(claw.http.fetch, {{ url = 'http://' .. to[i] .. ':PORT/private', timeout_ms = 500 }}) never(claw.http.fetch, {{ url = 'https://' .. to[i] .. '/', timeout_ms = 500 }}) end"),
    "fetch_private_codes": (FINE, "for _, to in ipairs({ '127.0.0.1', '127.1', '0x7f.1', '[::1]', '[::ffff:127.0.0.1]', 'localhost', '169.254.169.254' }) do local code = never(claw.http.fetch, 'http://' .. to .. ':PORT/') assert(code == 'EDENIED' or code == 'raised' or code == 'ERESOLVE', to .. ' ' .. code) end gives('EDENIED', claw.http.fetch('http://127.0.0.1:PORT/'))"),
    "fetch_tricks": (FINE, f"local to = {lua_list(TRICKS)} for i = 1, #to do never(claw.http.fetch, {{ url = to[i], timeout_ms = 500 }}) end"),
    "fetch_url_odd": (FINE, "for _, u in ipairs({ 1, true, {}, body, req, claw, claw.json.array(), BYTES, ('x'):rep(1e5), 'http://' .. ('a'):rep(1e5), 'http://example.com/' .. BYTES, 'http://example.com/\\r\\nx: y', 'http://example.com/ HTTP/1.1' }) do never(claw.http.fetch, u) end raises('claw.http.fetch', claw.http.fetch) raises('claw.http.fetch', claw.http.fetch, nil, nil)"),
    "fetch_headers_odd": (FINE, "for _, h in ipairs({ { ['x-a'] = 'b\\r\\nc: d' }, { ['x-a'] = 'b\\nc: d' }, { ['x-a\\r\\ny'] = 'z' }, { ['x a'] = 'z' }, { ['x-a:'] = 'z' }, { [''] = 'x' }, { ['x-a'] = '\\0' }, { host = 'other' }, { ['Content-Length'] = '5' }, "
                          "{ ['transfer-encoding'] = 'chunked' }, { connection = 'close' }, { te = 'trailers' }, { upgrade = 'h2c' }, { expect = '100-continue' }, { 'x' }, { ['x-a'] = {} }, { ['x-a'] = body }, { [body] = 'x' } }) do raises('headers', claw.http.fetch, { upstream = 'a', path = '/odd', headers = h }) end raises('headers', claw.http.fetch, { upstream = 'a', headers = 'x: y' }) raises('headers', claw.http.fetch, { upstream = 'a', headers = body })"),
    "fetch_headers_many": (ENDS, "local h = {} for i = 1, 101 do h['x-' .. i] = 'y' end raises('more than 100 headers', claw.http.fetch, { upstream = 'a', path = '/odd', headers = h }) local m = claw.state(req) claw.http.fetch({ upstream = 'a', path = '/odd', headers = many() })"),
    "fetch_method_odd": (FINE, "for _, m in ipairs({ 'GET / HTTP/1.1\\r\\nx: y\\r\\n\\r\\nGET', 'CONNECT', 'TRACE', 'get', '', ' GET', 'GET ', 'G\\0T', {}, 1, body, claw }) do raises('method', claw.http.fetch, { upstream = 'a', path = '/odd', method = m }) end"),
    "fetch_path_odd": (FINE, "for _, p in ipairs({ '/../secret', '/a/../../secret', '/a/./b', '/%2e%2e/secret', '/.%2E/secret', '/a b', '/a\\r\\nx: y', '/a#b', '/\\0', '/é', '@127.0.0.1/', '.evil.example/', ':80/', ' ', {}, 1, body }) do raises('path', claw.http.fetch, { upstream = 'a', path = p }) end"),
    "fetch_path_of_others": (FINE, "local answer = claw.http.fetch({ upstream = 'a', path = '//127.0.0.1:1/other' }) assert(answer.status == 200 and answer.body:find('//127.0.0.1:1/other', 1, true))"),
    "fetch_options_odd": (FINE, "for _, o in ipairs({ { uri = 'x' }, { 'x' }, { [('x'):rep(1e5)] = 1 }, { [BYTES] = 1 }, { [body] = 1 }, { upstream = 'none' }, { upstream = {} }, { upstream = 'a', url = 'http://example.com' }, { upstream = 'a', body = CYCLE }, { upstream = 'a', body = tostring }, "
                          "{ upstream = 'a', timeout_ms = 0 / 0 }, { upstream = 'a', timeout_ms = 1 / 0 }, { upstream = 'a', timeout_ms = -1 }, { upstream = 'a', timeout_ms = '5' }, { upstream = 'a', max_body_kb = 0 / 0 }, { upstream = 'a', max_body_kb = 1e9 }, { upstream = 'a', max_body_kb = {} } }) do raises('claw.http.fetch', claw.http.fetch, o) end"),
    "fetch_body_many_times_itself": (FAILS, "claw.http.fetch({ upstream = 'a', path = '/odd', body = WIDE })"),
    "fetch_body_wide": (FAILS, "local t = { 1 } for i = 1, 4 do local u = {} for j = 1, 200 do u['k' .. j] = t end t = u end claw.http.fetch({ upstream = 'a', path = '/odd', body = t })"),
    "fetch_body_huge": (ENDS, "local answer = claw.http.fetch({ upstream = 'a', path = '/taken', body = ('x'):rep(8e6) })"),
    "fetch_redirect": (FINE, "local answer = claw.http.fetch({ upstream = 'a', path = '/redirect' }) assert(answer.status == 302, answer.status) gives('EDENIED', claw.http.fetch(answer.headers.location))"),
    "fetch_key": (FINE, f"local answer = claw.http.fetch({{ upstream = 'a', path = '/key', headers = {{ Authorization = 'Bearer mine', ['x-a'] = 'b' }} }}) assert(answer.status == 200 and not answer.body:find('{KEY}', 1, true) and not answer.headers['x-told']:find('{KEY}', 1, true) and not answer.body:find('mine', 1, true), answer.body)"),
    "fetch_answer_huge": (FINE, "gives('ETOO_LARGE', claw.http.fetch({ upstream = 'a', path = '/endless', max_body_kb = 64 })) gives('ETOO_LARGE', claw.http.fetch({ upstream = 'a', path = '/endless', max_body_kb = 0 }))"),
    "fetch_answer_past_memory": (FAILS, "local keep = {} for i = 1, 20 do keep[i] = claw.http.fetch({ upstream = 'a', path = '/megabytes', max_body_kb = 8192 }) end"),
    "fetch_many_at_once": (FINE, "local tasks, busy = {}, 0 for i = 1, 40 do tasks[i] = claw.task.spawn(claw.http.fetch, { upstream = 'a', path = '/slow', timeout_ms = 50 }) end for i = 1, 40 do local _, _, code = claw.task.wait(tasks[i]) busy = busy + (code == 'EBUSY' and 1 or 0) end assert(busy == 24, busy)"),
    # ---- claw.redis
    "redis_injection": (FINE, "gives('EREDIS', claw.redis.call('SET inj 1\\r\\nFLUSHALL')) local v = 'v\\r\\n*1\\r\\n$8\\r\\nFLUSHALL\\r\\n' assert(claw.redis.call('SET', 'k\\r\\nDEL inj', v) == 'OK') assert(claw.redis.call('GET', 'k\\r\\nDEL inj') == v)"),
    "redis_binary": (FINE, "assert(claw.redis.call('SET', BYTES, BYTES) == 'OK') assert(claw.redis.call('GET', BYTES) == BYTES) assert(claw.redis.call('SET', '', '') == 'OK' and claw.redis.call('GET', '') == '') gives('EREDIS', claw.redis.call('GET\\0', 'k')) gives('EREDIS', claw.redis.call('', 'k'))"),
    "redis_refused": (FINE, "for _, c in ipairs({ 'SUBSCRIBE', 'subscribe', 'PSubscribe', 'SSUBSCRIBE', 'UNSUBSCRIBE', 'MONITOR', 'BLPOP', 'blmove', 'BZPOPMIN', 'BLMPOP', 'BRPOPLPUSH', 'MULTI', 'EXEC', 'DISCARD', 'WATCH', 'AUTH', 'HELLO', 'SELECT', 'QUIT', 'RESET', 'CLIENT', 'SHUTDOWN', 'DEBUG', 'SYNC', 'PSYNC', 'REPLCONF', 'WAIT', 'WAITAOF' }) do raises('not possible', claw.redis.call, c, 'x', 0) end "
                      "raises('not possible', claw.redis.call, 'XREAD', 'BLOCK', 0, 'STREAMS', 's', '$') raises('not possible', claw.redis.call, 'xreadgroup', 'GROUP', 'g', 'c', 'block', 0, 'STREAMS', 's', '>')"),
    "redis_refused_nearly": (FINE, "for _, c in ipairs({ 'MULTI ', ' MULTI', 'MULTI\\0', 'MULTI\\r\\n', 'ＭＵＬＴＩ' }) do gives('EREDIS', claw.redis.call(c)) end assert(claw.redis.call('SET', 'after', '1') == 'OK' and claw.redis.call('GET', 'after') == '1')"),
    "redis_words_odd": (FINE, "for _, w in ipairs({ {}, body, req, tostring, true, 0 / 0, 1 / 0 }) do raises('claw.redis.call', claw.redis.call, 'SET', w, 'x') end raises('claw.redis.call', claw.redis.call) raises('claw.redis.call', claw.redis.call, nil, 'x') raises('claw.redis.call', claw.redis.call, 'GET', nil) raises('claw.redis.call', claw.redis.call, 'MGET', unpack(MANY, 1, 2000)) "
                        "for _, o in ipairs({ { timeout = 1 }, { timeout_ms = 0 / 0 }, { timeout_ms = 1 / 0 }, { timeout_ms = 0 }, { timeout_ms = {} }, { [body] = 1 } }) do raises('claw.redis.call', claw.redis.call, 'PING', o) end"),
    "redis_command_huge": (FINE, "gives('ETOO_LARGE', claw.redis.call('SET', 'k', ('x'):rep(2e6))) assert(claw.redis.call('PING') == 'PONG')"),
    "redis_reply_wide": (ENDS, "gives('EDOWN', claw.redis.call('EVAL', 'local t = {} for i = 1, 500000 do t[i] = i end return t', 0))"),
    "redis_reply_deep": (ENDS, "claw.redis.call('EVAL', 'local t = {} for i = 1, 5 do t = { t, t } end local u = t for i = 1, 6 do u = { u } end return u', 0) claw.time.sleep(300)"),
    "redis_script_odd": (FINE, "for _, s in ipairs({ 1, {}, body, true }) do raises('claw.redis.script', claw.redis.script, s) end for _, k in ipairs({ 'x', 1, body }) do raises('claw.redis.script', claw.redis.script, 'return 1', k) raises('claw.redis.script', claw.redis.script, 'return 1', {}, k) end raises('claw.redis.script', claw.redis.script, 'return 1', { {} }) raises('claw.redis.script', claw.redis.script, 'return 1', { CYCLE }) raises('claw.redis.script', claw.redis.script, 'return 1', {}, {}, { x = 1 }) gives('EREDIS', claw.redis.script('return +')) gives('EREDIS', claw.redis.script(BYTES)) gives('EREDIS', claw.redis.script('return redis.call(\"SUBSCRIBE\", \"x\")'))"),
    "redis_script_many": (FAILS, "claw.redis.script('return 1', many(), MANY)"),
    "redis_script_huge": (ENDS, "local s = ('-'):rep(12e6) for i = 1, 50 do claw.redis.script(s .. i) end"),
    "redis_loop": (ENDS, "for i = 1, 1e6 do claw.redis.call('REPLCONF', 'ACK', i) end"),
    "redis_many_at_once": (FINE, "local tasks = {} for i = 1, 64 do tasks[i] = claw.task.spawn(claw.redis.call, 'ECHO', i) end for i = 1, 60 do assert(claw.task.wait(tasks[i]) == tostring(i)) end"),
    # ---- claw.task
    "task_waits_for_itself": (FINE, "local t t = claw.task.spawn(function() claw.time.sleep(1) return select(3, claw.task.wait(t)) end) assert(claw.task.wait(t) == 'EINVAL')"),
    "task_waits_for_each_other": (FINE, "local a, b a = claw.task.spawn(function() claw.time.sleep(1) claw.task.wait(b) end) b = claw.task.spawn(function() claw.task.wait(a) end)"),
    "task_waited_for_twice": (FINE, "local t = claw.task.spawn(function() claw.time.sleep(1) return 1, 2 end) for i = 1, 3 do local a, b = claw.task.wait(t) assert(a == 1 and b == 2) end local x, y = claw.task.wait(t, t) assert(x == 1 and y == 1)"),
    "task_bomb": (ENDS, "for i = 1, 1e6 do claw.task.spawn(function() claw.time.sleep(1000) end) end"),
    "task_bomb_inside": (FINE, "local n = 0 local function f() n = n + 1 claw.task.spawn(f) end f() assert(n <= 70, n)"),
    "task_bomb_of_sleepers": (FINE, "local function f() claw.time.sleep(1) claw.task.spawn(f) claw.task.spawn(f) end for i = 1, 10 do claw.task.spawn(f) end claw.time.sleep(30)"),
    "task_of_another": (ENDS, "local shared = claw.json and MANY if MANY.task then gives('EPOLICY', claw.task.wait(MANY.task)) end MANY.task = claw.task.spawn(function() claw.time.sleep(10) return 'other' end)"),
    "task_forged": (FINE, "for _, t in ipairs({ { id = 1 }, { id = 0 / 0 }, { id = {} }, { id = 1e300 }, { id = 'x' } }) do never(claw.task.wait, t) end for _, t in ipairs({ 1, 'x', true, body, req, {}, claw }) do raises('claw.task.wait', claw.task.wait, t) end raises('claw.task.wait', claw.task.wait) raises('claw.task.wait', claw.task.wait, nil)"),
    "task_errors": (FINE, "for _, e in ipairs({ 'x', {}, CYCLE, tostring, body, ('x'):rep(1e6) }) do gives('EPOLICY', claw.task.wait(claw.task.spawn(error, e))) end gives('EPOLICY', claw.task.wait(claw.task.spawn(error))) gives('EPOLICY', claw.task.wait(claw.task.spawn(function() claw.time.sleep(1) error({ policy = 'x' }) end)))"),
    "task_yields": (ENDS, "claw.task.wait(claw.task.spawn(coroutine.yield, 1))"),
    "task_in_coroutine": (FINE, "raises('cannot wait', coroutine.wrap(function() claw.time.sleep(1) end)) raises('cannot wait', coroutine.wrap(function() claw.task.spawn(tostring, 1) end)) raises('cannot wait', coroutine.wrap(function() claw.http.fetch('http://127.0.0.1/') end)) raises('cannot wait', coroutine.wrap(function() claw.redis.call('PING') end))"),
    "task_odd": (FINE, "for _, f in ipairs({ 1, 'x', {}, body, claw.json, coroutine.create(tostring) }) do raises('wants a function', claw.task.spawn, f) raises('wants a function', claw.task.background, f) end raises('wants a function', claw.task.spawn)"),
    "task_loop": (STOPPED, "claw.task.spawn(function() while true do end end) while true do end"),
    "task_memory": (FAILS, "local tasks = {} for i = 1, 8 do tasks[i] = claw.task.spawn(function() claw.time.sleep(1) local s = 'x' while true do s = s .. s end end) end for i = 1, 8 do assert(claw.task.wait(tasks[i])) end"),
    "background_of_dead_request": (FINE, "local t = claw.task.spawn(function() claw.time.sleep(5) end) local b = body claw.task.background(function() claw.time.sleep(20) pcall(claw.task.wait, t) pcall(function() b.x = 1 return req.path, req.upstream.headers['x'] end) raises('', tostring, nil) end)"),
    "background_errors": (FINE, "for _, e in ipairs({ 'x', {}, CYCLE, ('x'):rep(1e6) }) do claw.task.background(error, e) end claw.task.background(coroutine.yield)"),
    "background_bomb": (ENDS, "for i = 1, 1e6 do claw.task.background(function() claw.time.sleep(200) end) end"),
    "background_of_background": (FINE, "local function f() claw.time.sleep(1) claw.task.background(f) end claw.task.background(f)"),
    # ---- claw.time
    "sleep_odd": (FINE, "for _, ms in ipairs({ -1, 0 / 0, 1 / 0, -1 / 0, 600001, 1e300, '5', true, {}, body }) do raises('claw.time.sleep', claw.time.sleep, ms) end raises('claw.time.sleep', claw.time.sleep) claw.time.sleep(0) claw.time.sleep(0.001) claw.time.sleep(-0)"),
    "sleep_loop": (ENDS, "for i = 1, 150 do claw.time.sleep(0) end"),
    # ---- claw.re
    "re_catastrophic": (ENDS, "for _, p in ipairs({ '(a+)+$', '(a|aa)+$', '(a*)*b', '(.*)*=', '^(a?){30}a{30}$', '(x+x+)+y', '((a+)+)+c', '(?:(?:(?:a+)+)+)+b' }) do assert(not claw.re.find(('a'):rep(60000) .. '!', p)) end"),
    "re_recursive": (FINE, "for _, p in ipairs({ '(?R)*', '((?1))', '(?:(?=(a+))a)+$', '(a(?1)?b)+c', '\\\\((?:[^()]++|(?R))*\\\\)' }) do pcall(claw.re.find, ('('):rep(60000), p) end"),
    "re_loop": (STOPPED, "while true do claw.re.find(('a'):rep(60000) .. '!', '(a+)+$') end"),
    "re_new_patterns": (STOPPED, "for i = 1, 1e6 do claw.re.find('x', ('(a|b)'):rep(30) .. i) end"),
    "re_pattern_huge": (FINE, "raises('4096 bytes', claw.re.find, 'x', ('a'):rep(1e6)) raises('bad pattern', claw.re.find, 'x', ('('):rep(4000)) raises('bad pattern', claw.re.find, 'x', ('(a)'):rep(33)) raises('bad pattern', claw.re.find, 'x', '(?:a{1000}){1000}{1000}') pcall(claw.re.find, 'x', ('(?:'):rep(800) .. 'a' .. (')'):rep(800))"),
    "re_pattern_odd": (FINE, "for _, p in ipairs({ '[', '(', '*', '\\\\', '(?<n', '(?P=x)', '\\\\C', '(*UTF)', '(?C1)a', '[[:x:]]', '\\255', '(?<n>a)(?<n>b)' }) do pcall(claw.re.find, 'a', p) end assert(claw.re.match('a\\0b', 'a\\0b') == 'a\\0b') assert(claw.re.match('ab', '(?<first>a)') == 'a') for _, v in ipairs({ 1, {}, body, true }) do raises('wants a text', claw.re.find, v, 'a') raises('wants a text', claw.re.match, 'a', v) end"),
    "re_callout": (ENDS, "claw.re.find(('a'):rep(1000), '(?C255)(a+)+(?C)$')"),
    "re_verbs": (ENDS, "for _, p in ipairs({ '(*LIMIT_MATCH=4000000000)(a+)+$', '(*LIMIT_HEAP=4000000000)(a+)+$', '(*NO_AUTO_POSSESS)(*NO_START_OPT)(a+)+$' }) do assert(not claw.re.find(('a'):rep(60000) .. '!', p)) end"),
    "re_text_huge": (FINE, "gives('ETOO_LARGE', claw.re.find(('a'):rep(2e6), 'b')) gives('EUTF8', claw.re.find('\\255\\254', 'a')) gives('EUTF8', claw.re.gsub(BYTES, 'a', 'b'))"),
    "re_gsub_grows": (ENDS, "claw.re.gsub(('a'):rep(1e6), 'a', ('%0'):rep(1000))"),
    "re_gsub_loop": (STOPPED, "claw.re.gsub(('a'):rep(1e5), 'a', function() while true do end end)"),
    "re_gsub_slow": (STOPPED, "while true do claw.re.gsub(('a'):rep(1e5), '', 'x') end"),
    "re_gsub_odd": (FINE, "for _, r in ipairs({ 1, {}, body, true }) do raises('replacement', claw.re.gsub, 'a', 'a', r) end raises('%', claw.re.gsub, 'a', 'a', '%') raises('capture', claw.re.gsub, 'a', 'a', '%9') raises('returned', claw.re.gsub, 'a', 'a', function() return {} end) raises('whole number', claw.re.gsub, 'a', 'a', 'b', 0 / 0) raises('boom', claw.re.gsub, 'a', 'a', function() error('boom') end) assert(claw.re.gsub('aa', 'a', function() return claw.re.gsub('aa', 'a', 'b') end) == 'bbbb')"),
    "re_find_init": (FINE, "for _, i in ipairs({ 0 / 0, 1 / 0, -1 / 0, 0.5, '1', {} }) do raises('whole number', claw.re.find, 'a', 'a', i) end".replace("1 / 0, -1 / 0, ", "") + " claw.re.find('a', 'a', 1 / 0) claw.re.find('a', 'a', -1 / 0) claw.re.find('a', 'a', -1e300) claw.re.find('a', 'a', 0)"),
    # ---- claw.env, claw.metrics, claw.log, and the small ones
    "env_odd": (FINE, "for _, n in ipairs({ 'HOME', 'PATH', 'HOSTILE', 'HOSTILE_SECRET\\0', 'HOSTILE_SECRET=', 'hostile_secret', '', ('x'):rep(1e6), BYTES, 'LD_PRELOAD' }) do assert(claw.env(n) == nil, n) end for _, n in ipairs({ 1, {}, body, true }) do raises('claw.env', claw.env, n) end assert(claw.env('HOSTILE_SECRET'))"),
    "metrics_names": (FINE, "for _, n in ipairs({ '', 'X', '1a', 'a b', 'a-b', 'a\\n', 'a{b=\"c\"}', 'a\\0', ('a'):rep(49), ('a'):rep(1e6), 1, {}, body, 'errors_total', 'a_total' }) do raises('claw.metrics', claw.metrics.count, n) raises('claw.metrics', claw.metrics.gauge, n, 1) end raises('own', claw.metrics.count, 'errors')"),
    "metrics_numbers": (FINE, "for _, n in ipairs({ 0 / 0, 1 / 0, -1 / 0, -1, '1', {} }) do raises('claw.metrics', claw.metrics.count, 'hostile', n) end for _, n in ipairs({ 0 / 0, 1 / 0, -1 / 0, '1', {} }) do raises('claw.metrics', claw.metrics.gauge, 'hostile_g', n) end raises('claw.metrics', claw.metrics.gauge, 'hostile_g') for i = 1, 3 do claw.metrics.count('hostile_much', 1e308) end claw.metrics.gauge('hostile_g', -1e308)"),
    "metrics_labels": (FINE, "for _, l in ipairs({ {}, body, true }) do raises('label', claw.metrics.count, 'hostile', 1, l) end for _, l in ipairs({ 'a\\nopenclaw_up 0', 'a\"} 1\\n', '\\0', '\\255', BYTES, '\\\\', ('x'):rep(1e6) }) do claw.metrics.count('hostile', 1, l) end"),
    "metrics_bomb": (STOPPED, "for i = 1, 1e9 do claw.metrics.count('bomb', 1, i) claw.metrics.gauge('g' .. i % 1000, i) end"),
    "log_secret": (FINE, f"claw.log('error', 'x {KEY} y', {{ ['{KEY}'] = '{KEY}', deep = {{ {{ '{KEY}' }} }}, env = claw.env('HOSTILE_SECRET') }})"),
    "log_control": (FINE, "claw.log('info', BYTES, { [BYTES] = BYTES, ['\\n'] = '\\r\\n{\"level\":\"error\"}', msg = 'x', level = 'error', time = 'x', [''] = 1, [1] = 2, [body] = 3 })"),
    "log_huge": (ENDS, "claw.log('info', ('x'):rep(1e6), { [('k'):rep(1e6)] = ('v'):rep(1e6) }) local t = {} for i = 1, 1000 do t['k' .. i] = i end claw.log('info', 'x', t)"),
    "log_cycle": (FINE, "for _, v in ipairs({ CYCLE, WIDE, tostring, body, req, coroutine.create(tostring) }) do pcall(claw.log, 'info', 'x', { v = v, l = { v } }) end claw.log('info', CYCLE) claw.log('info', body) claw.log('info', nil)"),
    "log_many": (ENDS, "claw.log('info', 'x', many())"),
    "log_flood": (STOPPED, "while true do claw.log('debug', ('x'):rep(1000)) end"),
    "json_numbers": (FINE, "for _, n in ipairs({ 0 / 0, 1 / 0, -1 / 0 }) do raises('', claw.json.encode, n) end claw.json.encode(1e308) claw.json.decode('1e999999999') claw.json.decode(('9'):rep(1e5)) claw.json.decode('-' .. ('0'):rep(1e5)) gives('EBAD_JSON', claw.json.decode('')) gives('EBAD_JSON', claw.json.decode('\\0')) gives('EBAD_JSON', claw.json.decode('[1,]'))"),
    "json_deep": (ENDS, "claw.json.decode(('[' ):rep(1e5) .. (']'):rep(1e5)) claw.json.decode(('{\"a\":'):rep(1e5) .. '1' .. ('}'):rep(1e5)) local t = {} for i = 1, 1e5 do t = { t } end pcall(claw.json.encode, t)"),
    "json_decode_odd": (ENDS, "for _, t in ipairs({ 1, {}, body, req, true, BYTES }) do pcall(claw.json.decode, t) pcall(claw.json.encode, { [t] = 1 }) pcall(claw.json.array, t) end"),
    "json_decode_large": (ENDS, "local s = '[' .. ('{\"a\":[1,2,3],\"b\":\"x\"},'):rep(40000) .. '1]' local t = claw.json.decode(s) claw.json.encode(t)"),
    "hash_huge": (STOPPED, "local s = ('x'):rep(4e6) while true do claw.hash(s) end"),
    "base64_loop": (STOPPED, "local s = ('x'):rep(1e5) while true do claw.base64.decode(claw.base64.encode(s)) end"),
    "base64_odd": (ENDS, "for _, t in ipairs({ '=', 'a', '====', BYTES, ('='):rep(1e6), 'YQ==YQ==' }) do pcall(claw.base64.decode, t) end"),
    "route_many": (ENDS, "local list = {} for i = 1, 20000 do list[i] = { name = 'a' .. i, weight = 0 / 0, price = {} } end for _, name in ipairs({ 'round_robin', 'weighted_round_robin', 'weighted_random', 'failover', 'lowest_cost', 'lowest_latency', 'least_busy', 'sticky', 'canary' }) do pcall(claw.route[name], list, req) end"),
    "route_weights": (ENDS, "for _, w in ipairs({ 0 / 0, 1 / 0, -1, 0, 1e308, '1', {} }) do for _, name in ipairs({ 'weighted_round_robin', 'weighted_random', 'canary' }) do pcall(claw.route[name], { { name = 'a', weight = w, percentage = w }, { name = 'b', weight = w, percentage = w } }, req) end end"),
    "cost_numbers": (FINE, "for _, n in ipairs({ 0 / 0, 1 / 0, -1, 1e308, '1', {} }) do pcall(claw.cost, { price = { input = n, output = n, cached_input = n, request_micros = n } }, { input = n, output = n, cached = n }) end"),
    "state_many": (FAILS, "for i = 1, 1e9 do claw.state({ i }) .x = ('x'):rep(1000) .. i MANY[#MANY + 1] = claw.state(req) end"),
    "doc_odd": (ENDS, "for _, f in ipairs({ 'get', 'table', 'each', 'insert', 'append', 'remove' }) do for _, v in ipairs({ 0 / 0, 1 / 0, -1e300, BYTES, {}, CYCLE, tostring }) do pcall(claw.doc[f], body, v, v) pcall(claw.doc[f], v, body, v) end end"),
    # ---- what can be set
    "headers_inject": (FINE, "local h = req.upstream.headers for _, n in ipairs({ 'x\\r\\ny', 'x y', 'x:', '', '\\0', 'é', BYTES }) do raises('', function() h[n] = 'v' end) end for _, v in ipairs({ 'a\\r\\nb: c', 'a\\nb', '\\0', '\\127', BYTES, {}, true, body }) do raises('', function() h['x-a'] = v end) end"),
    "headers_reserved": (FINE, "for _, n in ipairs({ 'Host', 'content-length', 'Transfer-Encoding', 'connection', 'keep-alive', 'upgrade', 'te', 'trailer', 'expect' }) do raises('', function() req.upstream.headers[n] = 'x' end) end pcall(function() req.upstream.headers.authorization = 'Bearer mine' end)"),
    "headers_many": (ENDS, "for i = 1, 1e6 do req.upstream.headers['x-' .. i] = 'y' end"),
    "headers_long": (ENDS, "for i = 1, 100 do req.upstream.headers['x-' .. i] = ('y'):rep(60000) end"),
    "headers_again": (ENDS, "for i = 1, 1e6 do req.upstream.headers['x-a'] = ('y'):rep(1000) end"),
    "path_inject": (FINE, "for _, p in ipairs({ '', 'x', '/a b', '/a\\r\\nHost: b', '/a#b', '/\\0', '/é', {}, true, body, '//' .. BYTES }) do raises('', function() req.upstream.path = p end) end"),
    "path_again": (ENDS, "for i = 1, 1e6 do req.upstream.path = '/' .. ('y'):rep(1000) end"),
    "req_writes": (FINE, "for _, k in ipairs({ 'id', 'method', 'path', 'query', 'model', 'stream', 'client', 'body', 'upstream', 'ctx', 'x', BYTES }) do raises('', function() req[k] = 1 end) end raises('', function() req[1] = 1 end) raises('', function() req.client.ip = 'x' end) raises('', function() req.client.headers.x = 'y' end) raises('', function() req.upstream.url = 'http://127.0.0.1' end) raises('', function() req.upstream.name = 'b' end) raises('', function() req.body.model = 'x' end)"),
    "ctx_huge": (FAILS, "for i = 1, 1e9 do req.ctx[i] = ('x'):rep(1000) .. i end"),
    "body_edits": (ENDS, "for _, v in ipairs({ CYCLE, WIDE, tostring, 0 / 0, 1 / 0, coroutine.create(tostring), req, BYTES, claw.json.null }) do pcall(function() body.x = v end) pcall(function() body[v] = 1 end) pcall(function() body.messages[v] = 1 end) end body.self = body body.self.self = body"),
    "body_grows": (ENDS, "for i = 1, 1e6 do body.self = body end"),
    "body_is_text": (FAILS, "return '{\"model\":'"),
    "body_is_another": (ENDS, "return req.body"),
}

LONG = {
    "fetch_private": SCRIPTS.pop("fetch_private"),
    "fetch_loop": (ENDS, "for i = 1, 10000 do claw.http.fetch('http://127.0.0.1:PORT/private') end"),
    "fetch_loop_to_upstream": (ENDS, "for i = 1, 3000 do claw.http.fetch({ upstream = 'a', path = '/loop' }) end"),
    "fetch_answer_past_memory": (FAILS, "local keep = {} for i = 1, 20 do local answer = claw.http.fetch({ upstream = 'a', path = '/megabytes', max_body_kb = 8192 }) keep[i] = answer.body .. i end"),
    "redis_reply_wide": SCRIPTS.pop("redis_reply_wide"),
    "redis_reply_narrow": (ENDS, "claw.redis.call('EVAL', 'local t = {} for i = 1, 7000 do t[i] = i end local u = {} for i = 1, 400 do u[i] = t end return u', 0)"),
    "redis_loop": SCRIPTS.pop("redis_loop"),
    "redis_loop_of_pings": (ENDS, "for i = 1, 5000 do claw.redis.call('PING') end"),
    "sleep_loop": SCRIPTS.pop("sleep_loop"),
    "task_memory": SCRIPTS.pop("task_memory"),
    "task_loops": (FAILS, "local tasks = {} for i = 1, 60 do tasks[i] = claw.task.spawn(function() claw.time.sleep(5) while true do end end) end for i = 1, 60 do assert(claw.task.wait(tasks[i])) end"),
    "background_loops": (ENDS, "for i = 1, 64 do claw.task.background(function() claw.time.sleep(20) while true do end end) end claw.time.sleep(100)"),
}
del SCRIPTS["fetch_answer_past_memory"]


def policy(name, code, url_port):
    code = code.replace("PORT", str(url_port))
    return f'{SAYING}local P = {{ name = "{name}", api = 1 }}\nfunction P.request(req, body)\n    {code}\nend\nreturn P\n'


def odd_server():
    """Whatever the path says; fetches of private addresses must never come here."""
    up = Upstream()
    plain = up.default

    def script(ex):
        path = ex.request.target
        if path.endswith("/redirect"):
            return ex.reply({}, 302, [("location", f"http://127.0.0.1:{up.port}/private")])
        if path.endswith("/key"):
            told = dict((n.lower(), v) for n, v in ex.request.headers).get("authorization", "")
            return ex.reply({"told": told}, 200, [("x-told", told)])
        if path.endswith("/endless"):
            ex.stream_head()
            while True:
                ex.chunk(b"x" * 65536)
        if path.endswith("/megabytes"):
            return ex.reply(b"x" * (4 << 20))
        if path.endswith("/slow"):
            return ex.until_gone(5)
        if path.endswith("/chat/completions"):
            return plain(ex)
        return ex.reply({"path": path})
    up.default = script
    return up


@pytest.fixture(scope="module")
def proxy():
    up, redis = odd_server(), Redis()
    files = {f"{n}.lua": policy(n, code, up.port) for n, (_, code) in SCRIPTS.items()}
    files["plain_store.lua"] = 'return { name = "plain_store", api = 1, request = function() claw.store.set("secret", "mine") end }\n'
    p = Proxy({"upstreams": {"a": {"type": "openai", "api_key": KEY, "base_url": up.url(), "models": ["m"]}, "mock": {"type": "mock", "models": ["m"]}}, "state": {"url": redis.url()},
               "routes": [route("plain", strategy={"type": "failover", "upstreams": ["mock"]})] + [route(n[:-4], n[:-4]) for n in files], "retry": {"attempts": 1},
               "policies": {"always": [], "rollback": False, "env": ["HOSTILE_SECRET"]}},
              policies=files, env={"HOSTILE_SECRET": "env-hostile-77aa", "HOSTILE": "not listed"})
    p.up = up
    assert ask(p, chat(), headers=[("x-route", "plain_store")]).status == 200
    hold(p)
    yield p
    release(p)
    told = p.everything_told()
    p.stop()
    redis.stop()
    up.stop()
    assert KEY not in told and "env-hostile-77aa" not in told
    assert up.malformed == []
    assert [e.request.target for e in up.exchanges if "private" in e.request.target or "secret" in e.request.target or "odd" in e.request.target] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_nobody_else_notices(proxy, name):
    kind = SCRIPTS[name][0]
    answers = []

    def added():
        answer, computed = meanwhile(proxy, name)
        answers.append(answer)
        return computed
    within(ADDED_MS, added)
    within(ANSWER_MS, lambda: max(ping(c) for c in proxy.held))
    assert proxy.process.poll() is None
    for answer in answers:
        if answer.status == 200:
            assert kind in (FINE, ENDS)
            continue
        error = answer.json()["error"]
        rid = answer.get("x-openclaw-request-id")
        line = proxy.wait_log(lambda e: e.get("request_id") == rid or e.get("id") == rid)
        assert kind != FINE, line["error"]
        if kind == ENDS and answer.status == 413:
            continue
        assert answer.status == 500 and error["code"] == "policy_error"
        text = answer.body.decode()
        assert ".lua" not in text and name not in text and "traceback" not in text and len(text) < 400
        if kind == STOPPED:
            assert line["policy"] == name and f"stopped after {BUDGET_MS} ms of CPU time (policies.budget_ms)" in line["error"]


@pytest.fixture(scope="module")
def others():
    up, redis = odd_server(), Redis()
    yield up, redis
    redis.stop()
    up.stop()


@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", LONG)
def test_no_turn_of_the_loop_is_long(others, turns, tmp_path, name):
    """What takes many turns: the CPU time of the longest of them is all that anybody else can feel."""
    up, redis = others
    kind, code = LONG[name]

    def longest():
        noted = tmp_path / "turns"
        p = Proxy({"server": {"workers": 1}, "upstreams": {"a": {"type": "openai", "api_key": KEY, "base_url": up.url(), "models": ["m"]}},
                   "state": {"url": redis.url()}, "routes": [route(name, name)], "retry": {"attempts": 1}, "policies": {"rollback": False}},
                  policies={f"{name}.lua": policy(name, code, up.port)}, env={"LD_PRELOAD": str(turns), "TURNS_FILE": str(noted)} if turns else None)
        try:
            for _ in range(2):
                answer = ask(p, chat(), headers=[("x-route", name)], timeout=60 * p.slow)
                assert answer.status in {FINE: (200,), FAILS: (500,), ENDS: (200, 500)}[kind]
        finally:
            p.stop()
        return int(noted.read_text().split()[0]) / 1000 if turns else 0
    within(ADDED_MS, longest)
    assert [e.request.target for e in up.exchanges if "private" in e.request.target] == []
