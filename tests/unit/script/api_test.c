/* api: what lua/claw asks of C, and the req object policies get. */
#include "fixture.h"

static struct fixture f;

static int setup(void **state)
{
    fixture_init(&f);
    if (fixture_load(&f, two_upstreams) != 0) {
        fixture_print(&f);
        return -1;
    }
    fixture_vm(&f, "return { new = function(spec) local function no() end "
                   "return { admit = no, route = no, decide = no, request = no, retry = no, response = no, error = no, event = no, caches = no, recast = no, finish = no, explain = no, explain_attempt = no, explained = no, trace = no } end }");
    return 0;
}

static int teardown(void **state)
{
    fixture_fini(&f);
    return 0;
}

#define runs(r, code) fixture_runs(f.p->vm, r, code)
#define raises(r, code, text) fixture_raises(f.p->vm, r, code, text)

static void headers_are_found_in_any_case_and_joined(void **state)
{
    struct claw_req *r = fixture_req(&f, "/v1/x", NULL, "X-Tier", "gold", "accept", "a", "Accept", "b", "ACCEPT", "c", "empty", "", NULL);
    runs(r, "assert(core.header(r, 'x-tier') == 'gold' and core.header(r, 'X-TIER') == 'gold' and core.header(r, 'nope') == nil)");
    runs(r, "assert(core.header(r, 'accept') == 'a, b, c' and core.header(r, 'empty') == '')");
    runs(r, "assert(req.client.headers['x-tier'] == 'gold' and req.client.headers.ACCEPT == 'a, b, c' and req.client.headers.nope == nil)");
    runs(r, "assert(req.client.header('x-tier') == 'gold' and req.client:header('X-Tier') == 'gold' and req.client.header('nope') == nil)");
    raises(r, "req.client.headers['x-tier'] = 'silver'", "what the client sent stays");
    raises(r, "req.client.headers[1] = 'silver'", "cannot be assigned");
    raises(r, "core.header(nil, 'x')", "request expected");
    fixture_req_free(r);
}

static void queries_are_decoded(void **state)
{
    struct claw_req *r = fixture_req(&f, "/v1/x?a=1&b=x%20y+z&c&a=2&%64=%zz%4&e=%E2%82%ac&=v", NULL, NULL);
    runs(r, "assert(core.query(r, 'a') == '1' and core.query(r, 'b') == 'x y z' and core.query(r, 'c') == '' and core.query(r, 'none') == nil)");
    runs(r, "assert(core.query(r, 'd') == '%zz%4' and core.query(r, 'e') == '\\226\\130\\172' and core.query(r, '') == 'v')");
    runs(r, "assert(req.path == '/v1/x' and req.query:find('^a=1&'))");
    fixture_req_free(r);
    r = fixture_req(&f, "/v1/x", NULL, NULL);
    runs(r, "assert(core.query(r, 'a') == nil and req.query == '')");
    fixture_req_free(r);
}

static void json_paths_give_scalars(void **state)
{
    static const char body[] =
        "{\"model\":\"gpt-4\",\"n\":3,\"t\":true,\"z\":null,\"a\":{\"b\":{\"c\":\"deep\"},\"m.x\":1},"
        "\"messages\":[{\"role\":\"system\",\"content\":\"be\\u0020nice\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"one\"},{\"type\":\"image_url\",\"image_url\":{}},{\"type\":\"text\",\"text\":\"two\"}]}],"
        "\"parts\":[{\"text\":\"gem\"}],\"empty\":[],\"tags\":[\"x\",\"y\"],\"model2\":[[1,2],[3]]}";
    struct claw_req *r = fixture_req(&f, "/", body, NULL);
    runs(r, "function j(p) local t = core.json(r, p) if not t then return 'nil' end "
            "for i, v in ipairs(t) do t[i] = v == core.null and 'null' or tostring(v) end return '{' .. table.concat(t, ',') .. '}' end "
            "function is(p, want) if j(p) ~= want then error(p .. ' gave ' .. j(p), 2) end end");
    runs(r, "is('model', '{gpt-4}') is('n', '{3}') is('t', '{true}') is('z', '{null}') is('a.b.c', '{deep}')");
    runs(r, "is('a', '{}') is('a.b', '{}') is('none', 'nil') is('a.none', 'nil') is('model.x', 'nil') is('model[0]', 'nil')");
    runs(r, "is('messages[0].content', '{be nice}') is('messages[-1].content', '{one,two}') is('messages[*].content', '{be nice,one,two}')");
    runs(r, "is('messages[*].role', '{system,user}') is('messages[2].role', 'nil') is('messages[-3].role', 'nil') is('messages[*].none', 'nil')");
    runs(r, "is('parts', '{gem}') is('empty', '{}') is('empty[*]', 'nil') is('tags', '{}') is('tags[*]', '{x,y}') is('tags[1]', '{y}')");
    runs(r, "is('model2[*][0]', '{1,3}') is('model2[*][*]', '{1,2,3}') is('model2[0][-1]', '{2}')");
    runs(r, "is('', '{}') is('.', 'nil') is('a..b', 'nil') is('messages[', 'nil') is('messages[x]', 'nil') is('messages[]', 'nil') is('messages[0]role', 'nil')");
    runs(r, "is('messages[99999999999999999999].x', 'nil') is('messages[0000000000000000000000000000000000001]', 'nil')");
    fixture_req_free(r);
    r = fixture_req(&f, "/", "no json", NULL);
    runs(r, "assert(core.json(r, 'model') == nil and core.body(r) == nil and req.body == nil and core.body(r) == nil)");
    fixture_req_free(r);
}

static void input_tokens_are_estimated(void **state)
{
    struct claw_req *r = fixture_req(&f, "/", "{\"messages\":[{\"role\":\"user\",\"content\":\"hello there\"}]}", NULL);
    runs(r, "local n = core.estimate(r) assert(n == 9, n) assert(core.estimate(r) == n)");
    fixture_req_free(r);
}

static void the_world_can_be_asked(void **state)
{
    struct claw_req *r = fixture_req(&f, "/", "{}", NULL);
    runs(r, "local x = core.random() assert(x >= 0 and x < 1) assert(core.now_ms() > 0)");
    runs(r, "assert(core.hash('a') == core.hash('a') and core.hash('a') ~= core.hash('b') and core.hash('') >= 0 and core.hash('x') < 2^32 and core.hash('x') % 1 == 0)");
    runs(r, "local out, ms, age, mean = core.facts(1, 'never-seen-model') assert(out == 0 and ms == nil and age == nil and mean == nil)");
    claw_upstream_stats_begin(f.gen->upstreams[1].stats);
    claw_upstream_stats_ttfb(f.gen->upstreams[1].stats, CLAW_STR("claude-3"), 50000, claw_loop_now_ms(&f.loop));
    claw_upstream_stats_output(f.gen->upstreams[1].stats, CLAW_STR("claude-3"), 100);
    runs(r, "local out, ms, age, mean = core.facts(2, 'claude-3') assert(out == 1 and ms > 0 and age >= 0 and mean > 0)");
    runs(r, "core.facts(2)");
    claw_upstream_stats_end(f.gen->upstreams[1].stats);
    raises(r, "core.facts(0, 'x')", "there is no upstream 0");
    raises(r, "core.facts(3, 'x')", "there is no upstream 3");
    runs(r, "assert(core.client_ip(r) == '192.0.2.7' and req.client.ip == '192.0.2.7')");
    fixture_req_free(r);
}

/* The hash is part of what sticky routes mean across processes and versions: it may not change by accident. */
static void the_hash_stays_what_it_is(void **state)
{
    runs(NULL, "assert(core.hash('') == 3971628530 and core.hash('client-1') == 825808612) "
               "local seen = {} for i = 1, 1000 do local b = math.floor(core.hash('key' .. i) / 2^28) seen[b] = (seen[b] or 0) + 1 end "
               "for b = 0, 15 do assert(seen[b] and seen[b] > 30 and seen[b] < 100, b .. ' ' .. tostring(seen[b])) end");
}

static void req_has_its_fields(void **state)
{
    struct claw_req *r = fixture_req(&f, "/v1/chat/completions", "{\"model\":\"gpt-4\",\"stream\":true}", NULL);
    runs(r, "assert(#req.id == 32 and req.method == 'POST' and req.path == '/v1/chat/completions' and req.model == 'gpt-4' and req.stream == true)");
    runs(r, "assert(req.route == nil and req.status == nil and req.upstream == nil and #req.attempts == 0 and req.usage == nil and req.cost_micros == nil)");
    runs(r, "assert(req.client.name == nil and req.client.nope == nil and req.nope == nil and req[1] == nil and req.elapsed_ms >= 0)");
    runs(r, "assert(req == core.request(r) and req.client == req.client and tostring(req):find('^req %(%x+%)$'))");
    runs(r, "req.ctx.note = 1 assert(req.ctx.note == 1 and core.request(r).ctx.note == 1)");
    raises(r, "req.ctx = {}", "req.ctx cannot be assigned");
    raises(r, "req.foo = 1", "use req.ctx");
    raises(r, "req.client.ip = 'x'", "req.client.ip cannot be assigned");
    r->route = 0;
    r->status = 200;
    r->cost_micros = 1234;
    r->usage = (struct claw_usage){10, 20, -1, 0, -1, {0}};
    r->attempts_n = 2;
    r->attempts[0] = (struct claw_attempt){.upstream = 0, .status = 503, .kind = "http_503", .start_us = 1000, .end_us = 3500};
    r->attempts[1] = (struct claw_attempt){.upstream = 1, .status = 200, .start_us = 4000, .end_us = 5000};
    runs(r, "assert(req.route == 'chat' and req.status == 200 and req.cost_micros == 1234)");
    runs(r, "assert(req.usage.input == 10 and req.usage.output == 20 and req.usage.cached == nil and req.usage.reasoning == 0)");
    runs(r, "local a = req.attempts assert(#a == 2 and a[1].upstream == 'alpha' and a[1].status == 503 and a[1].kind == 'http_503' and a[1].ms == 2.5)");
    runs(r, "local a = req.attempts assert(a[2].upstream == 'beta' and a[2].kind == nil)");
    r->attempts_n = 1000; /* only the first ones are kept */
    runs(r, "assert(#req.attempts == 16)");
    fixture_req_free(r);
}

static void upstream_fields_can_be_set(void **state)
{
    struct claw_req *r = fixture_req(&f, "/v1/chat/completions", "{\"model\":\"gpt-4\"}", NULL);
    r->candidates_n = 2;
    r->candidates[1] = (struct claw_candidate){.upstream = 1, .model = CLAW_STR("claude-3")};
    runs(r, "assert(req.upstream.name == 'alpha' and req.upstream.url == 'http://127.0.0.1:9001/v1' and req.upstream.model == 'gpt-4')");
    r->candidate = 1;
    runs(r, "assert(req.upstream.name == 'beta' and req.upstream.model == 'claude-3' and req.upstream.path == '/v1/chat/completions' and req.upstream.nope == nil)");
    runs(r, "req.upstream.path = '/messages?beta=true' assert(req.upstream.path == '/messages?beta=true')");
    assert_true(claw_str_eqz(r->out_path, "/messages?beta=true"));
    for (const char **bad = (const char *[]){"''", "'messages'", "'/a b'", "'/a\\r\\nx: y'", "'/a#b'", "'/\\0'", "'/\\255'", NULL}; *bad; bad++) {
        char code[80];
        snprintf(code, sizeof code, "req.upstream.path = %s", *bad);
        raises(r, code, "req.upstream.path: must begin with /");
    }
    raises(r, "req.upstream.path = nil", "string expected");
    raises(r, "req.upstream.model = 'x'", "the model is body.model");
    raises(r, "req.upstream.headers = {}", "only path, commit and headers[name]");
    runs(r, "assert(req.upstream.commit == 'event') req.upstream.commit = 40 assert(req.upstream.commit == 40)");
    assert_int_equal(r->commit_at, 40);
    runs(r, "req.upstream.commit = 'token' assert(req.upstream.commit == 'token') req.upstream.commit = 65536 req.upstream.commit = 'event'");
    assert_int_equal(r->commit_at, 0);
    for (const char **bad = (const char *[]){"0", "-1", "1.5", "65537", "0/0", "'5'", "'soon'", "true", "{}", "nil", NULL}; *bad; bad++) {
        char code[80];
        snprintf(code, sizeof code, "req.upstream.commit = %s", *bad);
        raises(r, code, "req.upstream.commit: must be \"event\", \"token\" or a whole number of characters from 1 to 65536");
    }
    r->step = CLAW_STEP_STREAM;
    raises(r, "req.upstream.commit = 5", "req.upstream.commit: the answer is committed");
    r->step = CLAW_STEP_TRANSFORM;
    runs(r, "req.upstream.headers['X-A'] = '1' req.upstream.headers['x-b'] = '2' req.upstream.headers['x-a'] = '3' req.upstream.headers['x-b'] = nil req.upstream.headers['n'] = 5");
    runs(r, "local h = req.upstream.headers assert(h['x-a'] == '3' and h['x-b'] == nil and h['never'] == nil and h.n == '5')");
    assert_int_equal(r->out_headers_n, 3);
    assert_true(r->out_headers[1].value.ptr == NULL);
    raises(r, "req.upstream.headers['x-a'] = 'a\\r\\nevil: 1'", "no valid field name or value");
    raises(r, "req.upstream.headers['x a'] = '1'", "no valid field name or value");
    raises(r, "req.upstream.headers['host'] = 'x'", "the proxy writes itself");
    raises(r, "req.upstream.headers['Content-Length'] = '1'", "the proxy writes itself");
    raises(r, "req.upstream.headers['x'] = {}", "string expected");
    fixture_req_free(r);
}

static void a_req_for_many_is_the_same(void **state)
{
    struct claw_req *r = fixture_req(&f, "/v1/x", "{\"a\":1}", "h", "v", NULL);
    runs(r, "local before, client = req, req.client assert(core.request(r, true) == before and core.request(r, true) == before and req.client == client)");
    runs(r, "assert(req.client.header('h') == 'v' and req.client:header('H') == 'v' and req.client.header == req.client.header and req.client.headers.h == 'v')");
    runs(r, "assert(req.path == '/v1/x' and req.body.a == 1 and req.nope == nil and req[1] == nil and req.client.ip and req.client.path == nil and req.client[true] == nil)");
    runs(r, "req.ctx.x = 1 assert(req.ctx.x == 1 and tostring(req):find('^req %(%x+%)$') and getmetatable(req) == 'claw.req' and getmetatable(req.client) == 'claw.req')");
    raises(r, "req.client = {}", "req.client cannot be assigned");
    raises(r, "req.client.header = print", "req.client.header cannot be assigned");
    raises(r, "req.foo = 1", "use req.ctx");
    runs(r, "old, client, header = req, req.client, req.client.header");
    fixture_req_free(r);
    const char *const uses[] = {"return old.id", "return old.client", "old.x = 1", "return client.ip", "return client.header", "return header('h')"};
    for (int i = 0; i < 3; i++) { /* the next one has the same handle: by itself, and as one for many */
        struct claw_req *next = i ? fixture_req(&f, "/v1/y", NULL, "h", "w", NULL) : NULL;
        if (i == 2) runs(next, "assert(core.request(r, true).client.header('h') == 'w' and req.path == '/v1/y')");
        for (size_t k = 0; k < sizeof uses / sizeof *uses; k++) raises(next, uses[k], "the request is over");
        runs(next, "assert(tostring(old) == 'req (over)')");
        if (next) runs(next, "assert(req ~= old and req.client ~= client and req.client.header('h') == 'w') collectgarbage() collectgarbage()");
        if (next) fixture_req_free(next);
    }
    /* past so many at a time they are plain ones */
    struct claw_req *many[100];
    for (int i = 0; i < 100; i++) {
        many[i] = fixture_req(&f, "/v1/z", NULL, "h", "z", NULL);
        runs(many[i], "assert(core.request(r, true).client.header('h') == 'z' and req.client.header('h') == 'z')");
    }
    for (int i = 0; i < 100; i++) fixture_req_free(many[i]);
    runs(NULL, "old, client, header = nil");
}

static void a_request_that_is_over_says_so(void **state)
{
    struct claw_req *r = fixture_req(&f, "/", "{\"a\":1}", "h", "v", NULL);
    r->candidates_n = 1;
    runs(r, "old = req client = req.client headers = req.client.headers header = req.client.header upstream = req.upstream uh = req.upstream.headers ctx = req.ctx");
    fixture_req_free(r);
    const char *const uses[] = {"return old.id", "return old.nope", "old.x = 1", "return client.ip", "return headers.h", "return header('h')",
                                "upstream.path = '/'", "return upstream.name", "uh.x = '1'", "return uh.x", "return old.ctx"};
    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++) raises(NULL, uses[i], "the request is over");
    runs(NULL, "assert(tostring(old) == 'req (over)' and type(ctx) == 'table')");
    /* the same memory serves the next request: the old handle must not see it */
    struct claw_req *next = fixture_req(&f, "/", "{\"a\":2}", NULL);
    raises(next, "return old.id", "the request is over");
    runs(next, "assert(req.body.a == 2 and req ~= old)");
    runs(next, "old, client, headers, header, upstream, uh, ctx = nil collectgarbage() collectgarbage() assert(req.body.a == 2)");
    fixture_req_free(next);
}

static void requests_without_hooks_cost_no_handle(void **state)
{
    struct claw_req *r = fixture_req(&f, "/", "{}", NULL);
    assert_null(r->handle);
    fixture_req_free(r);
    size_t before = 0;
    for (int i = 0; i < 2000; i++) {
        r = fixture_req(&f, "/", "{\"a\":[1,2]}", NULL);
        runs(r, "local x = req.client.headers, req.body.a, req.ctx, core.body(r).a");
        assert_non_null(r->handle);
        fixture_req_free(r);
        if (i % 500 == 499) {
            runs(NULL, "req, r = nil collectgarbage() collectgarbage()");
            if (before) assert_true(f.p->vm->bytes < before + 2000);
            before = f.p->vm->bytes;
        }
    }
}

static char log_path[300];

static struct claw_str read_log(struct claw_buf *b)
{
    claw_log_flush();
    claw_log_close(1000);
    claw_buf_init(b, 0);
    assert_int_equal(claw_buf_add_file(b, log_path), 0);
    return claw_buf_str(b);
}

static void log_lines_carry_fields(void **state)
{
    fixture_make_dir(&f);
    snprintf(log_path, sizeof log_path, "%s/log", f.dir);
    assert_int_equal(claw_log_open(&(struct claw_log_conf){.level = CLAW_LOG_INFO, .to = 0, .path = log_path}), 0);
    runs(NULL, "core.log('info', 'hello', { s = 'x\"y', n = 1.5, b = true, t = { 1, { a = 2 } }, ['k#'] = 'v', [1] = 'skipped', nothing = core.null })");
    runs(NULL, "core.log('debug', 'hidden') core.log('warn', 'plain') core.log('error', 'with\\nnewline')");
    runs(NULL, "local many = {} for i = 1, 100 do many['f' .. i] = i end core.log('info', 'many', many)");
    raises(NULL, "core.log('loud', 'x')", "invalid option 'loud'");
    raises(NULL, "core.log('info')", "string expected");
    raises(NULL, "core.log('info', 'x', { f = print })", "a function has no JSON form");
    struct claw_buf b;
    struct claw_str s = read_log(&b);
    const char *const want[] = {"\"msg\":\"hello\"", "\"s\":\"x\\\"y\"", "\"n\":1.5", "\"b\":true", "\"t\":[1,{\"a\":2}]", "\"k_\":\"v\"",
                                "\"nothing\":null", "\"msg\":\"plain\"", "\"level\":\"error\"", "\"msg\":\"many\""};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        if (claw_str_find(s, claw_str_of(want[i])) < 0) fail_msg("%s is not in %.*s", want[i], CLAW_STR_FMT(s));
    assert_true(claw_str_find(s, CLAW_STR("hidden")) < 0 && claw_str_find(s, CLAW_STR("skipped")) < 0);
    size_t lines = 0, pos = 0;
    for (; pos < s.len; lines++) {
        const char *end = memchr(s.ptr + pos, '\n', s.len - pos);
        assert_non_null(end);
        struct claw_json_top top;
        struct claw_json_err e;
        struct claw_arena a;
        claw_arena_init(&a, NULL, 0, 1u << 20);
        assert_int_equal(claw_json_scan((struct claw_str){s.ptr + pos, (size_t)(end - s.ptr) - pos}, &a, &top, &e), 0);
        claw_arena_reset(&a);
        pos = (size_t)(end - s.ptr) + 1;
    }
    assert_int_equal(lines, 4);
    claw_buf_fini(&b);
    claw_log_thread_end();
}

static void the_answers_head_can_be_set_until_it_leaves(void **state)
{
    struct claw_req *r = fixture_req(&f, "/v1/x", NULL, NULL);
    runs(r, "local h = req.answer.headers h['X-A'] = '1' h['x-a'] = '2' h['x-b'] = nil h['content-type'] = 'a/b' "
            "assert(h['x-A'] == '2' and h['x-b'] == nil and h['x-c'] == nil and req.answer.status == nil)");
    assert_int_equal(r->answer_headers_n, 3);
    assert_int_equal(r->out_headers_n, 0);
    static const char *const bad[][2] = {
        {"h['x-a'] = 'a\\r\\nevil: 1'", "no valid field name or value"}, {"h['x a'] = '1'", "no valid field name or value"},
        {"h['x-a'] = 'a\\0'", "no valid field name or value"}, {"h['Content-Length'] = '1'", "the proxy writes itself"},
        {"h.connection = 'x'", "the proxy writes itself"}, {"h['transfer-encoding'] = nil", "the proxy writes itself"},
        {"h['X-OpenClaw-Route'] = 'x'", "the proxy writes itself"}, {"h.x = {}", "string expected"},
        {"req.answer.status = 1", "req.answer.status cannot be assigned: only headers[name]"}, {"req.answer = 1", "req.answer cannot be assigned"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char code[160];
        snprintf(code, sizeof code, "local h = req.answer.headers %s", bad[i][0]);
        raises(r, code, bad[i][1]);
    }
    runs(r, "local h = req.answer.headers local saved = core.aside(req, {}) h['x-a'] = '3' h['x-new'] = '1' "
            "local list = core.back(req, saved) assert(#list == 2 and list[1] == 'answer header x-a' and list[2] == 'answer header x-new') "
            "assert(h['x-a'] == '2' and h['x-new'] == nil)");
    r->step = CLAW_STEP_COMMIT;
    raises(r, "req.answer.headers['x-a'] = '1'", "req.answer.headers[\"x-a\"]: the answer's head has left");
    r->step = CLAW_STEP_ADMIT;
    r->accounted = true;
    raises(r, "req.answer.headers['x-a'] = '1'", "the answer's head has left");
    r->accounted = false;
    fixture_req_free(r);
}

static void a_policy_beside_the_request_changes_nothing(void **state)
{
    struct claw_req *r = fixture_req(&f, "/v1/x", "{\"model\":\"m\",\"n\":9007199254740993}", NULL);
    r->candidates_n = 1;
    runs(r, "local h = req.upstream.headers h['x-kept'] = 'old' h['x-gone'] = 'old' req.upstream.path = '/old' req.ctx.note = 1 "
            "local mine = {} local saved = core.aside(req, mine) assert(req.ctx == mine) req.ctx.other = 2 "
            "for i = 1, 20 do h['x-new-' .. i] = 'n' end h['x-kept'] = 'new' h['x-gone'] = nil req.upstream.path = '/new' req.upstream.commit = 9 "
            "local list = core.back(req, saved) assert(#list == 24 and list[1] == 'header x-kept' and list[2] == 'header x-gone' and list[23] == 'path' and list[24] == 'commit' and req.upstream.commit == 'event') "
            "assert(h['x-kept'] == 'old' and h['x-gone'] == 'old' and h['x-new-1'] == nil and req.upstream.path == '/old') "
            "assert(req.ctx.note == 1 and req.ctx.other == nil and mine.other == 2) "
            "assert(#core.back(req, core.aside(req, {})) == 0)");
    runs(r, "local body = core.body(r) local twin = core.twin(req, body) assert(tostring(twin) == tostring(body) and twin ~= body) "
            "twin.n = 1 twin.model = 'other' assert(body.model == 'm' and not core.changed(body) and tostring(body):find('9007199254740993', 1, true))");
    runs(r, "core.count_shadow('p', 'admit', 'true') core.count_shadow('p', 'admit', 'error')");
    raises(r, "core.back(req, {})", "claw.aside");
    fixture_req_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(headers_are_found_in_any_case_and_joined), T(queries_are_decoded), T(json_paths_give_scalars), T(input_tokens_are_estimated),
        T(the_world_can_be_asked), T(the_hash_stays_what_it_is), T(req_has_its_fields), T(upstream_fields_can_be_set),
        T(a_req_for_many_is_the_same), T(a_request_that_is_over_says_so), T(requests_without_hooks_cost_no_handle), T(log_lines_carry_fields),
        T(a_policy_beside_the_request_changes_nothing), T(the_answers_head_can_be_set_until_it_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
