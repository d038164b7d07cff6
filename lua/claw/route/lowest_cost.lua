-- lowest_cost: the cheapest by the estimate of this request; who has no price comes last, equals keep their order.

local order = require("claw.route.order")

return function()
    local scores = {}
    return function(candidates, facts)
        for i = 1, #candidates do scores[i] = facts.cost_micros(candidates[i]) or math.huge end
        return order.by(candidates, scores)
    end
end
