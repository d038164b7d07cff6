-- least_busy: the fewest requests in flight (all workers counted); equals take turns.

local order = require("claw.route.order")

return function()
    local scores, start = {}, 0
    return function(candidates, facts)
        start = start % #candidates + 1
        for i = 1, #candidates do scores[i] = facts.outstanding(candidates[i]) end
        return order.by(candidates, scores, start)
    end
end
