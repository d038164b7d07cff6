local mix = require("claw.mix")

describe("claw.mix", function()
    it("is MurmurHash3's finaliser", function()
        -- from the reference implementation, fmix32
        assert.equal(0, mix(0))
        assert.equal(0x514e28b7, mix(1))
        assert.equal(0x81f16f39, mix(0xffffffff))
    end)

    it("spreads neighbours over the whole range", function()
        local buckets = {}
        for i = 0, 9999 do
            local b = math.floor(mix(i) / 4294967296 * 10)
            buckets[b] = (buckets[b] or 0) + 1
        end
        for b = 0, 9 do assert.is_true(math.abs(buckets[b] - 1000) < 120, b .. ": " .. buckets[b]) end
    end)
end)
