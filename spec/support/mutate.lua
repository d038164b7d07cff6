-- Broken JSON, the same every time: values of other types, fields that are gone, bytes that are wrong.

local json = require("claw.json")

local M = {}

-- A generator of numbers from 1 to n.
function M.random(seed)
    local state = seed % 2147483647
    if state == 0 then state = 1 end
    return function(n)
        state = (state * 16807) % 2147483647
        return state % n + 1
    end
end

local function values(rng)
    local all = { json.null, true, false, 0, -1, 1e300, 0.5, "", "null", "x", "\0", json.array(), {}, { "x" }, { type = "text" },
        json.array({ json.array() }), { { type = json.null } }, ("y"):rep(300), { error = "x" } }
    return all[rng(#all)]
end

local function sorted(t)
    local keys = {}
    for key in pairs(t) do keys[#keys + 1] = key end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    return keys
end

-- All places { table, key } of a value.
local function places(v, out)
    if type(v) ~= "table" then return out end
    for _, key in ipairs(sorted(v)) do
        out[#out + 1] = { v, key }
        places(v[key], out)
    end
    return out
end

-- A decoded value with one place changed.
function M.value(v, rng)
    local all = places(v, {})
    if not all[1] then return values(rng) end
    local place = all[rng(#all)]
    local t, key = place[1], place[2]
    if rng(3) == 1 then
        if type(key) == "number" then table.remove(t, key) else t[key] = nil end
    else
        t[key] = values(rng)
    end
    return v
end

-- A text with some of its bytes changed, gone, or doubled.
function M.bytes(text, rng)
    for _ = 1, rng(3) do
        local at, kind = rng(#text + 1), rng(4)
        local head, tail = text:sub(1, at - 1), text:sub(at)
        if kind == 1 then text = head .. string.char(rng(256) - 1) .. tail:sub(2)
        elseif kind == 2 then text = head .. tail:sub(1 + rng(8))
        elseif kind == 3 then text = head .. tail:sub(1, rng(20)) .. tail
        else text = head end
    end
    return text
end

-- A JSON text, broken in one way or the other.
function M.text(text, rng)
    if rng(4) == 1 then return M.bytes(text, rng) end
    if rng(16) == 1 then -- a number that is too large to be one
        local from, to = text:find("%f[%d]%d+%f[^%d.eE]", rng(#text))
        if from then return text:sub(1, from - 1) .. "1e999" .. text:sub(to + 1) end
    end
    local v = json.decode(text)
    if type(v) ~= "table" then return M.bytes(text, rng) end
    v = M.value(v, rng)
    if rng(3) == 1 and type(v) == "table" then v = M.value(v, rng) end
    local ok, out = pcall(json.encode, v)
    return ok and out or text
end

return M
