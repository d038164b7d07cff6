local kit = require("support.kit")
local testing = require("openclaw.testing")

local load, message_of = kit.load, kit.message_of

describe("openclaw.store", function()
    before_each(testing.reset)

    it("keeps, counts and forgets", function()
        local source = [[function P.admit(req)
            local s, key = claw.store, req.client.headers.key
            assert(s.get(key) == nil)
            assert(s.incr(key, 2, { ttl_ms = 100 }) == 2 and s.incr(key) == 3 and s.get(key) == 3)
            assert(s.set("a", "x") and s.add("a", "y") == false and s.add("b", true) and s.get("b") == true)
            assert(s.cas("a", "y", "z") == false and s.cas("a", "x", "z") and s.get("a") == "z")
            s.delete("a") s.delete("b") s.delete("never")
            assert(s.get("a") == nil)
            local ok, message, code = s.set("big", ("x"):rep(65537))
            assert(ok == nil and code == "ETOO_LARGE", message)
            assert(select(3, s.incr(key)) == nil and s.set("t", "text") and select(3, s.incr("t")) == "EINVAL")
            s.set("common", 1, { shared = true })
            s.delete("t")
        end
        function P.log(req) return { v = claw.store.get(req.client.headers.key), c = claw.store.get("common", { shared = true }) } end]]
        local shared = testing.store()
        local p = load(source, { store = shared })
        local other = testing.load("policies/y.lua", { source = (("local P = { api = 1 }\n" .. source .. "\nreturn P")), store = shared })
        local req = testing.request({ headers = { key = "k" } })
        p:run("admit", req)
        assert.same({ v = 4, c = 1 }, p:run("log", req).fields)
        assert.same({ c = 1 }, other:run("log", req).fields)
        testing.clock:advance(99)
        assert.equal(4, p:run("log", req).fields.v)
        testing.clock:advance(1)
        assert.is_nil(p:run("log", req).fields.v)
        p = load("function P.admit() claw.store.set('a', {}) end")
        assert.equal("policies/x.lua:2: claw.store.set: the value must be a string, a number or a boolean, not a table",
            message_of(p.run, p, "admit", req))
    end)

    it("keeps to its bounds", function()
        local F = require("openclaw.store").functions(testing.store(), "x")
        assert.equal("ETOO_LARGE", select(3, F.set(("k"):rep(257), 1)))
        assert.is_true(F.set(("k"):rep(256), 1))
        F.set("n", 2 ^ 53 - 2)
        assert.equal(2 ^ 53 - 1, F.incr("n"))
        assert.equal("ERANGE", select(3, F.incr("n")))
        F.set("half", 0.5)
        assert.equal("EINVAL", select(3, F.incr("half")))
    end)

    it("leaves the end as it was where cas names none", function()
        local F = require("openclaw.store").functions(testing.store(), "x")
        F.set("a", 1, { ttl_ms = 10 })
        assert.is_true(F.cas("a", 1, 2))
        testing.clock:advance(10)
        assert.is_nil(F.get("a"))
        assert.is_true(F.cas("a", nil, 3))
    end)

    for code, message in pairs({
        ["get(5)"] = "claw.store.get: the key must be a string, not a number",
        ["get('a', 5)"] = "get: the options must be a table, not a number",
        ["set('a', 1, { ttl = 1 })"] = "set: unknown option ttl (ttl_ms, shared)",
        ["get('a', { ttl_ms = 1 })"] = "get: unknown option ttl_ms (shared)",
        ["add('a', 1, { ttl_ms = 0 })"] = "add: ttl_ms must be a number from 1 to 1e12",
        ["incr('a', 1.5)"] = "incr: by must be a whole number, not 1.5",
        ["set('a', 0/0)"] = "set: the value must not be NaN", ["cas('a', {}, 1)"] = "cas: the old value must be a string",
        ["delete('a', { shared = 1 })"] = "delete: shared must be true or false, not a number",
    }) do
        it("refuses " .. code, function()
            local p = load("function P.admit() claw.store." .. code .. " end")
            assert.truthy(message_of(p.run, p, "admit", testing.request()):find("policies/x.lua:2: .*" .. message:gsub("%p", "%%%0")))
        end)
    end
end)
