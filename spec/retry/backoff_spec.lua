local backoff = require("claw.retry.backoff")
local fake_core = require("support.fake_core")

describe("claw.retry.backoff", function()
    local rules = { backoff_ms = 250, max_backoff_ms = 8000, jitter = 0.2 }
    local function half() return 0.5 end

    it("doubles up to the bound", function()
        for k, ms in ipairs({ 250, 500, 1000, 2000, 4000, 8000, 8000 }) do
            assert.equal(ms, backoff.wait_ms(rules, k - 1, half))
        end
        assert.equal(8000, backoff.wait_ms(rules, 10000, half))
    end)

    it("stays within the jitter, and uses it", function()
        local random, low, high = fake_core.random(), math.huge, 0
        for _ = 1, 1000 do
            local ms = backoff.wait_ms(rules, 2, random)
            low, high = math.min(low, ms), math.max(high, ms)
        end
        assert.is_true(low >= 800 and low < 850)
        assert.is_true(high <= 1200 and high > 1150)
    end)

    it("can be without", function()
        assert.equal(0, backoff.wait_ms({ backoff_ms = 0, max_backoff_ms = 0, jitter = 0 }, 3, half))
    end)
end)
