local facts = require("claw.facts")
local fake_core = require("support.fake_core")

local function bound(r, overrides)
    local core = fake_core.new(overrides)
    local f, bind = facts.new(core)
    bind(r, "gpt-4", false)
    return f, core
end

describe("claw.facts", function()
    it("knows what is live about a candidate", function()
        local asked = {}
        local f = bound({ tokens = 100 }, { facts = function(index, model)
            asked[#asked + 1] = index .. model
            return 3, 120, 50, 40
        end })
        assert.equal(3, f.outstanding({ index = 1 }))
        assert.same({ 120, 50 }, { f.latency_ms({ index = 2, model = "other" }) })
        assert.same({ "1gpt-4", "2other" }, asked)
    end)

    it("knows who is set aside, and for how long", function()
        local f = bound({}, { cooling = function(index) return index == 1 and "open" or "closed", index == 1 and 700 or nil end })
        assert.equal("open", f.state({ index = 1 }))
        assert.equal(700, f.cooling_until({ index = 1 }))
        assert.equal("closed", f.state({ index = 2 }))
        assert.is_nil(f.cooling_until({ index = 2 }))
    end)

    it("estimates cost by max_tokens, else the running mean, else a guess", function()
        local price = { input = 1000000, output = 2000000 }
        local f = bound({ tokens = 100, body = { max_tokens = 50 } })
        assert.equal(100 + 100, f.cost_micros({ index = 1, price = price }))
        assert.equal(40, bound({ body = { max_completion_tokens = 40 } }).max_tokens())
        assert.is_nil(f.cost_micros({ index = 1 }))
        local core
        f, core = bound({ tokens = 100, body = {} })
        assert.equal(100 + 512, f.cost_micros({ index = 1, price = price }))
        core.live[1] = { mean = 10 }
        assert.equal(100 + 20, f.cost_micros({ index = 1, price = price }))
    end)

    local chat = { messages = {
        { role = "developer", content = "be kind" }, { role = "assistant", content = "no" },
        { role = "user", content = { { type = "text", text = "first" } } }, { role = "user", content = "second" },
    } }
    local cases = {
        { "client", { ip = "1.2.3.4" }, "1.2.3.4" },
        { "user", { body = { user = "u1" } }, "u1" }, { "user", { body = { metadata = { user_id = "u2" } } }, "u2" },
        { "user", { body = {} }, nil }, { "user", {}, nil }, { "user", { body = { user = "" } }, nil },
        { "session", { headers = { ["x-session-id"] = "s" }, body = { user = "u" } }, "s" },
        { "session", { body = { user = "u" } }, "u" }, { "session", { body = { metadata = { session_id = "m" } } }, "m" },
        { "header:X-Team", { headers = { ["x-team"] = "red" } }, "red" }, { "header:X-Team", {}, nil },
        { "prompt_prefix", {}, nil }, { "prompt_prefix", { body = { messages = {} } }, nil },
    }
    for i, case in ipairs(cases) do
        it(("key %d (%s)"):format(i, case[1]), function()
            assert.equal(case[3], bound(case[2]).key(case[1]))
        end)
    end

    it("takes the client's name when there are clients", function()
        assert.equal("acme", bound({}, { client = function() return "acme" end }).key("client"))
    end)

    it("has a prompt prefix that later turns do not change", function()
        local key = bound({ body = chat }).key("prompt_prefix")
        assert.truthy(key:find("be kind", 1, true) and key:find("first", 1, true))
        assert.is_nil(key:find("second", 1, true))
        local longer = { messages = { unpack(chat.messages) } }
        longer.messages[5] = { role = "user", content = "third" }
        assert.equal(key, bound({ body = longer }).key("prompt_prefix"))
        assert.truthy(bound({ body = { system = "sys", messages = {} } }).key("prompt_prefix"))
        assert.truthy(bound({ body = { contents = { { parts = { { text = "hi" } } } } } }).key("prompt_prefix"))
        local long = { messages = { { role = "user", content = ("x"):rep(5000) } } }
        assert.equal(1024, #bound({ body = long }).key("prompt_prefix"))
    end)

    it("knows its kinds of keys", function()
        for _, kind in ipairs({ "client", "user", "session", "prompt_prefix", "header:X-Team" }) do
            assert.is_nil(facts.key_problem(kind))
        end
        for _, kind in ipairs({ "header:", "header", "ip", "header:a b", 5 }) do
            assert.is_string(facts.key_problem(kind))
        end
    end)
end)
