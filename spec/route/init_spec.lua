local candidates = require("support.candidates")
local fake_facts = require("openclaw.facts")
local route = require("claw.route")

describe("claw.route", function()
    for _, name in ipairs(route.NAMES) do
        it(name .. " answers with an order of its candidates, each once", function()
            local choose = route.strategies[name]({})
            for n = 1, 5 do
                local list = candidates.list(unpack({ "a", "b", "c", "d", "e" }, 1, n))
                for _ = 1, 20 do
                    local answer = choose(list, fake_facts(), math.random)
                    assert.equal(n, #answer)
                    local seen = {}
                    for _, c in ipairs(answer) do
                        assert.equal(c, list[c.index])
                        assert.is_nil(seen[c])
                        seen[c] = true
                    end
                end
            end
        end)
    end
end)
