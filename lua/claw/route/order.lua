-- order: the lists strategies answer with.
--
-- Candidate lists are stable tables (the router makes one per route and model and keeps it), so the lists derived
-- from them are made once and handed out again: choosing allocates nothing. They must not be changed by who gets them.
-- Such a list says so: `kept`.

local M = { LIMIT = 16 } -- candidates in one answer

local head_cache = setmetatable({}, { __mode = "k" })
local turn_cache = setmetatable({}, { __mode = "k" })

-- heads(list)[k]: entry k first, the others behind it in their order.
function M.heads(list)
    local cached = head_cache[list]
    if cached then return cached end
    local out = {}
    for k = 1, #list do
        local order = { list[k], kept = true }
        for i = 1, #list do
            if i ~= k and #order < M.LIMIT then order[#order + 1] = list[i] end
        end
        out[k] = order
    end
    head_cache[list] = out
    return out
end

-- turns(list)[k]: beginning with entry k, then on around the circle.
function M.turns(list)
    local cached = turn_cache[list]
    if cached then return cached end
    local out = {}
    for k = 1, #list do
        local order = { kept = true }
        for i = 0, math.min(#list, M.LIMIT) - 1 do order[i + 1] = list[(k - 1 + i) % #list + 1] end
        out[k] = order
    end
    turn_cache[list] = out
    return out
end

-- A new list by rising score; equals keep the circle's order from entry `start` on (1 by default).
function M.by(list, scores, start)
    local n, out, keys = #list, {}, {}
    for i = 0, n - 1 do
        local from = ((start or 1) - 1 + i) % n + 1
        local c, score, at = list[from], scores[from], i + 1
        while at > 1 and keys[at - 1] > score do
            out[at], keys[at] = out[at - 1], keys[at - 1]
            at = at - 1
        end
        out[at], keys[at] = c, score
    end
    for i = M.LIMIT + 1, n do out[i] = nil end
    return out
end

local function signature(list)
    local names = {}
    for i = 1, #list do names[i] = list[i].name end
    return table.concat(names, "\n")
end

-- State a strategy keeps per candidate list: get(list) gives the same table for the same list, and for a copy of it
-- (same names in the same order). make(list) fills a new one.
function M.memory(make)
    local by_list, by_names, count = setmetatable({}, { __mode = "k" }), {}, 0
    return function(list)
        local state = by_list[list]
        if state then return state end
        local names = signature(list)
        state = by_names[names]
        if not state then
            if count >= 1000 then by_names, count = {}, 0 end
            state = make(list)
            by_names[names], count = state, count + 1
        end
        by_list[list] = state
        return state
    end
end

return M
