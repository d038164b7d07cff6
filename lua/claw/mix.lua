-- mix: spread the bits of a 32-bit hash (MurmurHash3's finaliser), so that texts that differ in their last byte only
-- end up far apart. Pure, and a bijection: two hashes that differ still do.

local bit = require("bit")
local bxor, rshift = bit.bxor, bit.rshift

-- a * b modulo 2^32, exact in doubles.
local function times(a, b)
    local low, high = a % 65536, (a - a % 65536) / 65536
    return (high * b % 65536 * 65536 + low * b) % 4294967296
end

return function(h)
    h = bxor(h, rshift(h, 16)) % 4294967296
    h = times(h, 0x85ebca6b)
    h = bxor(h, rshift(h, 13)) % 4294967296
    h = times(h, 0xc2b2ae35)
    return bxor(h, rshift(h, 16)) % 4294967296
end
