local phases = require("claw.phases")

describe("claw.phases", function()
    it("has the hooks of the policy API, in the order of a request", function()
        assert.same({ "init", "selftest", "admit", "route", "choose", "request", "retry", "event", "response", "cost", "log" },
            phases.names)
    end)

    it("says of each what it takes, gives, and whether it may wait", function()
        local waits = {}
        for _, phase in ipairs(phases.list) do
            assert.is_table(phase.args)
            assert.is_string(phase.gives)
            assert.is_boolean(phase.waits)
            if phase.waits then waits[#waits + 1] = phase.hook end
            assert.equal(phase, phases.by_name[phase.hook])
        end
        assert.same({ "admit", "route", "request", "retry", "response" }, waits)
    end)

    it("has a bit of its own for each hook that C asks for by mask", function()
        local bits = {}
        for _, phase in ipairs(phases.list) do
            if phase.bit then bits[phase.hook] = phase.bit end
        end
        assert.same({ request = 1, response = 2, event = 4, retry = 8 }, bits)
        assert.equal(16, phases.ACCOUNT_BIT)
    end)

    it("accepts verdicts", function()
        for hook, verdicts in pairs({
            admit = { { deny = 403 }, { deny = 400, "code", "message" }, { deny = 599, code = "c", message = "m" } },
            retry = { { next = true }, { after_ms = 0 }, { stop = true }, { next = true, after_ms = 5 } },
            event = { false, { data = "" }, { type = "t", data = "d" }, {}, { { data = "a" }, { data = "b" } } },
            cost = { 0, 5 }, log = { {}, { a = 1 } },
        }) do
            for _, verdict in ipairs(verdicts) do assert.is_nil(phases.by_name[hook].check(verdict)) end
        end
    end)
end)
