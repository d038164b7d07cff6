-- fields: values of a body by type, whether it is a document or a plain table. What has another type is absent (nil).

local json = require("claw.json")

local M = {}

local null = json.null
local NONE = {}

function M.text(v)
    if type(v) == "string" then return v end
end

-- A text that says something.
function M.word(v)
    if type(v) == "string" and v ~= "" then return v end
end

function M.number(v)
    if type(v) == "number" and v - v == 0 then return v end -- 1e999 is none
end

-- A number of things: whole, from 0.
function M.count(v)
    if type(v) == "number" and v >= 0 and v < 2 ^ 53 then return math.floor(v) end
end

function M.flag(v)
    if type(v) == "boolean" then return v end
end

-- Only arrays have insert(); no member of an object is a function.
local function is_array(v)
    if type(v) == "userdata" then return type(v.insert) == "function" end
    return json.is_array(v)
end

-- An object, or nil.
function M.object(v)
    local kind = type(v)
    if (kind == "userdata" or kind == "table") and v ~= null and not is_array(v) then return v end
end

-- An array, or nil.
function M.array(v)
    local kind = type(v)
    if (kind == "userdata" or kind == "table") and v ~= null and is_array(v) then return v end
end

-- An array to loop over by # and []: an empty one when v is none.
function M.list(v)
    return M.array(v) or NONE
end

-- An object to take fields of: an empty one when v is none.
function M.fields(v)
    return M.object(v) or NONE
end

-- Anything but nothing: null, "", [] and {} say nothing.
function M.says(v)
    if v == nil or v == null or v == "" then return false end
    local kind = type(v)
    if kind == "userdata" then return #v > 0 end
    return kind ~= "table" or next(v) ~= nil
end

-- The JSON text of a decoded value, or nil: decoding takes 1e999, which no JSON says.
function M.encoded(v)
    local ok, text = pcall(json.encode, v)
    return ok and text or nil
end

return M
