-- weight: who takes part (weight 0 is off), and who is picked for a point on the line of all weights. Pure.

local M = {}

-- { live = list of those with a weight above 0, weights, total }
function M.table_of(candidates)
    local t = { live = {}, weights = {}, total = 0 }
    for i = 1, #candidates do
        local weight = candidates[i].weight or 1
        if weight > 0 then
            t.live[#t.live + 1] = candidates[i]
            t.weights[#t.weights + 1] = weight
            t.total = t.total + weight
        end
    end
    return t
end

-- The entry of `weights` under point x in [0, total).
function M.pick(weights, x)
    for i = 1, #weights - 1 do
        x = x - weights[i]
        if x < 0 then return i end
    end
    return #weights
end

return M
