-- writer: Lua values as JSON, with the proxy's rules for what has a JSON form.

local json = require("claw.json")
local slice = require("openclaw.slice")

local M = {}

M.DEPTH = 64

local MARK = getmetatable(json.array())
local SHORT = { ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r",
    ["\t"] = "\\t" }

-- What is not valid UTF-8 becomes U+FFFD, byte by byte.
local function valid(text)
    local out, at, from = {}, 1, 1
    while true do
        at = text:find("[\128-\255]", at)
        if not at then break end
        local n = slice.utf8_length(text, at)
        if not n then
            out[#out + 1] = text:sub(from, at - 1)
            out[#out + 1] = "\239\191\189"
            from = at + 1
        end
        at = at + (n or 1)
    end
    out[#out + 1] = text:sub(from)
    return table.concat(out)
end

local function quote(text)
    if text:find("[\128-\255]") then text = valid(text) end
    return '"' .. text:gsub('[%z\1-\31"\\]', function(c) return SHORT[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
end
M.quote = quote

local function number(n)
    if n ~= n or n == math.huge or n == -math.huge then
        error((n ~= n and "nan" or "inf") .. " is no JSON number", 0)
    end
    if n == math.floor(n) and math.abs(n) < 2 ^ 63 then return ("%.0f"):format(n) end
    for digits = 15, 17 do
        local text = ("%." .. digits .. "g"):format(n)
        if tonumber(text) == n then return text end
    end
end

local function is_marked(t)
    local meta = getmetatable(t)
    return type(meta) == "table" and (meta == MARK
        or rawget(meta, "__name") == "claw.json.array" or rawget(meta, "__jsontype") == "array")
end

-- "array" or "object", and its sorted keys. Mixed and gapped tables have no JSON: that is said, not guessed.
local function kind_of(t)
    local items, keys, size = 0, {}, #t
    for key in pairs(t) do
        if type(key) == "string" then
            keys[#keys + 1] = key
        elseif type(key) ~= "number" or key < 1 or key > size or key ~= math.floor(key) then
            error(("a table with a %s as key has no JSON form (lists have the keys 1 to n)"):format(
                type(key) == "number" and "gap or a fraction" or type(key)), 0)
        else
            items = items + 1
        end
    end
    if items > 0 and #keys > 0 then
        error("a table with both list items and named fields has no JSON form", 0)
    end
    if items > 0 and items ~= size then error("a list with gaps has no JSON form", 0) end
    if is_marked(t) then
        if #keys > 0 then error("a table marked as an array has named fields", 0) end
        return "array"
    end
    table.sort(keys)
    return items > 0 and "array" or "object", keys
end

-- raw_of(userdata): the JSON text of a document, nil for what is none.
local function write(v, raw_of, out, depth)
    local kind = type(v)
    if kind == "string" then
        out[#out + 1] = quote(v)
    elseif kind == "number" then
        out[#out + 1] = number(v)
    elseif kind == "boolean" then
        out[#out + 1] = tostring(v)
    elseif v == json.null then
        out[#out + 1] = "null"
    elseif kind == "userdata" and raw_of(v) then
        out[#out + 1] = raw_of(v)
    elseif kind ~= "table" then
        error(("a %s has no JSON form"):format(kind), 0)
    elseif depth == 0 then
        error("tables are nested too deep for JSON (or contain themselves)", 0)
    else
        local form, keys = kind_of(v)
        out[#out + 1] = form == "array" and "[" or "{"
        for i = 1, form == "array" and #v or #keys do
            if i > 1 then out[#out + 1] = "," end
            if keys and form == "object" then out[#out + 1] = quote(keys[i]) .. ":" end
            write(v[form == "array" and i or keys[i]], raw_of, out, depth - 1)
        end
        out[#out + 1] = form == "array" and "]" or "}"
    end
end

-- The JSON text of v; raises what has none.
function M.encode(v, raw_of)
    local out = {}
    write(v, raw_of, out, M.DEPTH)
    return table.concat(out)
end

return M
