-- weighted_round_robin: smooth (nginx's): 5:1:1 gives a a b a c a a, not a a a a a b c.

local order = require("claw.route.order")
local weight = require("claw.route.weight")

local NONE = {}
local MAX_START = 100

-- One step: everybody gains its weight, the richest is picked and pays the total.
local function step(now, weights, total)
    local best = 1
    for i = 1, #weights do
        now[i] = (now[i] or 0) + weights[i]
        if now[i] > now[best] then best = i end
    end
    now[best] = now[best] - total
    return best
end

return function()
    local tables = setmetatable({}, { __mode = "k" })
    local memory = order.memory(function() return {} end)
    return function(candidates, _, rng)
        local t = tables[candidates]
        if not t then
            t = weight.table_of(candidates)
            tables[candidates] = t
        end
        if #t.live == 0 then return NONE end
        local now = memory(candidates)
        if not now[1] then -- begin somewhere in the cycle, so that workers do not march in step
            for _ = 1, math.floor(rng() * math.min(t.total, MAX_START)) do step(now, t.weights, t.total) end
        end
        return order.heads(t.live)[step(now, t.weights, t.total)]
    end
end
