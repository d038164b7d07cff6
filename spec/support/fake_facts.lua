-- Facts for strategies: live values by candidate name, keys by kind.

local fake_core = require("support.fake_core")
local mix = require("claw.mix")

-- live: name -> { outstanding, ms, age, cost }
return function(live, keys)
    return {
        hash = function(text) return mix(fake_core.hash(text)) end,
        outstanding = function(c) return live and live[c.name] and live[c.name].outstanding or 0 end,
        latency_ms = function(c)
            local l = live and live[c.name] or {}
            return l.ms, l.age
        end,
        cost_micros = function(c) return live and live[c.name] and live[c.name].cost end,
        key = function(kind) return keys and keys[kind] end,
    }
end
