-- diff: two JSON values told apart: a line for each path that came, went or changed.

local json = require("claw.json")

local M = {}

M.BYTES = 80 -- of a value that is shown
M.LINES = 40

-- The text, cut between two characters.
function M.cut(text, bytes)
    bytes = bytes or M.BYTES
    if #text <= bytes then return text end
    while bytes > 0 and text:byte(bytes + 1) >= 0x80 and text:byte(bytes + 1) < 0xc0 do bytes = bytes - 1 end
    return text:sub(1, bytes) .. "…"
end

local function show(value)
    local ok, text = pcall(json.encode, value)
    return M.cut(ok and text or tostring(value))
end

local function keys_of(a, b)
    local keys, seen = {}, {}
    for _, t in ipairs({ a, b }) do
        for key in pairs(t) do
            if not seen[key] then
                seen[key] = true
                keys[#keys + 1] = key
            end
        end
    end
    table.sort(keys, function(x, y) return tostring(x) < tostring(y) end)
    return keys
end

local function member(path, key)
    if not key:find("^[%w_-]+$") then return ("%s[%q]"):format(path, key) end
    return path == "" and key or path .. "." .. key
end

local compare

local function compare_arrays(out, path, old, new, bare)
    for i = 1, math.max(#old, #new) do compare(out, ("%s[%d]"):format(path, i - 1), old[i], new[i], bare) end
end

function compare(out, path, old, new, bare)
    if type(old) == "table" and type(new) == "table" then
        local lists = json.is_array(old)
        if lists == json.is_array(new) then
            if lists then return compare_arrays(out, path, old, new, bare) end
            for _, key in ipairs(keys_of(old, new)) do compare(out, member(path, key), old[key], new[key], bare) end
            return
        end
    end
    if old == new then return end
    local where = path == "" and "(the body)" or path
    if bare then out[#out + 1] = (old == nil and "+ " or new == nil and "- " or "~ ") .. where
    elseif old == nil then out[#out + 1] = ("+ %s: %s"):format(where, show(new))
    elseif new == nil then out[#out + 1] = ("- %s: %s"):format(where, show(old))
    else out[#out + 1] = ("~ %s: %s -> %s"):format(where, show(old), show(new)) end
end

-- Lines "+ path: new", "- path: old", "~ path: old -> new"; paths as in match.json_body. At most M.LINES and one that
-- counts the others. bare: without the values.
function M.lines(old, new, bare)
    local out = {}
    compare(out, "", old, new, bare)
    local more = #out - M.LINES
    if more > 0 then
        for i = #out, M.LINES + 1, -1 do out[i] = nil end
        out[#out + 1] = ("… and %d more"):format(more)
    end
    return out
end

-- The same of two texts, which are JSON or not.
function M.texts(old, new, bare)
    if old == new then return {} end
    local a, b = json.decode(old or ""), json.decode(new or "")
    if a ~= nil and b ~= nil then return M.lines(a, b, bare) end
    if bare then return { "~ (the body)" } end
    return { ("~ (the body): %s -> %s"):format(M.cut(old or "nothing"), M.cut(new or "nothing")) }
end

return M
