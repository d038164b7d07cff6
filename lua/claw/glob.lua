-- glob: `*` stands for any run of characters, also none, also with slashes in it. Pure.
-- Matching is linear: the literal pieces are searched left to right, never backtracked over.

local M = {}

local find, sub = ("").find, string.sub -- strings' own find takes linear time (core/script/pattern.h)

function M.is(text)
    return find(text, "*", 1, true) ~= nil
end

-- How many characters of the glob are literal: the longer, the more specific.
function M.literal(text)
    return #(text:gsub("%*", ""))
end

local function pieces(text)
    local out, from = {}, 1
    while true do
        local star = find(text, "*", from, true)
        out[#out + 1] = sub(text, from, star and star - 1 or -1)
        if not star then return out end
        from = star + 1
    end
end

-- A function(text) -> boolean.
function M.compile(text)
    if not M.is(text) then
        return function(s) return s == text end
    end
    local parts = pieces(text)
    local head, tail = parts[1], parts[#parts]
    local middle = {}
    for i = 2, #parts - 1 do
        if parts[i] ~= "" then middle[#middle + 1] = parts[i] end
    end
    return function(s)
        local from, last = #head + 1, #s - #tail
        if last < #head or sub(s, 1, #head) ~= head or sub(s, last + 1) ~= tail then return false end
        for i = 1, #middle do
            local _, stop = find(s, middle[i], from, true)
            if not stop or stop > last then return false end
            from = stop + 1
        end
        return true
    end
end

return M
