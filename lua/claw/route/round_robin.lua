-- round_robin: each in turn. The turn begins at a random place, so that workers do not march in step.

local order = require("claw.route.order")

local floor = math.floor

return function()
    local memory = order.memory(function() return {} end)
    return function(candidates, _, rng)
        local n = #candidates
        local state = memory(candidates)
        local turn = state.turn or floor(rng() * n)
        state.turn = (turn + 1) % n
        return order.turns(candidates)[turn % n + 1]
    end
end
