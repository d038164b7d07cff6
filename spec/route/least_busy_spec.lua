local candidates = require("support.candidates")
local fake_facts = require("openclaw.facts")
local least_busy = require("claw.route.least_busy")

describe("claw.route.least_busy", function()
    local list = candidates.list("a", "b", "c")

    it("takes the fewest in flight", function()
        local facts = fake_facts({ a = { outstanding = 2 }, b = { outstanding = 0 }, c = { outstanding = 1 } })
        local choose = least_busy()
        for _ = 1, 5 do assert.equal("b c a", candidates.names(choose(list, facts))) end
    end)

    it("takes equals in turn", function()
        local choose, facts = least_busy(), fake_facts()
        local shares = candidates.shares(30, function() return choose(list, facts) end)
        assert.same({ a = 10, b = 10, c = 10 }, shares)
    end)
end)
