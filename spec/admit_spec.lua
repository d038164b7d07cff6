local admit = require("claw.admit")
local fake_core = require("support.fake_core")

local function entry(name, fn)
    return { policy = { name = name, file = "policies/" .. name .. ".lua" }, fn = fn }
end

local function run(...)
    return admit.run(fake_core.new(), { ... }, { id = "7", path = "/v1/messages" })
end

describe("claw.admit", function()
    it("goes on when nobody says anything", function()
        assert.is_nil(run())
        assert.is_nil(run(entry("a", function() end), entry("b", function() return nil end)))
    end)

    it("ends with the first verdict", function()
        local function never() error("not reached") end
        assert.same({ policy = "b", status = 403, code = "no", message = "go" },
            run(entry("a", function() end), entry("b", function() return { deny = 403, "no", "go" } end), entry("c", never)))
        local said = run(entry("a", function() return { answer = "x" } end), entry("b", never))
        assert.same({ policy = "a", status = 200, answered = true, body = "x", content_type = "text/plain; charset=utf-8" }, said)
    end)

    it("fails for an answer that cannot be written, or skips it", function()
        local bad = entry("a", function() return { answer = { print } } end)
        local ok, failure = pcall(run, bad)
        assert.is_false(ok)
        assert.truthy(failure.message:find("policies/a.lua: admit: expected an answer that is JSON", 1, true), failure.message)
        bad.policy.skip = true
        assert.equal("b", run(bad, entry("b", function() return { say = "x" } end)).policy)
    end)

    it("has a text for each verdict", function()
        assert.equal("pass", admit.text(nil))
        assert.equal("deny 429 denied", admit.text(admit.read({ deny = 429 }, "a")))
        assert.equal("answer 203", admit.text(admit.read({ say = "x", status = 203 }, "a")))
    end)
end)
