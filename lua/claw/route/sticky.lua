-- sticky: the same key goes to the same upstream, which keeps the provider's prompt cache warm.
--
-- Rendezvous hashing: an upstream that leaves moves only its own keys; each key has its own order of fallbacks.
-- `on:` client (default), header:X, session, user, prompt_prefix. `weight` is honoured. Without a key: in turn.

local order = require("claw.route.order")
local round_robin = require("claw.route.round_robin")

local log = math.log

return function(options)
    local on = options and options.on or "client"
    local in_turn = round_robin()
    local scores = {}
    return function(candidates, facts, rng)
        local key = facts.key(on)
        if not key then return in_turn(candidates, facts, rng) end
        for i = 1, #candidates do
            local c = candidates[i]
            local x = (facts.hash(key .. "\n" .. c.name) + 0.5) / 4294967296
            local weight = c.weight or 1
            scores[i] = weight > 0 and -log(x) / weight or math.huge
        end
        return order.by(candidates, scores)
    end
end
