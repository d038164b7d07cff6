local build = require("support.build")
local guide = require("support.guide")

local chat, names = build.chat, build.names

-- Upstreams a, b, c that list the models given for them; routes as given.
local function conf(models, routes, extra)
    local upstreams = {}
    for name, list in pairs(models) do upstreams[name] = list[1] and { models = list } or list end
    local out = { upstreams = upstreams, routes = routes }
    for key, value in pairs(extra or {}) do out[key] = value end
    return out
end

local function route(strategy, more)
    local out = { match = { path = "/v1/chat/completions" }, strategy = strategy }
    for key, value in pairs(more or {}) do out[key] = value end
    return out
end

describe("claw.router", function()
    describe("with the guide's configuration", function()
        local engine = build.engine({ conf = guide(), order = { "openai-gpt4", "anthropic-claude", "local-mistral" } })

        it("sends gpt-4 down the specific route, though the general one stands first", function()
            for _ = 1, 5 do
                local index, list, mask = engine.route({}, "POST", "/v1/chat/completions", "gpt-4", false)
                assert.equal(2, index)
                assert.equal("openai-gpt4", names(list))
                assert.equal(1, list[1].index)
                assert.is_nil(list[1].model)
                assert.equal(0, list[1].mask)
                assert.equal(0, mask)
            end
        end)

        it("sends each model of the general route to who lists it", function()
            for _ = 1, 4 do
                assert.equal("anthropic-claude", (chat(engine, "claude-3-opus-20240229")))
                assert.equal("openai-gpt4", (chat(engine, "gpt-4o")))
            end
        end)

        it("takes turns for a request without a model", function()
            local seen = {}
            for _ = 1, 4 do
                local first = chat(engine, nil):match("^%S+")
                seen[first] = (seen[first] or 0) + 1
            end
            assert.same({ ["openai-gpt4"] = 2, ["anthropic-claude"] = 2 }, seen)
        end)

        it("names what is known when nobody lists the model", function()
            local none, code, message = chat(engine, "mistral")
            assert.is_nil(none)
            local matched = select(6, engine.route({}, "POST", "/v1/chat/completions", "mistral", false))
            assert.equal(engine.route({}, "POST", "/v1/chat/completions", "claude-3-opus-20240229", false), matched)
            assert.equal("model_not_found", code)
            assert.equal('The model "mistral" is not listed by any upstream of route default_chat_route; known: gpt-4, '
                .. "gpt-4o, gpt-3.5-turbo, claude-3-opus-20240229, claude-3-sonnet-20240229, mistral", message)
        end)

        it("has no route for another path or method's", function()
            local none, code, message = engine.route({}, "POST", "/v1/embeddings", "gpt-4", false)
            assert.same({ nil, "no_route", "No route matches POST /v1/embeddings" }, { none, code, message })
            assert.is_nil((select(6, engine.route({}, "POST", "/v1/embeddings", "gpt-4", false))))
        end)

        it("answers GET /v1/models and one model", function()
            local first, status, body = engine.route({}, "GET", "/v1/models", nil, false)
            assert.is_false(first)
            assert.equal(200, status)
            assert.truthy(body:find('"id":"claude-3-opus-20240229"', 1, true))
            first, status, body = engine.route({}, "GET", "/v1/models/gpt%2D4", nil, false)
            assert.is_false(first)
            assert.equal(200, status)
            assert.truthy(body:find('"id":"gpt-4"', 1, true))
            local none, code = engine.route({}, "GET", "/v1/models/nope", nil, false)
            assert.same({ nil, "model_not_found" }, { none, code })
        end)
    end)

    it("leaves GET /v1/models to a route that names it, and to a glob when nobody lists models", function()
        local own = build.engine({ conf = conf({ a = { "m" } },
            { { match = { path = "/v1/models" }, strategy = { upstreams = { "a" } } } }) })
        assert.equal(1, (own.route({}, "GET", "/v1/models", nil, false)))
        local any = build.engine({ conf = conf({ a = {} }, { { match = { path = "/v1/*" }, strategy = { upstream = "a" } } }) })
        assert.equal(1, (any.route({}, "GET", "/v1/models", nil, false)))
    end)

    describe("specificity", function()
        local to = function(name) return { upstreams = { name } } end
        local cases = {
            { "priority wins over criteria", 1, { { priority = 1, match = {} }, { match = { path = "/p", method = "POST" } } } },
            { "more criteria win", 2, { { match = { path = "/p" } }, { match = { path = "/p", method = "POST" } } } },
            { "a path wins over none", 2, { {}, { match = { path = "/p" } } } },
            { "exact wins over glob", 2, { { match = { path = "/*" } }, { match = { path = "/p" } } } },
            { "exact wins over a list", 2, { { match = { model = { "m", "n" } } }, { match = { model = "m" } } } },
            { "equals go by the file", 1, { { match = { path = "/p" } }, { match = { path = "/p" } } } },
            { "who does not match is out", 2, { { match = { path = "/p", headers = { h = "1" } } }, {} } },
            { "a dynamic route that matches wins", 1, { { match = { headers = { h = "2" } } }, {} } },
        }
        for _, case in ipairs(cases) do
            it(case[1], function()
                for _, node in ipairs(case[3]) do node.strategy = to("a") end
                local engine = build.engine({ conf = conf({ a = {} }, case[3]) })
                for _ = 1, 3 do
                    assert.equal(case[2], (engine.route({ headers = { h = "2" } }, "POST", "/p", "m", false)))
                end
            end)
        end
    end)

    describe("models", function()
        local three = { a = { "x", "y" }, b = { "y" }, c = { "z", "w*" } }

        it("chooses among those who list the model, others do not come behind", function()
            local engine = build.engine({ conf = conf(three, { route({ type = "first_available", upstreams = { "a", "b", "c" } }) }) })
            assert.equal("a b", (chat(engine, "y")))
            assert.equal("a", (chat(engine, "x")))
            assert.equal("c", (chat(engine, "w1")))
        end)

        it("keeps the others in a failover, with their own model", function()
            local engine = build.engine({ conf = conf(three, { route({ type = "failover", upstreams = { "a", "c", "b" } }) }) })
            local order, list = chat(engine, "y")
            assert.equal("a c b", order)
            assert.same({ nil, "z", nil }, { list[1].model, list[2].model, list[3].model })
            order, list = chat(engine, "z")
            assert.equal("a c b", order)
            assert.same({ "x", nil, "y" }, { list[1].model, list[2].model, list[3].model })
            assert.equal("model_not_found", select(2, chat(engine, "nope")))
        end)

        it("leaves out of a failover who has no model of its own", function()
            local engine = build.engine({ conf = conf({ a = { "x" }, b = { "y*" } },
                { route({ type = "failover", upstreams = { "b", "a" } }) }) })
            assert.equal("a", (chat(engine, "x")))
        end)

        it("renames by model_map", function()
            local engine = build.engine({ conf = conf({ a = { models = { "big" }, model_map = { fast = "small", big = "big-1" } } },
                { route({ upstream = "a" }) }) })
            assert.equal("small", select(2, chat(engine, "fast"))[1].model)
            assert.equal("big-1", select(2, chat(engine, "big"))[1].model)
        end)
    end)

    describe("strategies", function()
        local any = { a = {}, b = {}, c = {} }

        it("yields an order, cut to the first without fallback", function()
            local list = { "c", "a", "b" }
            local with = build.engine({ conf = conf(any, { route({ type = "failover", upstreams = list }) }) })
            local without = build.engine({ conf = conf(any, { route({ type = "failover", fallback = false, upstreams = list }) }) })
            assert.equal("c a b", (chat(with, "m")))
            assert.equal("c", (chat(without, "m")))
        end)

        it("has nobody when every weight is 0", function()
            local engine = build.engine({ conf = conf(any, { route({ type = "weighted_random", upstreams = { { name = "a", weight = 0 } } }) }) })
            local _, code, message = chat(engine, "m")
            assert.equal("no_upstream", code)
            assert.equal("No upstream available: every weight is 0", message)
        end)

        it("goes by cost: the model's price, the upstream's, the list's", function()
            local engine = build.engine({ conf = conf({
                dear = { cost_per_million_input_tokens = 30, cost_per_million_output_tokens = 60 },
                listed = {},
                model = { cost_per_million_input_tokens = 99, models = { { name = "m", cost_per_million_input_tokens = 1,
                    cost_per_million_output_tokens = 2 } } },
            }, { route({ type = "lowest_cost", upstreams = { "dear", "listed", "model" } }) },
                { prices = { ["m*"] = { cost_per_million_input_tokens = 5, cost_per_million_output_tokens = 6 } } }) })
            assert.equal("model listed dear", (chat(engine, "m")))
        end)

        it("goes by live facts", function()
            local engine, core = build.engine({ conf = conf(any, {
                route({ type = "lowest_latency", upstreams = { "a", "b", "c" } }),
                { match = { path = "/busy" }, strategy = { type = "least_busy", upstreams = { "a", "b", "c" } } },
            }) })
            core.live = { { ms = 30, age = 1, outstanding = 0 }, { ms = 10, age = 1, outstanding = 5 },
                { ms = 20, age = 1, outstanding = 1 } }
            assert.equal("b c a", (chat(engine, "m")))
            local _, list = engine.route({}, "POST", "/busy", "m", false)
            assert.equal("a c b", names(list))
        end)

        it("sticks to the key it is told", function()
            local engine = build.engine({ conf = conf(any, { route({ type = "sticky", on = "header:X-Team",
                upstreams = { "a", "b", "c" } }) }) })
            local seen = {}
            for i = 1, 40 do
                local r = { headers = { ["x-team"] = "team" .. i } }
                local order = chat(engine, "m", r)
                for _ = 1, 3 do assert.equal(order, (chat(engine, "m", r))) end
                seen[order:sub(1, 1)] = true
            end
            assert.same({ a = true, b = true, c = true }, seen)
        end)
    end)

    describe("filters", function()
        local function with(models, strategy)
            strategy.type, strategy.upstreams = strategy.type or "first_available", strategy.upstreams or { "a", "b", "c" }
            return build.engine({ conf = conf(models, { route(strategy) }) })
        end
        local function model(fields)
            fields.name = "m"
            return { fields }
        end

        it("require and region", function()
            local models = { a = model({ capabilities = { "tools" } }), b = model({ capabilities = { "tools", "vision" } }),
                c = { "m" } }
            assert.equal("b c", (chat(with(models, { require = { "tools", "vision" } }), "m")))
            models = { a = { region = "us" }, b = { region = "eu" }, c = {} }
            assert.equal("b", (chat(with(models, { region = "eu" }), "m")))
            local _, code, message = chat(with(models, { region = { "asia" } }), "m")
            assert.equal("no_upstream", code)
            assert.equal("No upstream available: a: region us; b: region eu; c: no region", message)
        end)

        it("min_context by the estimate", function()
            local engine = with({ a = model({ context_window = 1000 }), b = model({ context_window = 9000 }), c = { "m" } },
                { min_context = 500 })
            assert.equal("a b c", (chat(engine, "m", { tokens = 10 })))
            assert.equal("b c", (chat(engine, "m", { tokens = 5000 })))
            assert.equal("c", (chat(engine, "m", { tokens = 50000 })))
        end)

        it("max_latency_ms, unknown passes; says for each why not", function()
            local engine, core = with({ a = { "m" }, b = { "m" }, c = { "other" } }, { type = "round_robin", max_latency_ms = 500 })
            core.live = { { ms = 900 }, {} }
            for _ = 1, 3 do assert.equal("b", (chat(engine, "m"))) end
            core.live[2] = { ms = 501 }
            local _, code, message = chat(engine, "m")
            assert.equal("no_upstream", code)
            assert.equal("No upstream available: c: unlisted model; a: slower than 500 ms (900 ms); "
                .. "b: slower than 500 ms (501 ms)", message)
            core.live = {}
            local seen = {}
            for _ = 1, 10 do
                local first = chat(engine, "m"):sub(1, 1)
                seen[first] = (seen[first] or 0) + 1
            end
            assert.same({ a = 5, b = 5 }, seen)
        end)
    end)

    describe("with policies", function()
        local routes = { route({ type = "pick", upstreams = { "a", "b", "c" } }) }
        local function picks(source, more)
            return build.engine({ conf = conf({ a = {}, b = {}, c = {} }, more or routes), policies = { pick = source } })
        end

        it("takes a policy's choose as a strategy, names or candidates", function()
            local engine = picks([[return { api = 1, choose = function(candidates, facts, rng)
                assert(rng() < 1 and facts.model == "m" and facts.outstanding(candidates[1]) == 0)
                return { "c", candidates[1] }
            end }]])
            assert.equal("c a", (chat(engine, "m")))
        end)

        it("lets choose use the built-in ones", function()
            local engine = picks([[return { api = 1, choose = function(candidates, facts, rng)
                table.remove(candidates, 1)
                return claw.route.round_robin(candidates, facts, rng)
            end }]])
            local seen = {}
            for _ = 1, 6 do
                local first = chat(engine, "m"):sub(1, 1)
                seen[first] = (seen[first] or 0) + 1
            end
            assert.same({ b = 3, c = 3 }, seen)
        end)

        it("refuses what choose may not answer", function()
            for source, expected in pairs({
                ['{ "x" }'] = "expected candidates of this route (a, b, c), got a table",
                ["5"] = "expected an ordered list of candidates of this route (a, b, c), got 5", ["nil"] = "got nil",
                ["{ {} }"] = "candidates of this route",
            }) do
                local engine = picks("return { api = 1, choose = function() return " .. source .. " end }")
                local ok, failure = pcall(chat, engine, "m")
                assert.is_false(ok)
                assert.same({ "pick", "choose" }, { failure.policy, failure.hook })
                assert.truthy(failure.message:find(expected, 1, true), failure.message)
            end
        end)

        it("has nobody when choose chooses none, and goes on when a skipping one fails", function()
            local _, code, message = chat(picks("return { api = 1, choose = function() return {} end }"), "m")
            assert.same({ "no_upstream", "No upstream available: nobody was chosen" }, { code, message })
            for _, body in ipairs({ "error('x')", "return 5", "return nil" }) do
                local engine, core = picks("return { api = 1, on_error = 'skip', choose = function() " .. body .. " end }")
                assert.equal("a b c", (chat(engine, "m")))
                assert.is_true(#core.logged <= 1)
            end
        end)

        local function reorders(body)
            return picks("return { api = 1, route = function(req, candidates) " .. body .. " end }",
                { route({ type = "failover", upstreams = { "a", "b", "c" } }, { policies = { "pick" } }) })
        end

        it("takes a route hook's name, list, model, or nil", function()
            assert.equal("a b c", (chat(reorders(""), "m")))
            assert.equal("b a c", (chat(reorders("return 'b'"), "m")))
            assert.equal("c", (chat(reorders("return { 'c', 'c' }"), "m")))
            local _, list = chat(reorders("candidates[2].model = 'm2' return { candidates[2] }"), "m")
            assert.equal("m2", list[1].model)
        end)

        it("hands on what an order says of hedging, the last word counts", function()
            local function hedge(engine) return (select(2, chat(engine, "m"))).hedge end
            assert.equal(300, hedge(picks("return { api = 1, choose = function(c) return { c[1], c[2], hedge = 300 } end }")))
            for body, expected in pairs({ ["return { 'a', 'b', hedge = 'p95' }"] = "p95", ["candidates.hedge = false return candidates"] = false }) do
                assert.equal(expected, hedge(reorders(body)))
            end
            local function as_is(engine) return (select(2, chat(engine, "m"))).as_is end
            assert.is_true(as_is(picks("return { api = 1, choose = function(c) return { c[1], as_is = true } end }")))
            assert.is_nil(as_is(picks("return { api = 1, choose = function(c) return { c[1] } end }")))
            assert.is_nil(hedge(reorders("return candidates")))
            local engine = build.engine({ conf = conf({ a = {}, b = {} }, {
                route({ type = "pick", upstreams = { "a", "b" } }, { policies = { "leave", "quiet" } }) }), policies = {
                pick = "return { api = 1, choose = function(c) return { c[2], c[1], hedge = 50 } end }",
                leave = "return { api = 1, route = function(req, c) return c end }",
                quiet = "return { api = 1, route = function() return 'a' end }" } })
            local order, list = chat(engine, "m")
            assert.same({ "a b", 50 }, { order, list.hedge })
            for _, odd in ipairs({ "true", "0", "'p96'", "{}", "1e9" }) do
                local ok, failure = pcall(chat, reorders("return { 'a', hedge = " .. odd .. " }"), "m")
                assert.is_false(ok)
                assert.truthy(failure.message:find("expected its hedge to be false, milliseconds or one of p50", 1, true), failure.message)
            end
        end)

        it("lets a route hook use the strategies with its req", function()
            local engine = reorders("return claw.route.sticky(candidates, req)")
            local seen = {}
            for i = 1, 40 do
                local order = chat(engine, "m", { ip = "10.0.0." .. i })
                assert.equal(order, (chat(engine, "m", { ip = "10.0.0." .. i })))
                seen[order:sub(1, 1)] = true
            end
            assert.same({ a = true, b = true, c = true }, seen)
        end)

        it("hands policies copies", function()
            local engine = reorders("candidates[1].name = 'zzz' table.remove(candidates)")
            for _ = 1, 2 do assert.equal("a b c", (chat(engine, "m"))) end
        end)

        it("refuses a name that is none of the route's", function()
            local ok, failure = pcall(chat, reorders("return 'openai'"), "m")
            assert.is_false(ok)
            assert.equal('policies/pick.lua: route: expected candidates of this route (a, b, c), got "openai"', failure.message)
        end)

        it("admits on a route too", function()
            local source = [[return { api = 1, admit = function(req)
                if req.bad then return { deny = 451, code = "nope", message = "not here" } end end }]]
            local engine = picks(source, { { strategy = { upstream = "a" }, policies = { "pick" } } })
            assert.is_false(engine.hooks.admit)
            assert.equal(1, (engine.route({}, "POST", "/x", "m", false)))
            assert.same({ nil, "denied", "not here", 451, "nope", 1 }, { engine.route({ bad = true }, "POST", "/x", "m", false) })
        end)
    end)

    describe("bounds", function()
        it("serves any number of models and paths without keeping them all", function()
            local engine = build.engine({ conf = conf({ a = {}, b = {} }, { { strategy = { type = "round_robin", upstreams = { "a", "b" } } } }) })
            local seen = { a = 0, b = 0 }
            for i = 1, 6000 do
                local _, list = engine.route({}, "POST", "/p", "model-" .. i, false)
                assert.equal(2, #list)
            end
            for i = 1, 3000 do engine.route({}, "POST", "/p" .. i, "m", false) end
            local function kept() -- values of weak keys go in the cycle behind their keys'
                collectgarbage()
                collectgarbage()
                return collectgarbage("count")
            end
            local before = kept()
            for i = 1, 3000 do
                local r = {}
                local _, list = engine.route(r, "POST", "/q" .. i, "n" .. i, false)
                seen[list[1].name] = seen[list[1].name] + 1
                engine.finish(r, 1, "m", 1, 0, 1, 0)
            end
            local growth = kept() - before
            assert.is_true(growth < 512, growth) -- 3,000 kept would be several thousand KB
            assert.same({ a = 1500, b = 1500 }, seen)
        end)
    end)
end)
