local testing = require("openclaw.testing")

local store

local function load(settings)
    settings.canary = settings.canary or "new"
    return testing.load("policies/canary_rollback.lua",
        { store = store, conf = { policies = { settings = { canary_rollback = settings } } } })
end

-- How many of n requests begin at the canary.
local function share(p, n)
    local count = 0
    for i = 1, n do
        local names = p:run("route", testing.request({ id = "id-" .. i }), { "stable", "new" }).names
        if names[1] == "new" then count = count + 1 end
    end
    return count
end

local function outcome(p, status, n)
    local result
    for _ = 1, n or 1 do
        result = p:run("log", testing.request({ attempts = { { upstream = "new", status = status } } }))
    end
    return result
end

describe("policies/canary_rollback", function()
    before_each(function()
        testing.reset()
        store = testing.store()
    end)

    it("gives the canary its part", function()
        local p = load({ percent = 20 })
        local n = share(p, 1000)
        assert.is_true(n > 120 and n < 280, n)
        assert.equal(0, share(load({ percent = 0 }), 100))
        assert.equal(100, share(load({ percent = 100 }), 100))
    end)

    it("keeps the others behind it", function()
        local p = load({ percent = 100 })
        assert.same({ "new", "stable", "other" }, p:run("route", testing.request(), { "stable", "other", "new" }).names and
            p:run("route", testing.request(), { "stable", "new", "other" }).names)
        assert.same({ "a", "b" }, p:run("route", testing.request(), { "a", "b" }).names)
        assert.same({ "new" }, p:run("route", testing.request(), { "new" }).names)
    end)

    it("rolls back when too many fail, in all workers, once, and tries again later", function()
        local p, other = load({ percent = 100, pause_ms = 5000 }), load({ percent = 100 })
        outcome(p, 200, 17)
        outcome(p, 500, 2)
        assert.equal(10, share(other, 10))
        local result = outcome(p, 500, 2)
        assert.same({ canary = "failed" }, result.fields)
        assert.equal(1, #result.logs)
        assert.equal("canary rolled back", result.logs[1].message)
        assert.equal(0, share(other, 10))
        assert.equal(0, share(p, 10))
        testing.clock:advance(5000)
        assert.equal(10, share(p, 10))
    end)

    it("does not count the client's mistakes, nor what others did", function()
        local p = load({ percent = 100 })
        assert.same({ canary = "ok" }, outcome(p, 400, 50).fields)
        for _ = 1, 50 do p:run("log", testing.request({ attempts = { { upstream = "stable", status = 500 } } })) end
        assert.same({}, p:run("log", testing.request()).fields)
        assert.equal(10, share(p, 10))
        outcome(p, 429, 20)
        assert.equal(0, share(p, 10))
    end)

    it("forgets a bad minute", function()
        local p = load({ percent = 100 })
        outcome(p, nil, 19)
        testing.clock:advance(60000)
        outcome(p, 200, 1)
        outcome(p, nil, 1)
        assert.equal(10, share(p, 10))
    end)
end)
