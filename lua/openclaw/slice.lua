-- slice: strict JSON as slices of its text (RFC 8259), in plain Lua. What openclaw.document stands on.
--
-- check(text) walks a whole text once; everything else takes texts that were checked. A value is its own bytes, so that
-- what nobody touches keeps its spelling: 1.0e0, "\u0041", { } with a space.

local json = require("claw.json")

local M = {}

M.DEPTH = 512

local EXACT = 2 ^ 53
local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }
local WORDS = { t = "true", f = "false", n = "null" }
local TYPES = { ["{"] = "object", ["["] = "array", ['"'] = "string", t = "boolean", f = "boolean", n = "null" }

-- The type of a value by its first byte.
function M.type_of(raw)
    return TYPES[raw:sub(1, 1)] or "number"
end

local function skip(text, at)
    return (text:find("[^ \t\r\n]", at)) or #text + 1
end

-- ---- the grammar. A failure is raised as { message, byte }.

local function fail(at, message, text)
    if text and at > #text then message = "unexpected end of text" end
    error({ message or "unexpected character", at - 1 }, 0)
end

-- Bytes of the character that begins there (an ASCII one is not asked for); nil when it is no UTF-8.
local function utf8_length(text, at)
    local c, d, e, f = text:byte(at, at + 3)
    local function tail(b) return b and b >= 0x80 and b <= 0xbf end
    if c < 0xc2 or c > 0xf4 or not tail(d) then return nil end
    if c < 0xe0 then return 2 end
    if not tail(e) then return nil end
    if c < 0xf0 then return not (c == 0xe0 and d < 0xa0 or c == 0xed and d > 0x9f) and 3 or nil end
    return tail(f) and not (c == 0xf0 and d < 0x90 or c == 0xf4 and d > 0x8f) and 4 or nil
end

M.utf8_length = utf8_length

-- Behind the string that begins at `at`.
local function skip_string(text, at)
    at = at + 1
    while true do
        at = text:find('["\\%c\128-\255]', at)
        if not at then fail(#text + 1, nil, text) end
        local c = text:byte(at)
        if c == 34 then return at + 1 end
        if c == 92 then
            local e = text:sub(at + 1, at + 1)
            if e == "" then fail(#text + 1, nil, text) end
            if not ESCAPES[e] and not text:find("^u%x%x%x%x", at + 1) then fail(at, "bad escape") end
            at = at + (e == "u" and 6 or 2)
        elseif c < 32 then
            fail(at, "control character in a string")
        else
            local n = c == 127 and 1 or utf8_length(text, at)
            if not n then fail(at, "not valid UTF-8") end
            at = at + n
        end
    end
end

local function skip_number(text, at)
    local stop = text:match("^%-?0()", at) or text:match("^%-?[1-9]%d*()", at)
    if not stop then fail(text:sub(at, at) == "-" and at + 1 or at, nil, text) end
    if text:sub(stop, stop) == "." then
        stop = text:match("^%.%d+()", stop) or fail(stop + 1, nil, text)
    end
    local exponent = text:match("^[eE][+-]?()", stop)
    if exponent then stop = text:match("^%d+()", exponent) or fail(exponent, nil, text) end
    return stop
end

local skip_value

-- Behind the array or object that begins at `at`; each(key or false, from, behind) is told of its children, begun(key,
-- at) of each key before its value is looked at.
local function walk(text, at, depth, each, begun)
    if depth > M.DEPTH then fail(at, "nested too deeply") end
    local object = text:sub(at, at) == "{"
    local close = object and "}" or "]"
    at = skip(text, at + 1)
    if text:sub(at, at) == close then return at + 1 end
    while true do
        local key = false
        if object then
            if text:sub(at, at) ~= '"' then fail(at, nil, text) end
            local stop = skip_string(text, at)
            local key_at = at
            key, at = text:sub(at, stop - 1), skip(text, stop)
            if text:sub(at, at) ~= ":" then fail(at, nil, text) end
            at = skip(text, at + 1)
            if begun and at <= #text then begun(key, key_at) end
        end
        local behind = skip_value(text, at, depth)
        if each then each(key, at, behind) end
        at = skip(text, behind)
        local c = text:sub(at, at)
        if c == close then return at + 1 end
        if c ~= "," then fail(at, nil, text) end
        at = skip(text, at + 1)
    end
end

function skip_value(text, at, depth)
    local c = text:sub(at, at)
    if c == "{" or c == "[" then return walk(text, at, depth + 1) end
    if c == '"' then return skip_string(text, at) end
    local word = WORDS[c]
    if not word then return skip_number(text, at) end
    for i = 1, #word do -- a failure is at the first letter that is another
        if text:byte(at + i - 1) ~= word:byte(i) then fail(at + i - 1, nil, text) end
    end
    return at + #word
end

local function check(text)
    if text == "" then fail(1, "empty text") end
    if text:sub(1, 3) == "\239\187\191" then fail(1, "byte order mark") end
    local from = skip(text, 1)
    if from > #text then fail(from, "empty text") end
    local seen = {}
    local once = text:sub(from, from) == "{" and function(key, at)
        key = M.text(key)
        if (key == "model" or key == "stream") and seen[key] then fail(at, ('duplicate key "%s"'):format(key)) end
        seen[key] = true
    end
    local behind = once and walk(text, from, 1, nil, once) or skip_value(text, from, 0)
    local rest = skip(text, behind)
    if rest <= #text then fail(rest, "more text after the value") end
    return text:sub(from, behind - 1)
end

-- The value of a whole text without the space around it; nil, message, offset when it is no JSON.
function M.check(text)
    local ok, got = pcall(check, text)
    if ok then return got end
    if type(got) ~= "table" then error(got, 0) end
    return nil, got[1], got[2]
end

-- ---- reading values

local function utf8(code)
    local char = string.char
    if code < 0x80 then return char(code) end
    if code < 0x800 then return char(0xc0 + math.floor(code / 64), 0x80 + code % 64) end
    if code < 0x10000 then
        return char(0xe0 + math.floor(code / 4096), 0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
    end
    return char(0xf0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64,
        0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end

-- The text of a string value or key: escapes undone, surrogates joined, a lone one is U+FFFD.
function M.text(raw)
    local inside = raw:sub(2, -2)
    if not inside:find("\\", 1, true) then return inside end
    local out, at = {}, 1
    while true do
        local stop = inside:find("\\", at, true)
        if not stop then break end
        out[#out + 1] = inside:sub(at, stop - 1)
        local e = inside:sub(stop + 1, stop + 1)
        at = stop + 2
        if e == "u" then
            local code = tonumber(inside:sub(at, at + 3), 16)
            at = at + 4
            local low = code >= 0xd800 and code <= 0xdbff and inside:match("^\\u([dD][c-fC-F]%x%x)", at)
            if low then
                code = 0x10000 + (code - 0xd800) * 1024 + tonumber(low, 16) - 0xdc00
                at = at + 6
            elseif code >= 0xd800 and code <= 0xdfff then
                code = 0xfffd
            end
            out[#out + 1] = utf8(code)
        else
            out[#out + 1] = ESCAPES[e]
        end
    end
    out[#out + 1] = inside:sub(at)
    return table.concat(out)
end

-- A scalar as Lua sees it. exact: a whole number that a double cannot hold is its digits, as a string.
function M.scalar(raw, exact)
    local kind = M.type_of(raw)
    if kind == "string" then return M.text(raw) end
    if kind == "null" then return json.null end
    if kind == "boolean" then return raw == "true" end
    local n = tonumber(raw)
    local whole = not raw:find("[.eE]")
    local loses = math.abs(n) == math.huge
        or whole and math.abs(n) >= EXACT and raw:gsub("^%-", "") ~= "9007199254740992"
    if exact and loses then return raw end
    return n
end

-- The children of an array or object in the text's order: { key (decoded), raw_key, raw }.
function M.children(raw)
    local out = {}
    walk(raw, 1, 0, function(key, from, behind)
        out[#out + 1] = { key = key and M.text(key), raw_key = key, raw = raw:sub(from, behind - 1) }
    end)
    return out
end

-- A plain Lua value: arrays are marked, numbers are doubles.
function M.plain(raw)
    local kind = M.type_of(raw)
    if kind ~= "array" and kind ~= "object" then return M.scalar(raw, false) end
    local out = kind == "array" and json.array() or {}
    for i, child in ipairs(M.children(raw)) do out[child.key or i] = M.plain(child.raw) end
    return out
end

return M
