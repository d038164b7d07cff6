local claw = require("claw")
local fake_core = require("support.fake_core")
local fake_facts = require("openclaw.facts")

describe("claw", function()
    local core, links = fake_core.new(), {}
    local services = claw.services(core, links)
    local c = services("mine")

    it("logs with the policy's name", function()
        c.log("info", "hello", { n = 1 })
        assert.same({ level = "info", message = "hello", fields = { policy = "mine", n = 1 } }, core.logged[#core.logged])
        assert.has_error(function() c.log("loud", "x") end)
        assert.has_error(function() c.log("info", "x", 5) end)
    end)

    it("has json, base64, time and hash", function()
        assert.equal("[]", c.json.encode(c.json.array()))
        assert.equal(c.json.null, c.json.decode("null"))
        assert.equal("YQ==", c.base64.encode("a"))
        assert.equal(1000, c.time.now_ms())
        assert.is_number(c.time.now())
        assert.equal(core.hash("x"), c.hash("x"))
        assert.equal("1", c.version)
    end)

    it("reads variables", function()
        core.variables.MINE = "value"
        assert.equal("value", c.env("MINE"))
        assert.is_nil(c.env("OTHER"))
        assert.has_error(function() c.env(5) end)
    end)

    it("counts", function()
        local seen = {}
        function core.series(...) seen[#seen + 1] = { ... } return true end
        assert.is_true(c.metrics.count("hits"))
        assert.is_true(c.metrics.count("hits", 2.5, "eu"))
        assert.is_true(c.metrics.gauge("depth", -1, 7))
        assert.same({ { false, "hits", "mine", 1, "" }, { false, "hits", "mine", 2.5, "eu" }, { true, "depth", "mine", -1, "7" } }, seen)
        for _, wrong in ipairs({ { 5 }, { "Hits" }, { "1x" }, { ("x"):rep(49) }, { "hits", -1 }, { "hits", 0 / 0 }, { "hits", "2" },
            { "hits", 1, {} } }) do
            assert.has_error(function() c.metrics.count(unpack(wrong)) end)
        end
        assert.has_error(function() c.metrics.gauge("depth") end)
        function core.series() return nil, "full", "ELIMIT" end
        assert.same({ nil, "full", "ELIMIT" }, { c.metrics.count("hits") })
        function core.series() return nil, "taken", "EINVAL" end
        assert.has_error(function() c.metrics.count("hits") end)
    end)

    it("charges", function()
        assert.equal(60, c.cost({ price = { input = 1000000 } }, { input = 60, output = 0 }))
        assert.is_nil(c.cost({}, { input = 60 }))
        assert.has_error(function() c.cost(5, {}) end)
    end)

    it("has the strategies, with facts or with a req", function()
        local list = { { name = "a", index = 1 }, { name = "b", index = 2 } }
        local answer = c.route.lowest_cost(list, fake_facts({ b = { cost = 1 } }))
        assert.equal("b", answer[1].name)
        answer[1] = nil -- the answer is the caller's own
        assert.equal("b", c.route.lowest_cost(list, fake_facts({ b = { cost = 1 } }))[1].name)
        local req = {}
        links[req] = { r = { tokens = 5 } }
        core.live[1] = { outstanding = 4 }
        assert.equal("b", c.route.least_busy(list, req)[1].name)
        assert.same({}, c.route.round_robin({}, req))
        assert.has_error(function() c.route.round_robin(list) end)
    end)

    it("keeps a state of each request, a policy's own", function()
        local req, other = {}, services("other")
        c.state(req).n = 1
        assert.equal(1, c.state(req).n)
        assert.is_nil(other.state(req).n)
        assert.is_nil(c.state({}).n)
        assert.has_error(function() c.state(nil) end)
    end)

    it("keeps a store for each policy, and one that all share", function()
        local other = services("other")
        assert.equal(1, c.store.incr("n"))
        assert.equal(3, c.store.incr("n", 2))
        assert.is_nil(other.store.get("n"))
        c.store.set("n", "all", { shared = true })
        assert.equal("all", other.store.get("n", { shared = true }))
        assert.equal(3, c.store.get("n"))
    end)

    it("gives each policy tables of its own", function()
        local one, two = services("one"), services("two")
        one.json.encode, one.route.round_robin = nil, nil
        assert.is_function(two.json.encode)
        assert.is_function(two.route.round_robin)
    end)
end)
