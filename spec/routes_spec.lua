local fake_core = require("support.fake_core")
local models = require("claw.models")
local routes = require("claw.routes")

local function compile(node, more)
    local problems = {}
    local function upstream(name, index)
        return { index = index, name = name, type = "openai", models = models.compile({}, name, problems) }
    end
    local env = { core = fake_core.new(), conf = {}, problems = problems, upstream_names = { "a", "b" },
        by_name = { a = upstream("a", 1), b = upstream("b", 2) }, transformations = {},
        policies = { by_name = {}, names = {}, always = {} }, routes = { { id = "r", node = node } } }
    for key, value in pairs(more or {}) do env[key] = value end
    return routes.compile(env)[1], problems
end

describe("claw.routes", function()
    it("takes the short way unless something is decided per request", function()
        local function simple(strategy, more)
            strategy.upstreams = { "a", { name = "b", weight = 3 } }
            local route, problems = compile({ strategy = strategy }, more)
            assert.same({}, problems)
            return route.simple
        end
        assert.is_true(simple({}))
        assert.is_true(simple({ type = "lowest_cost", require = { "tools" }, fallback = false }))
        assert.is_false(simple({ max_latency_ms = 5 }))
        assert.is_false(simple({ min_context = 0 }))
        local p = { name = "p", file = "p.lua", hooks = { route = function() end } }
        assert.is_false(simple({}, { policies = { by_name = { p = p }, names = { "p" }, always = { p } } }))
        p.hooks = { choose = function() end }
        assert.is_false(simple({ type = "p" }, { policies = { by_name = { p = p }, names = { "p" }, always = {} } }))
        p.hooks = { request = function() end }
        assert.is_true(simple({}, { policies = { by_name = { p = p }, names = { "p" }, always = { p } } }))
    end)

    it("takes one upstream, and first_available when no type is given", function()
        local route, problems = compile({ strategy = { upstream = "b" } })
        assert.same({}, problems)
        assert.equal("first_available", route.strategy)
        assert.equal("b", route.entries[1].upstream.name)
    end)

    it("runs a policy once, though it is named twice", function()
        local p = { name = "p", file = "p.lua", hooks = { admit = function() end } }
        local route = compile({ strategy = { upstream = "a" }, policies = { "p", "p" } },
            { policies = { by_name = { p = p }, names = { "p" }, always = { p } } })
        assert.equal(1, #route.policies)
        assert.equal(0, #route.admit)
    end)

    it("waits for a Retry-After no longer than the route may take", function()
        assert.equal(60000, compile({ strategy = { upstream = "a" } }).retry.wait_ms)
        assert.equal(5000, compile({ strategy = { upstream = "a" }, timeout_seconds = 5 }).retry.wait_ms)
        assert.equal(7000, compile({ strategy = { upstream = "a" } }, { conf = { server = { timeout_seconds = 7 } } }).retry.wait_ms)
    end)

    it("survives a node without a strategy", function()
        local _, problems = compile({})
        assert.equal("routes[0].strategy.upstreams", problems[1].path)
    end)
end)
