local fake_core = require("support.fake_core")
local hooks = require("claw.hooks")
local phases = require("claw.phases")

local function entry(fn, skip)
    return { policy = { name = "x", file = "policies/x.lua", skip = skip }, fn = fn }
end

describe("claw.hooks", function()
    it("passes arguments and gives the answer", function()
        local answer = hooks.call(fake_core.new(), entry(function(a, b, c) return a + b + c end), "cost", nil, 1, 2, 3)
        assert.equal(6, answer)
    end)

    it("checks by the phase, or by the given check", function()
        local core = fake_core.new()
        local ok, failure = pcall(hooks.call, core, entry(function() return "x" end), "cost")
        assert.is_false(ok)
        assert.equal('policies/x.lua: cost: expected nil or a whole number of micro-dollars, got "x"', failure.message)
        assert.has_error(function()
            hooks.call(core, entry(function() return 1 end), "cost", function() return "something else" end)
        end)
    end)

    it("shows long and odd verdicts shortly", function()
        local policy = { name = "x", file = "x.lua" }
        assert.is_true(#hooks.wrong(policy, "log", "a", ("y"):rep(5000)).message < 120)
        assert.equal("x.lua: log: expected a, got a table", hooks.wrong(policy, "log", "a", {}).message)
        assert.equal("x.lua: log: expected a, got a function", hooks.wrong(policy, "log", "a", print).message)
    end)

    it("lets a skipping policy fail quietly, in the log", function()
        local core = fake_core.new()
        assert.is_nil(hooks.call(core, entry(function() error("boom", 0) end, true), "request"))
        assert.is_nil(hooks.call(core, entry(function() return 5 end, true), "log"))
        assert.equal(2, #core.logged)
        assert.equal("error", core.logged[1].level)
        assert.equal("policies/x.lua: boom", core.logged[1].fields.message)
        assert.same({ "x.request", "x.log" }, core.failures)
    end)

    it("calls one after the other until one answers", function()
        local core, seen = fake_core.new(), {}
        local function look(name, answer)
            return entry(function(req) seen[#seen + 1] = name .. req return answer end)
        end
        assert.is_nil(hooks.first(core, { look("a"), look("b") }, "admit", 1))
        local no = { deny = 403 }
        assert.equal(no, hooks.first(core, { look("c"), look("d", no), look("e") }, "admit", 2))
        assert.same({ "a1", "b1", "c2", "d2" }, seen)
    end)

    it("goes on behind a skipping policy, and stops at one that fails or answers wrongly", function()
        local core, seen = fake_core.new(), {}
        local last = entry(function() seen[#seen + 1] = phases.now end)
        assert.is_nil(hooks.first(core, { entry(function() error("boom", 0) end, true), last }, "admit", 1))
        assert.is_nil(hooks.first(core, { entry(function() return 5 end, true), last }, "admit", 1))
        assert.same({ "admit", "admit" }, seen)
        assert.same({ "x.admit", "x.admit" }, core.failures)
        local ok, failure = pcall(hooks.first, core, { entry(function() error("boom", 0) end), last }, "admit", 1)
        assert.same({ false, "x", "admit", "policies/x.lua: boom" }, { ok, failure.policy, failure.hook, failure.message })
        ok, failure = pcall(hooks.first, core, { entry(function() return false end), last }, "admit", 1)
        assert.is_false(ok)
        assert.truthy(failure.message:find("expected nil, { deny", 1, true))
        assert.equal(2, #seen)
        assert.is_nil(phases.now)
    end)

    it("can be waited in", function()
        local e = entry(function(a) return coroutine.yield(a) end)
        local task = coroutine.create(function() return hooks.call(fake_core.new(), e, "request", nil, "first") end)
        assert.same({ true, "first" }, { coroutine.resume(task) })
        assert.same({ true, "second" }, { coroutine.resume(task, "second") })
    end)
end)
