local candidates = require("claw.candidates")
local models = require("claw.models")

local NO_PRICES = { names = {}, globs = {} }
local PLAN = { [1] = { mask = 0 }, [2] = { mask = 5 }, [3] = { mask = 0 } }

local function route(strategy, ...)
    local out = { id = "r", entries = {}, filters = candidates.filters(strategy), keep_unlisted = strategy.type == "failover" }
    for i, node in ipairs({ ... }) do
        out.entries[i] = { weight = node.weight, upstream = { index = i, name = "u" .. i, type = "openai", region = node.region,
            models = models.compile(node, "u", {}), price = node.price } }
    end
    return out
end

local function of(r, model)
    return candidates.of(r, model, PLAN, NO_PRICES, { { id = "known" } })
end

describe("claw.candidates", function()
    it("carry what strategies and C need", function()
        local r = route({}, { models = { "x" } }, { models = { { name = "m", context_window = 5, capabilities = { "tools" } } },
            model_map = { big = "m" }, region = "eu", weight = 2, price = { input = 7 } })
        local list = of(r, "big").candidates
        assert.equal(1, #list)
        local c = list[1]
        assert.same({ 2, "u2", "openai", "m", "eu", 2, 5, 5 },
            { c.index, c.name, c.type, c.model, c.region, c.weight, c.context_window, c.mask })
        assert.same({ tools = true }, c.capabilities)
        assert.equal(7, c.price.input)
        assert.same({ c, plan = PLAN, kept = true }, c.alone)
    end)

    it("say why they are left out", function()
        local r = route({ region = "eu", require = "tools" }, { models = { "x" } }, { region = "us" }, { region = "eu" })
        local out = of(r, "m")
        assert.same({ "u1: unlisted model", "u2: region us" }, out.reasons)
        assert.equal("u3", out.candidates[1].name)
    end)

    it("are not found, or not available", function()
        local out = of(route({}, { models = { "x" } }), ("y"):rep(500))
        assert.equal("model_not_found", out.code)
        assert.is_true(#out.message < 250)
        assert.equal("no_upstream", of(route({ region = "eu" }, {}), "m").code)
        assert.is_nil(of(route({}, { models = { "x" } }), nil).code)
    end)

    it("pass the filters of the moment as stable lists", function()
        local r = route({ max_latency_ms = 100 }, {}, {}, {})
        local eligible = of(r, "m")
        local slow = {}
        local facts = { latency_ms = function(c) return slow[c.name] end, input_tokens = function() return 1 end }
        assert.equal(eligible.candidates, (candidates.now(eligible, r.filters, facts)))
        slow.u2 = 200
        local list, reasons = candidates.now(eligible, r.filters, facts)
        assert.same({ "u1", "u3" }, { list[1].name, list[2].name })
        assert.same({ "u2: slower than 100 ms (200 ms)" }, reasons)
        assert.equal(list, (candidates.now(eligible, r.filters, facts)))
        slow.u1 = 500
        assert.not_equal(list, (candidates.now(eligible, r.filters, facts)))
    end)
end)
