local candidates = require("support.candidates")
local fake_core = require("support.fake_core")
local fake_facts = require("openclaw.facts")
local lowest_latency = require("claw.route.lowest_latency")

describe("claw.route.lowest_latency", function()
    local list = candidates.list("a", "b", "c")

    it("orders by the running mean", function()
        local facts = fake_facts({ a = { ms = 300, age = 1 }, b = { ms = 100, age = 1 }, c = { ms = 200, age = 1 } })
        local choose = lowest_latency()
        for _ = 1, 20 do assert.equal("b c a", candidates.names(choose(list, facts, math.random))) end
    end)

    it("looks at who has no sample first", function()
        local facts = fake_facts({ a = { ms = 10, age = 1 }, b = { ms = 20, age = 1 } })
        assert.equal("c a b", candidates.names(lowest_latency()(list, facts, math.random)))
    end)

    it("does not pile a cold start on one", function()
        local live = {}
        local facts, choose = fake_facts(live), lowest_latency()
        local seen = {}
        for _ = 1, 3 do
            local name = choose(list, facts, math.random)[1].name
            seen[name] = true
            live[name] = { outstanding = 1 }
        end
        assert.same({ a = true, b = true, c = true }, seen)
        local shares = candidates.shares(300, function() return choose(list, facts, math.random) end)
        for _, name in ipairs({ "a", "b", "c" }) do assert.equal(100, shares[name]) end
    end)

    it("gives up on who never answers, but looks again now and then", function()
        local facts, choose = fake_facts({ a = { ms = 10, age = 1 }, b = { ms = 20, age = 1 } }), lowest_latency()
        local random = fake_core.random()
        local shares = candidates.shares(5000, function() return choose(list, facts, random) end)
        assert.is_true(shares.c > 50 and shares.c < 200, shares.c)
        assert.is_nil(shares.b)
    end)

    it("finds a recovered upstream again", function()
        local live = { a = { ms = 10, age = 1 }, b = { ms = 5000, age = 20000 }, c = { ms = 5000, age = 40000 } }
        local facts, choose = fake_facts(live), lowest_latency()
        local random = fake_core.random(3)
        local shares = candidates.shares(5000, function() return choose(list, facts, random) end)
        assert.is_true(shares.b > 20 and shares.b < 150, shares.b)
        assert.is_true(shares.c > 150 and shares.c < 500, shares.c)
        assert.is_true(shares.a > 4300)
    end)

    it("does not look around when the best itself is old", function()
        local facts = fake_facts({ a = { ms = 10, age = 90000 } })
        local choose = lowest_latency()
        local one = candidates.list("a")
        for _ = 1, 20 do assert.equal("a", candidates.names(choose(one, facts, math.random))) end
    end)
end)
