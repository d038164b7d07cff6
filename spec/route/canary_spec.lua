local canary = require("claw.route.canary")
local candidates = require("support.candidates")
local fake_facts = require("openclaw.facts")

local facts = fake_facts()

local function split(list, start)
    local choose = canary()
    return candidates.shares(1000, function() return choose(list, facts, function() return start or 0.3 end) end)
end

describe("claw.route.canary", function()
    for _, percent in ipairs({ 0.5, 1, 5, 10, 33, 50, 90 }) do
        it(("gives %g%% within 2 points over any 1,000, from any start"):format(percent), function()
            local list = candidates.list({ "stable", percentage = 100 - percent }, { "new", percentage = percent })
            for start = 0, 0.99, 0.09 do
                local share = (split(list, start).new or 0) / 10
                assert.is_true(math.abs(share - percent) <= 0.5, share)
            end
        end)
    end

    it("gives the rest to the first", function()
        local shares = split(candidates.list({ "stable", percentage = 10 }, { "x", percentage = 5 },
            { "y", percentage = 15 }))
        assert.is_true(math.abs(shares.stable - 800) <= 10)
        assert.is_true(math.abs(shares.x - 50) <= 10)
        assert.is_true(math.abs(shares.y - 150) <= 10)
        assert.same({ a = 1000 }, split(candidates.list("a", "b")))
        assert.same({ a = 1000 }, split(candidates.list("a", { "b", percentage = 0 })))
        assert.same({ b = 1000 }, split(candidates.list({ "a", percentage = 0 }, { "b", percentage = 100 })))
        assert.same({ b = 1000 }, split(candidates.list({ "b", percentage = 5 })))
    end)

    it("gives what an operator moved instead, divided as it was", function()
        local function moved(percent, list)
            local choose, asked = canary({ salt = "r" }), fake_facts(nil, { moved = percent })
            return candidates.shares(1000, function() return choose(list, asked, function() return 0.3 end) end)
        end
        local two = candidates.list("stable", { "new", percentage = 10 })
        for _, percent in ipairs({ 1, 25, 50, 99 }) do
            assert.is_true(math.abs((moved(percent, two).new or 0) / 10 - percent) <= 0.5)
        end
        assert.same({ stable = 1000 }, moved(0, two))
        assert.same({ new = 1000 }, moved(100, two))
        local three = moved(40, candidates.list("stable", { "x", percentage = 5 }, { "y", percentage = 15 }))
        assert.is_true(math.abs(three.x - 100) <= 10 and math.abs(three.y - 300) <= 10)
        local unsaid = moved(40, candidates.list("stable", "x", "y"))
        assert.is_true(math.abs(unsaid.x - 200) <= 10 and math.abs(unsaid.y - 200) <= 10)
        assert.same({ alone = 1000 }, moved(40, candidates.list("alone")))
    end)

    it("follows at once when that is moved, and back", function()
        local list, live = candidates.list("stable", { "new", percentage = 10 }), {}
        local choose, asked = canary({ salt = "r" }), fake_facts(nil, live)
        local function share()
            local one = function() return choose(list, asked, function() return 0.3 end) end
            return (candidates.shares(1000, one).new or 0) / 10
        end
        assert.is_true(math.abs(share() - 10) <= 0.5)
        live.moved = 60
        assert.is_true(math.abs(share() - 60) <= 0.5)
        live.moved = nil
        assert.is_true(math.abs(share() - 10) <= 0.5)
    end)

    it("falls back in the order of the file", function()
        local choose = canary()
        local list = candidates.list("a", { "b", percentage = 100 }, "c")
        assert.equal("b a c", candidates.names(choose(list, facts, math.random)))
    end)

    it("keeps one key on one side, and splits keys by the percentages", function()
        local list = candidates.list("stable", { "new", percentage = 20 })
        local choose = canary({ sticky_by = "user" })
        local side, counts = {}, { stable = 0, new = 0 }
        for pass = 1, 3 do
            for i = 1, 2000 do
                local name = choose(list, fake_facts(nil, { user = "user-" .. i }), math.random)[1].name
                if pass == 1 then
                    side[i] = name
                    counts[name] = counts[name] + 1
                end
                assert.equal(side[i], name)
            end
        end
        assert.is_true(math.abs(counts.new - 400) < 80, counts.new)
    end)

    it("grows a side without moving who is there already", function()
        local before, after = candidates.list("stable", { "new", percentage = 5 }),
            candidates.list("stable", { "new", percentage = 25 })
        local choose = canary({ sticky_by = "user" })
        for i = 1, 500 do
            local f = fake_facts(nil, { user = "u" .. i })
            if choose(before, f, math.random)[1].name == "new" then
                assert.equal("new", choose(after, f, math.random)[1].name)
            end
        end
    end)

    it("spreads requests without a key", function()
        local list = candidates.list("stable", { "new", percentage = 50 })
        local choose = canary({ sticky_by = "user" })
        local shares = candidates.shares(100, function() return choose(list, facts, math.random) end)
        assert.is_true(math.abs(shares.new - 50) <= 2)
    end)
end)
