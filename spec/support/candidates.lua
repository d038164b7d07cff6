-- Candidate lists for strategies.

local M = {}

-- list("a", { "b", weight = 3 }, …)
function M.list(...)
    local out = {}
    for i, given in ipairs({ ... }) do
        local c = { index = i }
        if type(given) == "table" then
            for key, value in pairs(given) do c[key] = value end
            given = c[1]
            c[1] = nil
        end
        c.name = given
        out[i] = c
    end
    return out
end

function M.names(list)
    local out = {}
    for i, c in ipairs(list) do out[i] = c.name end
    return table.concat(out, " ")
end

-- How often each is first in n choices.
function M.shares(n, fn)
    local out = {}
    for i = 1, n do
        local name = fn(i)[1].name
        out[name] = (out[name] or 0) + 1
    end
    return out
end

return M
