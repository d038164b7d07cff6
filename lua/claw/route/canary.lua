-- canary: `percentage` of the traffic to each; what is not given away goes to the first.
--
-- The points of a golden-ratio sequence lie evenly: the split is exact within a few requests a thousand, without a
-- counter that workers share. `sticky_by` (client, user, session, header:X) keeps one key on one side. What an operator
-- moved (POST /routes/ID/canary) takes the place of the percentages' sum; among those behind the first it is divided as
-- they are.

local order = require("claw.route.order")

local GOLDEN = (math.sqrt(5) - 1) / 2

-- Bounds of each side on [0, 1): the first takes the rest.
local function bounds(candidates, moved)
    local given = 0
    for i = 2, #candidates do given = given + (candidates[i].percentage or 0) end
    local edge = math.max(0, 100 - (moved or given)) / 100
    local out = { edge, moved = moved }
    for i = 2, #candidates do
        local own = candidates[i].percentage or 0
        if moved then own = given > 0 and own * moved / given or moved / (#candidates - 1) end
        edge = edge + own / 100
        out[i] = edge
    end
    return out
end

return function(options)
    options = options or {}
    local sticky_by = options.sticky_by
    local sides = setmetatable({}, { __mode = "k" })
    local memory = order.memory(function() return {} end)
    return function(candidates, facts, rng)
        local edges, moved = sides[candidates], facts.moved and facts.moved(options.salt or "") or nil
        if not edges or edges.moved ~= moved then
            edges = bounds(candidates, moved)
            sides[candidates] = edges
        end
        local key = sticky_by and facts.key(sticky_by)
        local x
        if key then
            x = facts.hash((options.salt or "") .. "\n" .. key) / 4294967296
        else
            local state = memory(candidates)
            x = ((state.x or rng()) + GOLDEN) % 1
            state.x = x
        end
        local n = #edges
        for i = 1, n - 1 do
            if x < edges[i] then return order.heads(candidates)[i] end
        end
        return order.heads(candidates)[edges[n] > (edges[n - 1] or 0) and n or 1]
    end
end
