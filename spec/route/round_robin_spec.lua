local candidates = require("support.candidates")
local fake_core = require("support.fake_core")
local round_robin = require("claw.route.round_robin")

describe("claw.route.round_robin", function()
    it("takes each in turn, from a random start", function()
        local list, starts = candidates.list("a", "b", "c"), {}
        local random = fake_core.random()
        for _ = 1, 50 do
            local choose = round_robin()
            local first = choose(list, nil, random)[1].name
            starts[first] = true
            local seen = first
            for _ = 1, 5 do seen = seen .. choose(list, nil, random)[1].name end
            assert.truthy(("abcabcabc"):find(seen, 1, true), seen)
        end
        assert.same({ a = true, b = true, c = true }, starts)
    end)

    it("goes on around the circle behind the first", function()
        local choose = round_robin()
        local list = candidates.list("a", "b", "c")
        local function zero() return 0 end
        assert.equal("a b c", candidates.names(choose(list, nil, zero)))
        assert.equal("b c a", candidates.names(choose(list, nil, zero)))
    end)

    it("counts each list by itself", function()
        local choose = round_robin()
        local two, other = candidates.list("a", "b"), candidates.list("a", "c")
        local shares = { two = {}, other = {} }
        for _ = 1, 100 do -- alternating requests for two models must not pin each to one upstream
            local x = choose(two, nil, math.random)[1].name
            local y = choose(other, nil, math.random)[1].name
            shares.two[x] = (shares.two[x] or 0) + 1
            shares.other[y] = (shares.other[y] or 0) + 1
        end
        assert.same({ two = { a = 50, b = 50 }, other = { a = 50, c = 50 } }, shares)
    end)

    it("works on fresh copies of a list too", function()
        local choose = round_robin()
        local shares = candidates.shares(100, function()
            return choose(candidates.list("a", "b"), nil, math.random)
        end)
        assert.same({ a = 50, b = 50 }, shares)
    end)
end)
