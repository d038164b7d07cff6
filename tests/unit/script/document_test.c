/* document: JSON bodies in Lua's hands. The cases are Lua, what comes out is compared as bytes. */
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

/* Body `json`, then `code` with doc, expecting the text `want` afterwards (NULL: not compared). */
static void edit(const char *json, const char *code, const char *want)
{
    struct claw_req *r = fixture_req(&f, "/", json, NULL);
    char all[4096], esc[2048];
    assert_true(r->has_json);
    snprintf(all, sizeof all, "local doc = core.body(r) do %s end", code);
    fixture_runs(f.p->vm, r, all);
    if (want) {
        struct claw_api_handle *h = r->handle;
        struct claw_buf b;
        claw_buf_init(&b, 0);
        assert_int_equal(claw_json_doc_write(h->attempt, &b), 0);
        snprintf(esc, sizeof esc, "%.*s", CLAW_STR_FMT(claw_buf_str(&b)));
        claw_buf_fini(&b);
        assert_string_equal(esc, want);
    }
    fixture_req_free(r);
}

static void refuse(const char *json, const char *code, const char *message)
{
    struct claw_req *r = fixture_req(&f, "/", json, NULL);
    char all[4096];
    snprintf(all, sizeof all, "local doc = core.body(r) do %s end", code);
    fixture_raises(f.p->vm, r, all, message);
    fixture_req_free(r);
}

static void scalars_come_out_as_lua_values(void **state)
{
    edit("{\"s\":\"a\\u00e9\\n\",\"n\":1.5,\"i\":-3,\"t\":true,\"f\":false,\"z\":null,\"\":\"empty key\"}",
         "assert(doc.s == 'a\\195\\169\\n' and doc.n == 1.5 and doc.i == -3 and doc.t == true and doc.f == false) "
         "assert(doc.z == core.null and doc.missing == nil and doc[''] == 'empty key' and doc[1] == nil and doc[true] == nil)", NULL);
    /* what a double can hold is a number, what it cannot is its digits */
    edit("{\"a\":9007199254740992,\"b\":9007199254740993,\"c\":-9007199254740992,\"d\":-9007199254740993,"
         "\"e\":12345678901234567890123,\"f\":1e400,\"g\":1e30,\"h\":0.1}",
         "assert(doc.a == 2^53 and doc.c == -2^53 and doc.b == '9007199254740993' and doc.d == '-9007199254740993') "
         "assert(doc.e == '12345678901234567890123' and doc.f == '1e400' and doc.g == 1e30 and doc.h == 0.1)", NULL);
}

static void arrays_count_from_one(void **state)
{
    edit("{\"a\":[10,[20],{\"x\":30}]}",
         "assert(#doc.a == 3 and doc.a[1] == 10 and doc.a[2][1] == 20 and doc.a[3].x == 30) "
         "assert(doc.a[0] == nil and doc.a[4] == nil and doc.a[-1] == nil and doc.a[1.5] == nil and doc.a[1e300] == nil and doc.a[0/0] == nil) "
         "assert(doc.a.x == nil and #doc == 1)", NULL);
}

static void same_place_is_equal(void **state)
{
    edit("{\"a\":[1],\"b\":[1]}", "assert(doc.a == doc.a and doc.a ~= doc.b and doc.a ~= nil and doc == core.body(r))", NULL);
}

static void untouched_bytes_stay(void **state)
{
    static const char odd[] = "{ \"a\" : [ ] ,\"b\":{ },\"n\":9007199254740993, \"e\":\"\\u0041\", \"f\":1.0e0 }";
    edit(odd, "assert(not core.changed(doc)) assert(tostring(doc) == tostring(core.body(r)))", odd);
    struct claw_req *r = fixture_req(&f, "/", odd, NULL);
    char code[256];
    snprintf(code, sizeof code, "assert(tostring(core.body(r)) == [[%s]])", odd);
    fixture_runs(f.p->vm, r, code);
    fixture_req_free(r);
}

static void assignments_change_the_text(void **state)
{
    edit("{\"a\":1,\"b\":[1,2,3]}", "doc.a = 'x\"y' assert(core.changed(doc) and doc.a == 'x\"y')", "{\"a\":\"x\\\"y\",\"b\":[1,2,3]}");
    edit("{\"a\":1}", "doc.b = 2 doc.c = true doc.d = core.null doc.e = 0.1 doc.f = -0.0", "{\"a\":1,\"b\":2,\"c\":true,\"d\":null,\"e\":0.1,\"f\":-0}");
    edit("{\"a\":1,\"b\":2}", "doc.a = nil doc.zz = nil", "{\"b\":2}");
    edit("{\"a\":1}", "doc.a = { list = {1, 2, {x = 'y'}}, empty = {} }", "{\"a\":{\"empty\":{},\"list\":[1,2,{\"x\":\"y\"}]}}");
    edit("{\"a\":[1,2,3]}", "doc.a[2] = 'two' doc.a[4] = 4 doc.a[4] = nil doc.a[3] = nil", "{\"a\":[1,\"two\"]}");
    edit("{\"a\":{\"x\":[9007199254740993]}}", "doc.b = doc.a doc.a.x[1] = 1", "{\"a\":{\"x\":[1]},\"b\":{\"x\":[9007199254740993]}}");
    edit("{\"a\":1}", "doc.self = doc doc.a = 2", "{\"a\":2,\"self\":{\"a\":1}}");
    edit("[1]", "doc[2] = {doc}", "[1,[[1]]]");
    edit("{\"n\":9007199254740993}", "doc.copy = doc.n doc.big = 2^60 doc.e = 1e300", "{\"n\":9007199254740993,\"copy\":\"9007199254740993\",\"big\":1152921504606846976,\"e\":1e+300}");
}

static void what_has_no_json_is_refused(void **state)
{
    refuse("{}", "doc.a = function() end", "a function has no JSON form");
    refuse("{}", "doc.a = 0/0", "nan is no JSON number");
    refuse("{}", "doc.a = 1/0", "inf is no JSON number");
    refuse("{}", "doc.a = {1, nil, 3}", "has no JSON form");
    refuse("{}", "doc.a = {1, x = 2}", "both list items and named fields");
    refuse("{}", "doc.a = {[1.5] = 2}", "has no JSON form");
    refuse("{}", "doc.a = {[true] = 2}", "boolean as key");
    refuse("{}", "local t = {} t.t = t doc.a = t", "nested too deep");
    refuse("{}", "doc.a = io.stdout", "a userdata has no JSON form");
    refuse("{}", "doc[1] = 2", "key must be a string");
    refuse("[1]", "doc.x = 2", "an array has no field \"x\"");
    refuse("[1]", "doc[3] = 2", "there is no place 3");
    refuse("[1]", "doc[0] = 2", "there is no place 0");
    refuse("[1,2]", "doc[1] = nil", "use doc:remove(1)");
    refuse("[]", "doc[1] = nil", "there is no place 1");
    refuse("\"text\"", "doc.x = 2", "not an object or array");
    edit("{\"a\":1}", "pcall(function() doc.a = {1, x = 2} end)", "{\"a\":1}");
}

static void deep_tables_have_a_bound(void **state)
{
    edit("{}", "local t = {} for i = 1, 63 do t = {t} end doc.a = t", NULL);
    refuse("{}", "local t = {} for i = 1, 64 do t = {t} end doc.a = t", "nested too deep");
}

static void methods_work_on_lists(void **state)
{
    edit("[1,2]", "doc:append(3) doc:append({x = 1}) doc:insert(1, 0) doc:insert(nil, 'end') doc:remove(2)", "[0,2,3,{\"x\":1},\"end\"]");
    edit("[1,2,3]", "doc:remove(1) doc:remove(1) doc:remove(1) assert(#doc == 0 and doc[1] == nil) doc:append(7)", "[7]");
    edit("[]", "doc:insert(1, 'a') doc:insert(2, 'b')", "[\"a\",\"b\"]");
    refuse("[1]", "doc:insert(3, 1)", "there is no place 3");
    refuse("[1]", "doc:insert(1, nil)", "nil is no JSON value");
    refuse("[1]", "doc:remove(2)", "there is no place 2");
    refuse("[1]", "doc.append({}, 1)", "document expected");
    refuse("{\"a\":1}", "core.doc.append(doc, 1)", "not an array");
}

static void each_walks_in_order(void **state)
{
    edit("{\"b\":1,\"a\":[true],\"c\\n\":null}",
         "local s = '' for k, v in doc:each() do s = s .. k .. '=' .. (core.is_doc(v) and tostring(v) or v == core.null and 'null' or v) .. ';' end "
         "assert(s == 'b=1;a=[true];c\\n=null;', s)", NULL);
    edit("[1,\"x\",[2]]", "local s = '' for i, v in doc:each() do s = s .. i .. tostring(v) .. ';' end assert(s == '11;2x;3[2];', s)", NULL);
    edit("[]", "for i, v in doc:each() do error('none') end", "[]");
    edit("[{\"k\":1},{\"k\":2}]", "for i, v in doc:each() do v.k = v.k * 10 end", "[{\"k\":10},{\"k\":20}]");
    edit("[1,2,3,4]", "for i, v in doc:each() do if v == 2 then doc:remove(i) end end", "[1,3,4]");
}

static void paths_reach_inside(void **state)
{
    edit("{\"m\":[{\"c\":\"a\"},{\"c\":{\"d\":5}}],\"x.y\":1}",
         "assert(doc:get('m[0].c') == 'a' and doc:get('m[-1].c.d') == 5 and doc:get('m[2]') == nil and doc:get('m[-3]') == nil) "
         "assert(doc:get('m').c == nil and #doc:get('m') == 2 and doc:get('a.b.c') == nil and doc:get('m.c') == nil and doc:get('m[0].c.d') == nil)", NULL);
    refuse("{\"m\":[1]}", "doc:get('m[*]')", "[*]");
    refuse("{\"m\":[1]}", "doc:get('m[')", "is no path");
    refuse("{\"m\":[1]}", "doc:get('m.')", "is no path");
    refuse("{\"m\":[1]}", "doc:get('.m')", "is no path");
    refuse("{\"m\":[1]}", "doc:get('m[x]')", "is no path");
    refuse("{\"m\":[1]}", "doc:get('m[0]x')", "is no path");
}

static void members_win_over_methods(void **state)
{
    edit("{\"type\":\"text\",\"get\":1,\"each\":2,\"table\":3}", "assert(doc.type == 'text' and doc.get == 1 and doc.each == 2 and doc.table == 3) "
         "assert(core.doc.type(doc) == 'object' and core.doc.get(doc, 'type') == 'text' and core.doc.table(doc).each == 2)", NULL);
    edit("{\"a\":[]}", "assert(doc.type == nil and doc.append == nil and doc.insert == nil and doc.remove == nil) "
         "assert(doc.a:type() == 'array' and core.doc.type(doc) == 'object' and core.doc.type(core.null) == 'null' and core.doc.type('s') == 'string')", NULL);
    edit("\"x\"", "assert(core.doc.type(doc) == 'string' and tostring(doc) == '\"x\"' and doc:table() == 'x' and doc.y == nil)", "\"x\"");
}

static void tables_are_plain_copies(void **state)
{
    edit("{\"a\":[],\"o\":{},\"n\":null,\"l\":[1,[2]],\"s\":\"\\u20ac\",\"big\":9007199254740993}",
         "local t = doc:table() assert(type(t) == 'table' and type(t.l[2]) == 'table' and t.l[2][1] == 2 and t.n == core.null) "
         "assert(t.s == '\\226\\130\\172' and t.big == 2^53 and next(t.o) == nil) t.l[1] = 9 assert(doc.l[1] == 1) doc.back = t",
         "{\"a\":[],\"o\":{},\"n\":null,\"l\":[1,[2]],\"s\":\"\\u20ac\",\"big\":9007199254740993,"
         "\"back\":{\"a\":[],\"big\":9007199254740992,\"l\":[9,[2]],\"n\":null,\"o\":{},\"s\":\"\xe2\x82\xac\"}}");
    edit("{\"a\":[1]}", "doc.a:append(2) doc.b = {c = 1} local t = doc:table() assert(t.a[2] == 2 and t.b.c == 1)", NULL);
    edit("{}", "doc.a = setmetatable({}, {__jsontype = 'array'}) doc.b = setmetatable({}, {__name = 'claw.json.array'}) doc.c = setmetatable({}, {})",
         "{\"a\":[],\"b\":[],\"c\":{}}");
    refuse("{}", "doc.a = setmetatable({x = 1}, {__jsontype = 'array'})", "marked as an array");
}

static void bytes_that_are_not_utf8_become_valid(void **state)
{
    edit("{}", "doc.a = 'a\\255\\0b'", "{\"a\":\"a\xef\xbf\xbd\\u0000" "b\"}");
}

static void the_original_is_read_only(void **state)
{
    edit("{\"a\":{\"b\":[1]}}", "assert(req.body.a.b[1] == 1 and not pcall(function() req.body.a.b[1] = 2 end)) doc.a.b[1] = 3 assert(req.body.a.b[1] == 1)", "{\"a\":{\"b\":[3]}}");
    refuse("{\"a\":{}}", "req.body.a.x = 1", "read-only");
    refuse("[1]", "req.body:append(1)", "read-only");
    refuse("[1]", "req.body:remove(1)", "read-only");
    refuse("[1]", "req.body = 1", "hook's body argument");
}

static void documents_die_with_their_request(void **state)
{
    struct claw_req *r = fixture_req(&f, "/", "{\"a\":[1,2]}", NULL);
    fixture_runs(f.p->vm, r, "doc = core.body(r) list = doc.a walk = doc:each()");
    fixture_req_free(r);
    fixture_raises(f.p->vm, NULL, "return doc.a", "the request is over");
    fixture_raises(f.p->vm, NULL, "list[1] = 2", "the request is over");
    fixture_raises(f.p->vm, NULL, "return #list", "the request is over");
    fixture_raises(f.p->vm, NULL, "return tostring(list)", "the request is over");
    fixture_raises(f.p->vm, NULL, "return walk()", "the request is over");
    fixture_runs(f.p->vm, NULL, "assert(core.is_doc(doc) and doc ~= nil and doc ~= list)");
    r = fixture_req(&f, "/", "{\"b\":1}", NULL);
    fixture_raises(f.p->vm, r, "core.body(r).copy = list", "the request is over");
    fixture_raises(f.p->vm, r, "core.body(r).copy = {list}", "the request is over");
    fixture_runs(f.p->vm, r, "collectgarbage() doc, list, walk = nil collectgarbage() collectgarbage()");
    fixture_req_free(r);
}

/* A policy that keeps a body beyond its hook must not read freed memory while the request streams on. */
static void documents_die_with_their_text(void **state)
{
    struct claw_req *r = fixture_req(&f, "/", "{\"a\":[1,2]}", NULL);
    fixture_runs(f.p->vm, r, "doc = core.body(r) list = doc.a orig = req.body");
    claw_buf_fini(&r->body); /* as the relay does behind the commit point */
    r->has_json = false;
    fixture_raises(f.p->vm, r, "return doc.a", "the text of this document is gone");
    fixture_raises(f.p->vm, r, "return tostring(list)", "the text of this document is gone");
    fixture_raises(f.p->vm, r, "return orig.a", "the text of this document is gone");
    fixture_runs(f.p->vm, r, "assert(core.json(r, 'a') == nil and core.estimate(r) == 0 and req.id)");
    fixture_req_free(r);
}

static void metatables_are_out_of_reach(void **state)
{
    refuse("{}", "setmetatable(doc, {})", "bad argument");
    edit("{}", "assert(getmetatable(doc) == 'claw.document' and getmetatable(req) == 'claw.req')", NULL);
    refuse("{}", "core.changed(io.stdout)", "document expected");
    refuse("{}", "core.changed(req)", "document expected");
}

static void big_edits_meet_the_requests_memory(void **state)
{
    refuse("{}", "for i = 1, 1000 do doc['k' .. i] = ('x'):rep(100000) end", "memory");
    edit("{}", "doc.a = 1", "{\"a\":1}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(scalars_come_out_as_lua_values), T(arrays_count_from_one), T(same_place_is_equal), T(untouched_bytes_stay),
        T(assignments_change_the_text), T(what_has_no_json_is_refused), T(deep_tables_have_a_bound), T(methods_work_on_lists),
        T(each_walks_in_order), T(paths_reach_inside), T(members_win_over_methods), T(tables_are_plain_copies),
        T(bytes_that_are_not_utf8_become_valid), T(the_original_is_read_only), T(documents_die_with_their_request), T(documents_die_with_their_text),
        T(metatables_are_out_of_reach), T(big_edits_meet_the_requests_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
