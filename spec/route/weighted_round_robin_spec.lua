local candidates = require("support.candidates")
local weighted_round_robin = require("claw.route.weighted_round_robin")

local function zero() return 0 end

describe("claw.route.weighted_round_robin", function()
    it("is smooth", function()
        local choose = weighted_round_robin()
        local list = candidates.list({ "a", weight = 5 }, { "b", weight = 1 }, { "c", weight = 1 })
        local seen = {}
        for i = 1, 14 do seen[i] = choose(list, nil, zero)[1].name end
        assert.equal("aabacaaaabacaa", table.concat(seen))
    end)

    it("is exact over each full cycle, wherever it starts", function()
        for start = 0, 0.95, 0.05 do
            local choose = weighted_round_robin()
            local list = candidates.list({ "a", weight = 5 }, { "b", weight = 3 }, { "c", weight = 2 })
            local shares = candidates.shares(100, function() return choose(list, nil, function() return start end) end)
            assert.same({ a = 50, b = 30, c = 20 }, shares)
        end
    end)

    it("leaves out weight 0", function()
        local choose = weighted_round_robin()
        local list = candidates.list({ "off", weight = 0 }, "a")
        assert.equal("a", candidates.names(choose(list, nil, zero)))
        assert.same({}, choose(candidates.list({ "off", weight = 0 }), nil, zero))
    end)
end)
