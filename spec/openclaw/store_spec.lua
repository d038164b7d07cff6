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
            assert(s.delete("a") and s.delete("b") and s.delete("never") == false)
            assert(select(3, s.get(("k"):rep(257))) == "ETOO_LARGE" and s.get(("k"):rep(256)) == nil)
            assert(s.set("edge", 2 ^ 53 - 1) and select(3, s.incr("edge")) == "ERANGE" and s.delete("edge"))
            assert(s.set("part", 0.5) and select(3, s.incr("part")) == "EINVAL" and s.delete("part"))
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
        assert.equal("policies/x.lua:2: claw.store.set: a value is a string, a number or a boolean, not a table",
            message_of(p.run, p, "admit", req))
    end)
end)
