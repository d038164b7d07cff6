-- weighted_random: a draw by `weight` (1 by default, 0 is off); the others wait behind in the order of the file.

local order = require("claw.route.order")
local weight = require("claw.route.weight")

local NONE = {}

return function()
    local tables = setmetatable({}, { __mode = "k" })
    return function(candidates, _, rng)
        local t = tables[candidates]
        if not t then
            t = weight.table_of(candidates)
            tables[candidates] = t
        end
        if #t.live == 0 then return NONE end
        return order.heads(t.live)[weight.pick(t.weights, rng() * t.total)]
    end
end
