-- cidr: is an address inside a block? IPv4 and IPv6; an IPv4 address written as IPv6 (::ffff:1.2.3.4) is IPv4. Pure.

local M = {}

local function parse_v4(text)
    local a, b, c, d = text:match("^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$")
    if not a then return nil end
    local bytes = { tonumber(a), tonumber(b), tonumber(c), tonumber(d) }
    for i = 1, 4 do
        if bytes[i] > 255 then return nil end
    end
    return bytes
end

local function groups(text, out)
    if text == "" then return true end
    for piece in (text .. ":"):gmatch("(.-):") do
        local v4 = piece:find(".", 1, true) and parse_v4(piece)
        if v4 then
            for i = 1, 4 do out[#out + 1] = v4[i] end
        elseif piece:match("^%x%x?%x?%x?$") then
            local n = tonumber(piece, 16)
            out[#out + 1], out[#out + 2] = math.floor(n / 256), n % 256
        else
            return false
        end
    end
    return true
end

local function parse_v6(text)
    local bytes, rest = {}, {}
    local gap = text:find("::", 1, true)
    if gap then
        if text:find("::", gap + 1, true) then return nil end
        if not groups(text:sub(1, gap - 1), bytes) or not groups(text:sub(gap + 2), rest) then return nil end
        local zeros = 16 - #bytes - #rest
        if zeros < 2 then return nil end
        for _ = 1, zeros do bytes[#bytes + 1] = 0 end
        for i = 1, #rest do bytes[#bytes + 1] = rest[i] end
    elseif not groups(text, bytes) then
        return nil
    end
    return #bytes == 16 and bytes or nil
end

local function is_mapped(bytes)
    for i = 1, 10 do
        if bytes[i] ~= 0 then return false end
    end
    return bytes[11] == 255 and bytes[12] == 255
end

-- The address as an array of 4 or 16 bytes, or nil.
function M.parse(text)
    local bytes = parse_v4(text) or (text:find(":", 1, true) and parse_v6((text:gsub("%%.*$", ""))))
    if bytes and #bytes == 16 and is_mapped(bytes) then
        return { bytes[13], bytes[14], bytes[15], bytes[16] }
    end
    return bytes or nil
end

-- A block such as "10.0.0.0/8", "fd00::/8" or a single address: { bytes, bits }, or nil, message.
function M.block(text)
    if type(text) ~= "string" then return nil, "expected an address or a CIDR block" end
    local address, bits = text:match("^(.-)/(%d+)$")
    local bytes = M.parse(address or text)
    if not bytes then return nil, ('"%s" is no IP address or CIDR block'):format(text) end
    local width = #bytes * 8
    bits = bits and tonumber(bits) or width
    if bits > width then return nil, ('"%s": the prefix has at most %d bits'):format(text, width) end
    return { bytes = bytes, bits = bits }
end

-- Is the address (text) inside the block?
function M.inside(block, text)
    local bytes = M.parse(text)
    if not bytes or #bytes ~= #block.bytes then return false end
    local whole, rest = math.floor(block.bits / 8), block.bits % 8
    for i = 1, whole do
        if bytes[i] ~= block.bytes[i] then return false end
    end
    if rest == 0 then return true end
    local unit = 2 ^ (8 - rest)
    return math.floor(bytes[whole + 1] / unit) == math.floor(block.bytes[whole + 1] / unit)
end

return M
