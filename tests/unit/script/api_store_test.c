/* api_store: claw.store as a policy calls it. */
#include "fixture.h"

#include "proxy/store.h"

static struct fixture f;
static struct claw_store *store;

static int setup(void **state)
{
    fixture_init(&f);
    store = claw_store_new(1 << 20);
    if (!store || fixture_load(&f, two_upstreams) != 0) {
        fixture_print(&f);
        return -1;
    }
    f.gen->store = store;
    fixture_vm(&f, "local function no() end return { new = function(spec) return setmetatable({}, { __index = function() return no end }) end }");
    return 0;
}

static int teardown(void **state)
{
    fixture_fini(&f);
    claw_store_free(store);
    return 0;
}

#define SAME "local function same(n, ...) assert(select('#', ...) == n, select('#', ...)) return ... end "
#define runs(code) fixture_runs(f.p->vm, NULL, "local s = core.store('mine') " SAME code)
#define raises(code, text) fixture_raises(f.p->vm, NULL, "local s = core.store('mine') " code, text)

static void values_come_back_as_they_went(void **state)
{
    runs("assert(same(1, s.get('k')) == nil)");
    runs("assert(same(1, s.set('k', 'text')) == true and s.get('k') == 'text' and s.set('k', 'a\\0b') and s.get('k') == 'a\\0b')");
    runs("assert(s.set('k', false) and s.get('k') == false and s.set('k', -1.5) and s.get('k') == -1.5)");
    runs("assert(s.add('k', 1) == false and s.add('other', 1) == true and s.add('other', 2) == false and s.get('other') == 1)");
    runs("assert(s.incr('n') == 1 and s.incr('n', 4) == 5 and s.incr('n', -10) == -5 and s.get('n') == -5)");
    runs("assert(s.cas('n', -5, 'x') == true and s.cas('n', -5, 'y') == false and s.cas('n', nil, 'y') == false and s.cas('m', nil, 'y') == true)");
    runs("assert(s.delete('n') == true and s.delete('n') == false and s.get('n') == nil)");
    runs("assert(s.set('k', 1, { ttl_ms = 60000 }) and s.get('k', {}) == 1)");
}

static void spaces(void **state)
{
    runs("local t = core.store('theirs') s.set('k', 1) assert(t.get('k') == nil and t.get('k', { shared = true }) == nil)");
    runs("local t = core.store('theirs') s.set('k', 2, { shared = true }) assert(t.get('k', { shared = true }) == 2 and s.get('k') == 1)");
    runs("local t = core.store('theirs') assert(t.incr('k', 1, { shared = true }) == 3 and s.delete('k', { shared = true }) and s.get('k', { shared = false }) == 1)");
    assert_int_equal(claw_store_measure(store).entries, 1); /* the process' store, not one of the VM */
}

static void failures_are_told(void **state)
{
    runs("local v, m, c = s.set('k', ('x'):rep(65537)) assert(v == nil and m:find('64 KB') and c == 'ETOO_LARGE')");
    runs("assert(s.set('k', ('x'):rep(65536)) and #s.get('k') == 65536)");
    runs("for _, name in ipairs({ 'get', 'delete', 'incr' }) do assert(select(3, s[name](('k'):rep(257))) == 'ETOO_LARGE') end");
    runs("assert(select(3, s.incr('k')) == 'EINVAL' and s.set('k', 2 ^ 53 - 1) and select(3, s.incr('k')) == 'ERANGE' and s.get('k') == 2 ^ 53 - 1)");
}

/* What a policy gets wrong names the function and the policy's own line. */
static void mistakes_are_raised(void **state)
{
    raises("\n s.set(5, 1)", "test:2: claw.store.set: a key is a string, not a number");
    raises("s.get()", "claw.store.get: a key is a string, not a nil");
    raises("s.set('k')", "claw.store.set: a value is a string, a number or a boolean, not a nil");
    raises("s.add('k', {})", "claw.store.add: a value is a string, a number or a boolean, not a table");
    raises("s.set('k', 0/0)", "claw.store.set: a value is a number, not NaN");
    raises("s.incr('k', 0.5)", "claw.store.incr: wants a whole number, not 0.5");
    raises("s.incr('k', 0/0)", "claw.store.incr: wants a whole number");
    raises("s.incr('k', '1')", "claw.store.incr: wants a whole number, not string");
    raises("s.cas('k', {}, 1)", "claw.store.cas: a value is");
    raises("s.cas('k', 1)", "claw.store.cas: a value is");
    raises("s.set('k', 1, 5)", "claw.store.set: options are a table, not a number");
    raises("s.set('k', 1, { ttl = 5 })", "claw.store.set: unknown option ttl (ttl_ms, shared)");
    raises("s.get('k', { ttl_ms = 5 })", "claw.store.get: unknown option ttl_ms (shared)");
    raises("s.set('k', 1, { ttl_ms = 0 })", "claw.store.set: ttl_ms is a whole number from 1 to 1e12");
    raises("s.set('k', 1, { shared = 1 })", "claw.store.set: shared is true or false, not a number");
    runs("assert(s.get('k') == nil)");
}

/* A VM that proves, or explains, has a store of its own: nothing of it is seen by others, all of it goes with the VM. */
static void without_the_process(void **state)
{
    f.p->vm->store = NULL;
    runs("assert(s.incr('k') == 1 and s.incr('k') == 2)");
    assert_int_equal(claw_store_measure(store).entries, 0);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(values_come_back_as_they_went), TEST(spaces), TEST(failures_are_told), TEST(mistakes_are_raised), TEST(without_the_process),
    };
    return cmocka_run_group_tests_name("script/api_store", tests, NULL, NULL);
}
