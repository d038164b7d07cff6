-- suggest: "did you mean" for a word that is not in a list. Pure.

local M = {}

-- Edits (insert, delete, replace, swap of neighbours) that turn a into b.
local function distance(a, b)
    local rows = { [0] = {} }
    for j = 0, #b do rows[0][j] = j end
    for i = 1, #a do
        local row = { [0] = i }
        rows[i] = row
        for j = 1, #b do
            local cost = a:byte(i) == b:byte(j) and 0 or 1
            local best = math.min(rows[i - 1][j] + 1, row[j - 1] + 1, rows[i - 1][j - 1] + cost)
            if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
                best = math.min(best, rows[i - 2][j - 2] + 1)
            end
            row[j] = best
        end
    end
    return rows[#a][#b]
end

-- The nearest of `names` (an array), or nil when none is near enough to be meant.
function M.nearest(word, names)
    word = tostring(word)
    if #word > 64 then return nil end
    local best, best_distance
    for _, name in ipairs(names) do
        local d = distance(word:lower(), name:lower())
        if not best_distance or d < best_distance then best, best_distance = name, d end
    end
    if #word >= 3 then -- the beginning of exactly one is meant too
        local begun, count = nil, 0
        for _, name in ipairs(names) do
            if name:sub(1, #word) == word then begun, count = name, count + 1 end
        end
        if count == 1 then return begun end
    end
    if best and best_distance <= math.max(1, math.floor(math.max(#word, #best) / 3)) then return best end
    return nil
end

-- The same as the tail of a message: ' (did you mean "x"?)', or nothing.
function M.hint(word, names)
    local best = M.nearest(word, names)
    return best and (' (did you mean "%s"?)'):format(best) or ""
end

-- The keys of a map, sorted, as `names`.
function M.keys(map)
    local out = {}
    for key in pairs(map) do out[#out + 1] = tostring(key) end
    table.sort(out)
    return out
end

return M
