-- json: plain Lua tables for policies that want them.
--
-- What must go out byte for byte stays in the document userdata (body.field); this is for reading and building.
-- null is JSON null. An array is a table with a first element, or one marked by array(): decode marks every [].
-- Numbers are doubles: whole numbers past 2^53 lose digits here (they do not in the document).
-- lua-cjson decodes; it cannot tell [] from {}, so texts with an empty array go through the reader below, and so do
-- large ones of policies.

local cjson = require("cjson").new()
cjson.decode_invalid_numbers(false)
cjson.decode_max_depth(512)

local M = { null = require("cjson").null }

local DEPTH = 512
local ARRAY = { __name = "claw.json.array" }

-- Mark a table (a new one by default) as an array, so that it is [] when empty.
function M.array(t)
    return setmetatable(t or {}, ARRAY)
end

function M.is_array(t)
    return type(t) == "table" and (getmetatable(t) == ARRAY or t[1] ~= nil)
end

-- ---- writing

local ESCAPE = { ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r",
    ["\t"] = "\\t" }
local function escape(c)
    return ESCAPE[c] or ("\\u%04x"):format(c:byte())
end

-- A text as JSON. Most have nothing to escape: looking first spares the copy.
local function quote(text)
    if not text:find('[%c"\\]') then return '"' .. text .. '"' end
    return '"' .. text:gsub('[%c"\\]', escape) .. '"'
end
M.quote = quote

local function number(n)
    if n ~= n or n == math.huge or n == -math.huge then error("JSON has no " .. tostring(n), 0) end
    if n == math.floor(n) and math.abs(n) < 2 ^ 53 then return ("%d"):format(n) end
    local short = ("%.15g"):format(n)
    return tonumber(short) == n and short or ("%.17g"):format(n)
end

local CHECK_EVERY = 1024 -- values
local LARGE = 2 ^ 19 -- bytes; longer texts hold up lua-cjson, which nothing can stop, for tens of milliseconds

-- out.n counts values: a small table that holds itself many times over is a very long text.
local function count(out)
    out.n = out.n + 1
    if out.check and out.n % CHECK_EVERY == 0 then out.check() end
end

local write

local function write_array(t, out, depth)
    out[#out + 1] = "["
    for i = 1, #t do
        if i > 1 then out[#out + 1] = "," end
        write(t[i], out, depth)
    end
    out[#out + 1] = "]"
end

-- Keys are sorted: the same table is always the same text.
local function write_object(t, out, depth)
    local keys = {}
    for key in pairs(t) do
        if type(key) ~= "string" then error("a JSON object's key must be a string, not a " .. type(key), 0) end
        keys[#keys + 1] = key
    end
    table.sort(keys)
    out[#out + 1] = "{"
    for i, key in ipairs(keys) do
        out[#out + 1] = (i > 1 and "," or "") .. quote(key) .. ":"
        write(t[key], out, depth)
    end
    out[#out + 1] = "}"
end

function write(v, out, depth)
    local kind = type(v)
    count(out)
    if v == M.null then
        out[#out + 1] = "null"
    elseif kind == "string" then
        out[#out + 1] = quote(v)
    elseif kind == "number" then
        out[#out + 1] = number(v)
    elseif kind == "boolean" then
        out[#out + 1] = tostring(v)
    elseif kind == "userdata" and getmetatable(v) ~= "claw.req" then
        out[#out + 1] = tostring(v) -- a document is its own JSON text
    elseif kind ~= "table" then
        error("no JSON for a " .. kind, 0)
    elseif depth >= DEPTH then
        error("deeper than " .. DEPTH .. " levels", 0)
    elseif M.is_array(v) then
        write_array(v, out, depth + 1)
    else
        write_object(v, out, depth + 1)
    end
end

-- The text of a value. Raises what has no JSON (functions, NaN, mixed tables, cycles). check: called now and then, to
-- raise when this takes too long.
function M.encode(v, check)
    local out = { n = 0, check = check }
    write(v, out, 0)
    return table.concat(out)
end

-- ---- reading texts with an empty array in them, and large ones

local WORDS = { ["true"] = true, ["false"] = false, null = M.null }

local function fail(text, at)
    error(("unexpected %s at byte %d"):format(at > #text and "end" or quote(text:sub(at, at)), at), 0)
end

local function skip(text, at)
    return (text:find("[^ \t\r\n]", at)) or #text + 1
end

local function read_string(text, at, state)
    local from = at + 1
    while true do
        count(state)
        local stop = text:find('["\\%c]', from)
        if not stop then fail(text, #text + 1) end
        local c = text:sub(stop, stop)
        if c == '"' then return cjson.decode("[" .. text:sub(at, stop) .. "]")[1], stop + 1 end
        if c ~= "\\" and c ~= "\127" then fail(text, stop) end
        from = stop + (c == "\\" and 2 or 1)
    end
end

local read

local function read_array(text, at, depth, state)
    local out = M.array()
    at = skip(text, at + 1)
    if text:sub(at, at) == "]" then return out, at + 1 end
    while true do
        out[#out + 1], at = read(text, at, depth, state)
        at = skip(text, at)
        local c = text:sub(at, at)
        if c == "]" then return out, at + 1 end
        if c ~= "," then fail(text, at) end
        at = skip(text, at + 1)
    end
end

local function read_object(text, at, depth, state)
    local out = {}
    at = skip(text, at + 1)
    if text:sub(at, at) == "}" then return out, at + 1 end
    while true do
        if text:sub(at, at) ~= '"' then fail(text, at) end
        local key
        key, at = read_string(text, at, state)
        at = skip(text, at)
        if text:sub(at, at) ~= ":" then fail(text, at) end
        out[key], at = read(text, skip(text, at + 1), depth, state)
        at = skip(text, at)
        local c = text:sub(at, at)
        if c == "}" then return out, at + 1 end
        if c ~= "," then fail(text, at) end
        at = skip(text, at + 1)
    end
end

function read(text, at, depth, state)
    count(state)
    if depth > DEPTH then error("deeper than " .. DEPTH .. " levels", 0) end
    local c = text:sub(at, at)
    if c == "{" then return read_object(text, at, depth + 1, state) end
    if c == "[" then return read_array(text, at, depth + 1, state) end
    if c == '"' then return read_string(text, at, state) end
    local word = text:match("^%l+", at)
    if word and WORDS[word] ~= nil then return WORDS[word], at + #word end
    local digits = text:match("^%-?%d+%.?%d*[eE]?[+-]?%d*", at)
    local n = digits and not digits:find("^%-?0%d") and tonumber(digits)
    if not n or digits:find("%.$") or digits:find("%.[eE]") then fail(text, at) end
    return n, at + #digits
end

local function read_all(text, state)
    local v, at = read(text, skip(text, 1), 0, state)
    at = skip(text, at)
    if at <= #text then fail(text, at) end
    return v
end

-- The value of a text, or nil, message, "EBAD_JSON". check: as in encode.
function M.decode(text, check)
    if type(text) ~= "string" then error("claw.json.decode wants a string, got " .. type(text), 2) end
    local ok, v
    if text:find("%[[ \t\r\n]*%]") or (check and #text > LARGE) then
        ok, v = pcall(read_all, text, { n = 0, check = check })
    else
        ok, v = pcall(cjson.decode, text)
    end
    if ok then return v end
    if check then check() end -- what it raised in the reader is no fault of the text
    return nil, tostring(v), "EBAD_JSON"
end

return M
