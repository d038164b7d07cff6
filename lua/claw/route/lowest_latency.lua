-- lowest_latency: the lowest running mean of the time to the first byte, and enough looking around.
--
-- Who has no sample yet goes first, one request at a time, so that a cold start spreads instead of piling up; who still
-- has none after a few tries (it fails) is only looked at now and then. An old sample may be wrong by now: who has not
-- been heard of for a while gets a small share, a larger one the longer it is.

local order = require("claw.route.order")

local STALE_MS, STALE_SHARE = 10000, 0.02
local OLD_MS, OLD_SHARE = 30000, 0.1
local FRESH_TRIES = 3

local function unsampled(c, facts, rng, tries)
    local n = tries[c.name] or 0
    if facts.outstanding(c) > 0 then return math.huge end
    if n >= FRESH_TRIES and rng() >= STALE_SHARE then return math.huge end
    tries[c.name] = n + 1
    return -1
end

return function()
    local scores, tries, start = {}, {}, 0
    return function(candidates, facts, rng)
        local n, best, old, share = #candidates, nil, nil, 0
        start = start % n + 1
        for k = 0, n - 1 do
            local i = (start - 1 + k) % n + 1
            local ms, age = facts.latency_ms(candidates[i])
            if ms then
                tries[candidates[i].name] = nil
                scores[i] = ms
                if not best or ms < scores[best] then best = i end
                if age and age > STALE_MS and (not old or rng() < 0.5) then
                    old, share = i, age > OLD_MS and OLD_SHARE or STALE_SHARE
                end
            else
                scores[i] = false
            end
        end
        local fresh = false -- only one newcomer is asked for per request
        for k = 0, n - 1 do
            local i = (start - 1 + k) % n + 1
            if scores[i] == false then
                scores[i] = fresh and math.huge or unsampled(candidates[i], facts, rng, tries)
                fresh = fresh or scores[i] < 0
            end
        end
        if old and old ~= best and not fresh and rng() < share then scores[old] = -1 end
        return order.by(candidates, scores, start)
    end
end
