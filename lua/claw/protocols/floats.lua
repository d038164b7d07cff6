-- floats: vectors of numbers as arrays, or as OpenAI's base64 of little-endian float32. Pure.

local base64 = require("claw.base64")
local json = require("claw.json")

local M = {}

local floor, char = math.floor, string.char

local function pack(v)
    local sign = 0
    if v < 0 then sign, v = 128, -v end
    local mantissa, exponent = math.frexp(v)
    exponent, mantissa = exponent + 126, floor(mantissa * 2 ^ 24 - 2 ^ 23 + 0.5)
    if v == 0 then
        exponent, mantissa = 0, 0
    elseif exponent <= 0 then -- below the least normal one
        exponent, mantissa = 0, floor(v * 2 ^ 149 + 0.5)
    end
    if mantissa >= 2 ^ 23 then exponent, mantissa = exponent + 1, 0 end
    if exponent >= 255 then exponent, mantissa = 254, 2 ^ 23 - 1 end -- JSON knows no infinity
    return char(mantissa % 256, floor(mantissa / 256) % 256, exponent % 2 * 128 + floor(mantissa / 65536),
        sign + floor(exponent / 2))
end

-- As few digits as tell it apart from its neighbours: nine always do.
local FORMAT = { [7] = "%.7g", [8] = "%.8g", [9] = "%.9g" }

local function unpack_float(a, b, c, d)
    local exponent, mantissa = d % 128 * 2 + floor(c / 128), c % 128 * 65536 + b * 256 + a
    if exponent == 255 then return 0 end -- infinite, or none
    local v = exponent == 0 and mantissa * 2 ^ -149 or (1 + mantissa / 2 ^ 23) * 2 ^ (exponent - 127)
    local near = 2 ^ (math.max(exponent, 1) - 152) -- less than half of the way to the next, on either side
    for digits = 7, 9 do
        local short = tonumber(FORMAT[digits]:format(v))
        if digits == 9 or math.abs(short - v) <= near then return d >= 128 and -short or short end
    end
end

-- A vector (an array or base64) as base64.
function M.text(vector)
    if type(vector) == "string" then return vector end
    local out = {}
    for i = 1, #vector do
        local v = vector[i]
        out[i] = pack(type(v) == "number" and v - v == 0 and v or 0)
    end
    return base64.encode(table.concat(out))
end

-- A vector as an array; nil when its base64 is none.
function M.list(vector)
    if type(vector) ~= "string" then return vector end
    local bytes = base64.decode(vector)
    if not bytes or #bytes % 4 ~= 0 then return nil end
    local out = json.array()
    for i = 1, #bytes, 4 do out[#out + 1] = unpack_float(bytes:byte(i, i + 3)) end
    return out
end

return M
