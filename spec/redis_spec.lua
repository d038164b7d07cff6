local claw = require("claw")
local fake_core = require("support.fake_core")
local phases = require("claw.phases")

local c = claw.services(fake_core.new(), {}, {})("mine")

-- Run fn as an admit hook; each command is answered by the next of `answers`. Its results, and what was asked.
local function run(fn, answers)
    local asked = {}
    local task = coroutine.create(fn)
    phases.now = "admit"
    local out = { coroutine.resume(task) }
    while coroutine.status(task) == "suspended" do
        asked[#asked + 1] = { unpack(out, 3) }
        phases.now = "event" -- others ran meanwhile
        out = { coroutine.resume(task, unpack(answers[#asked], 1, 3)) }
    end
    local now = phases.now
    phases.now = nil
    if not out[1] then error(out[2], 0) end
    assert.equal("admit", now)
    return { unpack(out, 2, 4) }, asked
end

describe("claw.redis.call", function()
    it("sends words as texts, with a second's time", function()
        local out, asked = run(function() return c.redis.call("SET", "k", 5, 2 ^ 53 - 1, 0.1, -3) end, { { "OK" } })
        assert.same({ "OK" }, out)
        assert.same({ { 1000, "SET", "k", "5", "9007199254740991", "0.10000000000000001", "-3" } }, asked)
        asked = select(2, run(function() return c.redis.call("GET", "k", { timeout_ms = 20 }) end, { { false } }))
        assert.same({ { 20, "GET", "k" } }, asked)
    end)

    it("tells false, the reply that is none, from failures", function()
        assert.same({ false }, (run(function() return c.redis.call("GET", "k") end, { { false } })))
        assert.same({ nil, "gone", "EDOWN" }, (run(function() return c.redis.call("GET", "k") end, { { nil, "gone", "EDOWN" } })))
    end)

    it("tells mistakes", function()
        for _, case in ipairs({
            { {}, "1 to 1000 words" }, { { "GET", {} , "k" }, "a word is a table" }, { { "GET", true }, "a word is a boolean" },
            { { "SET", 0 / 0 }, "no finite number" }, { { "GET", "k", { timout_ms = 5 } }, 'did you mean "timeout_ms"' },
            { { "GET", { timeout_ms = 0 } }, "timeout_ms: wants" }, { { "select", 1 }, "SELECT is not possible" },
            { { "XREADGROUP", "block", 5 }, "XREADGROUP is not possible" },
            { { "Replconf", "ACK", 0 }, "REPLCONF is not possible" }, -- it is never answered
        }) do
            local ok, message = pcall(run, function() return c.redis.call(unpack(case[1])) end, { { "OK" } })
            assert.is_false(ok)
            assert.truthy(message:find("claw.redis.call: ", 1, true) and message:find(case[2], 1, true), message)
        end
        local ok, message = pcall(run, function() return c.redis.call("GET", nil, "x") end, {})
        assert.is_false(ok)
        assert.truthy(message:find("word 2 is nil", 1, true))
        assert.has_error(function() run(function() c.redis.call("GET", "k") end, { { nil, "no state.url", "EINVAL" } }) end)
    end)
end)

describe("claw.redis.script", function()
    it("is sent as text only where it is not known", function()
        local name = ("%040x"):format(8)
        local out, asked = run(function() return c.redis.script("return 1", { "k" }, { 5 }, { timeout_ms = 9 }) end, { { 1 } })
        assert.same({ 1 }, out)
        assert.same({ { 9, "EVALSHA", name, "1", "k", "5" } }, asked)
        out, asked = run(function() return c.redis.script("return 1") end, { { nil, "NOSCRIPT No matching", "EREDIS" }, { 2 } })
        assert.same({ 2 }, out)
        assert.same({ { 1000, "EVALSHA", name, "0" }, { 1000, "EVAL", "return 1", "0" } }, asked)
        out = run(function() return c.redis.script("return 1") end, { { nil, "ERR other", "EREDIS" } })
        assert.same({ nil, "ERR other", "EREDIS" }, out)
    end)

    it("wants a text and lists", function()
        local many = {}
        for i = 1, 600 do many[i] = i end
        for _, args in ipairs({ { 5 }, { "x", "k" }, { "x", {}, 5 }, { "x", { {} } }, { "x", { "k" }, { {} } }, { "x", many, many },
            { ("-"):rep(2 ^ 20 + 1) } }) do
            assert.has_error(function() run(function() c.redis.script(unpack(args)) end, { { "OK" } }) end)
        end
    end)
end)
