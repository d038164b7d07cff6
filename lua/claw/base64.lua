-- base64: RFC 4648, standard and URL alphabets. Pure.

local bit = require("bit")
local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift

local M = {}

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local CHECK_EVERY = 12000 -- bytes, a multiple of 3 and 4
local letter, value = {}, {}
for i = 1, 64 do
    letter[i - 1] = ALPHABET:sub(i, i)
    value[ALPHABET:byte(i)] = i - 1
end
value[("-"):byte()], value[("_"):byte()] = 62, 63

-- check: called now and then, to raise when this takes too long.
function M.encode(text, check)
    if type(text) ~= "string" then error("claw.base64.encode wants a string, got " .. type(text), 3) end
    local out = {}
    for i = 1, #text, 3 do
        if check and i % CHECK_EVERY == 1 then check() end
        local a, b, c = text:byte(i, i + 2)
        local word = bor(lshift(a, 16), lshift(b or 0, 8), c or 0)
        out[#out + 1] = letter[rshift(word, 18)] .. letter[band(rshift(word, 12), 63)]
            .. (b and letter[band(rshift(word, 6), 63)] or "=") .. (c and letter[band(word, 63)] or "=")
    end
    return table.concat(out)
end

-- The bytes, or nil, message, "EINVAL". Both alphabets are read; padding may be left out.
function M.decode(text, check)
    if type(text) ~= "string" then error("claw.base64.decode wants a string, got " .. type(text), 3) end
    local stop = #text
    while text:byte(stop) == 61 do stop = stop - 1 end -- "="
    text = text:sub(1, stop)
    if #text % 4 == 1 then return nil, "base64 text of an impossible length", "EINVAL" end
    local out = {}
    for i = 1, #text, 4 do
        local word, n = 0, 0
        if check and i % CHECK_EVERY == 1 then check() end
        for j = i, math.min(i + 3, #text) do
            local v = value[text:byte(j)]
            if not v then return nil, ("not base64 at byte %d"):format(j), "EINVAL" end
            word, n = bor(word, lshift(v, 18 - 6 * (j - i))), n + 1
        end
        out[#out + 1] = string.char(rshift(word, 16), band(rshift(word, 8), 255), band(word, 255)):sub(1, n - 1)
    end
    return table.concat(out)
end

return M
