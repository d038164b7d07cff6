-- facts: what a strategy is told, written by hand: live values by candidate name, keys by kind.

local core = require("openclaw.core")
local mix = require("claw.mix")

-- live: name -> { outstanding, ms, age, cost, state, cooling }; keys: kind -> text.
return function(live, keys)
    return {
        hash = function(text) return mix(core.hash(text)) end,
        outstanding = function(c) return live and live[c.name] and live[c.name].outstanding or 0 end,
        latency_ms = function(c)
            local l = live and live[c.name] or {}
            return l.ms, l.age
        end,
        state = function(c) return live and live[c.name] and live[c.name].state or "closed" end,
        cooling_until = function(c) return live and live[c.name] and live[c.name].cooling end,
        cost_micros = function(c) return live and live[c.name] and live[c.name].cost end,
        moved = function() return keys and keys.moved end,
        key = function(kind) return keys and keys[kind] end,
        input_tokens = function() return keys and keys.input_tokens or 10 end,
        max_tokens = function() return keys and keys.max_tokens end,
    }
end
