local build = require("support.build")
local engine_module = require("claw.engine")
local guide = require("support.guide")

local function conf(extra)
    local out = {
        upstreams = { a = { models = { "m" }, cost_per_million_input_tokens = 30, cost_per_million_output_tokens = 60 },
            b = { type = "openai" } },
        routes = { { id = "r", strategy = { type = "failover", upstreams = { "a", "b" } } } },
    }
    for key, value in pairs(extra or {}) do out[key] = value end
    return out
end

local function policy(body)
    return "return { api = 1, " .. body .. " }"
end

-- An engine with policies, and a request that it has routed: engine, r, list, mask, core.
local function routed(policies, extra, r)
    local engine, core = build.engine({ conf = conf(extra), policies = policies })
    r = r or {}
    local _, list, mask, number = engine.route(r, "POST", "/v1/chat/completions", "m", true)
    return engine, r, list, mask, core, number
end

describe("claw.engine", function()
    it("gives C the static part of each upstream's head", function()
        local engine = build.engine({ conf = guide(), order = { "anthropic-claude", "openai-gpt4", "local-mistral" } })
        local first, second, third = unpack(engine.upstreams)
        assert.same({ { header = "x-api-key", prefix = "" }, { { "anthropic-version", "2023-06-01" } }, false },
            { first.auth, first.headers, first.stream_usage })
        assert.same({ "/messages", "/messages" }, first.paths.anthropic_messages)
        assert.same({ { header = "authorization", prefix = "Bearer " }, {}, true },
            { second.auth, second.headers, second.stream_usage })
        assert.same({ {}, {} }, { third.protocols, third.paths })
        assert.is_false(engine.hooks.admit)
        assert.is_nil(engine.admit({}))
    end)

    describe("problems", function()
        local function problems(extra, policies)
            return table.concat(build.problems({ conf = conf(extra), policies = policies }), "\n")
        end
        local cases = {
            { "routes[0].strategy.type", { routes = { { strategy = { type = "round_robbin", upstreams = { "a" } } } } },
                'there is no strategy or policy "round_robbin" (did you mean "round_robin"?)' },
            { "routes[0].strategy.upstreams[0]", { routes = { { strategy = { upstreams = { "aa" } } } } },
                'there is no upstream "aa" (did you mean "a"?)' },
            { "routes[0].strategy.upstreams[1]", { routes = { { strategy = { upstreams = { "a", { name = "a" } } } } } }, "twice" },
            { "routes[0].strategy.upstreams", { routes = { { strategy = { type = "failover" } } } }, "at least one" },
            { "routes[0].strategy.upstreams", { routes = { { strategy = { type = "canary", upstreams = {
                { name = "a", percentage = 90 }, { name = "b", percentage = 20 } } } } } }, "add up to 110" },
            { "routes[0].strategy.sticky_by", { routes = { { strategy = { type = "canary", sticky_by = "ip",
                upstream = "a" } } } }, "expected client" },
            { "routes[0].policies[0]", { routes = { { strategy = { upstream = "a" }, policies = { "guard" } } } },
                'there is no policy "guard" (did you mean "guards"?)' },
            { "routes[0].strategy.type", { routes = { { strategy = { type = "guards", upstream = "a" } } } }, "has no choose hook" },
            { "routes[0].match.json_body.x.containz", { routes = { { match = { json_body = { x = { containz = 1 } } },
                strategy = { upstream = "a" } } } }, "contains" },
            { "routes[0].retry.on[0]", { routes = { { strategy = { upstream = "a" }, retry = { on = { "eoff" } } } } }, "eof" },
            { "policies.always[0]", { policies = { always = { "guadrs" } } }, 'did you mean "guards"' },
            { "transformations[0].request.script", { transformations = { { request = { script = "gards.lua" } } } }, "guards" },
            { "transformations[0].response.script", { transformations = { { response = { script = "guards.lua" } } } }, "has no response hook" },
            { "transformations[0]", { transformations = { {} } }, "request.script or response.script" },
            { "transformations[0].match.upstream", { transformations = { { match = { upstream = "a" },
                request = { script = "guards" } } } }, 'did you mean "upstream_name"' },
            { "upstreams.a.type", { upstreams = { a = { type = "opnai" }, b = {} } }, 'did you mean "openai"' },
        }
        for _, case in ipairs(cases) do
            it(case[1] .. " " .. case[3], function()
                local text = problems(case[2], { guards = policy("request = function() end") })
                assert.truthy(text:find(case[1] .. ": ", 1, true), text)
                assert.truthy(text:find(case[3], 1, true), text)
                assert.equal(1, select(2, text:gsub("[^\n]+", "")), text)
            end)
        end

        it("place upstreams of the list form by number", function()
            local spec = build.spec({ conf = conf({ upstreams = { a = { type = "opnai" }, b = {} } }) })
            spec.conf.upstreams = { { name = "a" }, { name = "b" } }
            local _, found = engine_module.new(spec)
            assert.equal("upstreams[0].type", found[1].path)
        end)

        it("name a policy's file and line", function()
            assert.equal("policies/x.lua:3: '=' expected near 'is'", problems(nil, { x = "\n\nthis is not Lua" }))
            assert.equal("policies/x.lua:2: boom", problems(nil, { x = "\nerror('boom')" }))
            assert.equal('policies/x.lua:1: unknown key reqest (did you mean "request"?)',
                problems(nil, { x = policy("reqest = function() end") }))
            assert.equal("policies/x.lua:2: init: no", problems(nil, { x = policy("init = function()\nerror('no') end") }))
            assert.equal("policies/x.lua:1: selftest: bad", problems(nil, { x = policy("selftest = function() error('bad') end") }))
        end)

        it("are found by selftest only where the generation is proved", function()
            local spec = build.spec({ conf = conf(), policies = { x = policy("selftest = function() error('bad') end") } })
            assert.is_nil((engine_module.new(spec)))
            spec.prove = false
            assert.is_table((engine_module.new(spec)))
        end)

        it("lists all of them, and does not run init when there are any", function()
            local text = problems({ policies = { always = { "none" } } },
                { x = policy("init = function() error('ran') end"), y = "syntax error" })
            assert.equal(2, select(2, text:gsub("[^\n]+", "")), text)
            assert.is_nil(text:find("ran", 1, true))
        end)
    end)

    it("runs init with the configuration, without its secrets", function()
        build.engine({ conf = conf({ upstreams = { a = { api_key = "sk", models = { "m" } }, b = {} } }),
            policies = { x = policy([[init = function(conf)
                assert(conf.upstreams.a.models[1] == "m" and conf.upstreams.a.api_key == nil)
                conf.upstreams.a.models[1] = "changed" end]]) } })
    end)

    describe("admit", function()
        it("stops at the first refusal", function()
            local engine = build.engine({ conf = conf(), policies = {
                a_first = policy("admit = function(req) req.seen = 'a' end"),
                b_second = policy("admit = function(req) return { deny = 403, code = 'blocked', message = 'no' } end"),
                c_third = policy("admit = function(req) error('not reached') end"),
            } })
            assert.is_true(engine.hooks.admit)
            local r = {}
            assert.same({ 403, "blocked", "no" }, { engine.admit(r) })
            assert.equal("a", r.seen)
        end)

        it("has words when the policy has none", function()
            local engine = build.engine({ conf = conf(), policies = { x = policy("admit = function() return { deny = 429 } end") } })
            assert.same({ 429, "denied", "The request was refused" }, { engine.admit({}) })
        end)

        it("may answer, and says who does", function()
            local engine = build.engine({ conf = conf(), policies = {
                a = policy("admit = function(req) if req.plain then return { answer = 'x', status = 201, content_type = 'a/b' } end end"),
                b = policy("admit = function(req) return { answer = { 1, { b = true } } } end"),
            } })
            assert.same({ false, 201, "x", "a/b", "a" }, { engine.admit({ plain = true }) })
            assert.same({ false, 200, '[1,{"b":true}]', "application/json", "b" }, { engine.admit({}) })
        end)

        it("may answer behind the route too", function()
            local engine = build.engine({ policies = { a = policy("admit = function() return { answer = 'x' } end") }, conf = {
                upstreams = { a = {} }, routes = { { id = "r", strategy = { upstreams = { "a" } }, policies = { "a" } } } } })
            assert.same({ false, 200, "x", "text/plain; charset=utf-8", "a", 1 }, { engine.route({}, "POST", "/x", nil, false) })
        end)

        for body, expected in pairs({ ["{ deny = 200 }"] = "from 400 to 599", ["{ deny = '403' }"] = "from 400 to 599",
            ["true"] = "got true", ["{}"] = "status", ["{ deny = 403, message = 5 }"] = "strings",
            ["{ answer = 5 }"] = "a text or a table", ["{ answer = 'x', deny = 403 }"] = "one of deny, answer and say",
            ["{ say = {} }"] = "say to be a text", ["{ say = 'x', answer = 'x' }"] = "and no answer",
            ["{ answer = 'x', status = 100 }"] = "from 200 to 599", ["{ answer = 'x', content_type = 'a\\r\\nb: c' }"] = "content_type",
            ["{ answer = { tostring } }"] = "an answer that is JSON" }) do
            it("refuses " .. body, function()
                local engine = build.engine({ conf = conf(), policies = { x = policy("admit = function() return " .. body .. " end") } })
                local ok, failure = pcall(engine.admit, {})
                assert.is_false(ok)
                assert.same({ "x", "admit" }, { failure.policy, failure.hook })
                assert.truthy(failure.message:find(expected, 1, true), failure.message)
            end)
        end
    end)

    describe("masks", function()
        it("say which hooks run where", function()
            local _, _, list, mask = routed({
                all = policy("request = function() end, log = function() end"),
                mine = policy("event = function() end, retry = function() end"),
                conv = policy("request = function() end, response = function() end"),
            }, {
                routes = { { id = "r", strategy = { type = "failover", upstreams = { "a", "b" } }, policies = { "mine" } } },
                transformations = { { match = { upstream_name = "b" }, request = { script = "conv.lua" } } },
            })
            assert.equal(16, mask)
            assert.same({ 1 + 4 + 8, 1 + 2 + 4 + 8 }, { list[1].mask, list[2].mask })
        end)

        it("are 0 when nothing runs", function()
            local _, _, list, mask = routed({ x = policy("admit = function() end") })
            assert.same({ 0, 0, 0 }, { mask, list[1].mask, list[2].mask })
        end)

        it("follow per-request transformations", function()
            local engine = build.engine({ conf = conf({ transformations = {
                { match = { headers = { ["x-a"] = "1" } }, request = { script = "one" } },
                { match = { path = "/p", model = "m" }, response = { script = "two" } },
            } }), policies = { one = policy("request = function() end"), two = policy("response = function() end, event = function() end") } })
            local function masks(r, path, model)
                local _, list = engine.route(r, "POST", path, model, false)
                return list[1].mask
            end
            for _ = 1, 2 do
                assert.equal(0, masks({}, "/x", "m"))
                assert.equal(1, masks({ headers = { ["x-a"] = "1" } }, "/x", "m"))
                assert.equal(6, masks({}, "/p", "m"))
                assert.equal(7, masks({ headers = { ["x-a"] = "1" } }, "/p", "m"))
            end
        end)
    end)

    describe("request and response", function()
        local function request(policies, extra, body)
            local engine, r, list = routed(policies, extra, { body = body or { model = "m", n = 1 } })
            return engine.request(r, list[1].index, "m")
        end

        it("leave the body alone when nobody changes it", function()
            assert.is_nil(request({ x = policy("request = function(req, body) return nil end") }))
            assert.is_nil(request({ x = policy("request = function(req, body) return body end") }))
            assert.is_nil(request({}))
        end)

        it("give the document when it was changed in place", function()
            local doc = request({ x = policy("request = function(req, body) body.n = body.n + 1 end") })
            assert.equal('{"model":"m","n":2}', tostring(doc))
        end)

        it("chain: always by name, then the route's, then transformations", function()
            local add = "request = function(req, body) body.trace = (body.trace or '') .. '%s' end"
            local doc = request({ b = policy(add:format("b")), a = policy(add:format("a")), z = policy(add:format("z")),
                route = policy(add:format("r")), t = "return function(req, body) body.trace = body.trace .. 't' end" },
                { routes = { { strategy = { upstream = "a" }, policies = { "route" } } },
                    policies = { always = { "z", "*" } }, transformations = { { request = { script = "t.lua" } } } })
            assert.equal("zabrt", doc.trace)
        end)

        it("turn tables into JSON, and take text", function()
            assert.equal('{"a":[]}', request({ x = policy("request = function() return { a = claw.json.array() } end") }))
            assert.equal("[1]", request({ x = policy("request = function() return '[1]' end") }))
            assert.equal("[1] ", request({ x = policy("request = function() return '[1]' end"),
                y = policy("request = function(req, body) return body .. ' ' end") }))
        end)

        it("refuse what is no body", function()
            for body, expected in pairs({ ["5"] = "got 5", ["false"] = "got false", ["{ f = print or tostring }"] = "no JSON for a function" }) do
                local ok, failure = pcall(request, { x = policy("request = function() return " .. body .. " end") })
                assert.is_false(ok)
                assert.same({ "x", "request" }, { failure.policy, failure.hook })
                assert.truthy(failure.message:find(expected, 1, true), failure.message)
            end
        end)

        it("run on the answer", function()
            local engine, r, list = routed({ x = policy("response = function(req, body) body.ok = true end") }, nil,
                { answer = { id = 1 } })
            assert.equal('{"id":1,"ok":true}', tostring(engine.response(r, list[1].index)))
            r.answer = "text"
            assert.has_error(function() engine.response(r, list[1].index) end)
        end)

        it("keep a policy's own state of a request between its hooks", function()
            local engine, r, list = routed({ x = policy([[request = function(req) claw.state(req).n = 1 end,
                response = function(req) return "n=" .. claw.state(req).n end]]),
                y = policy("response = function(req, body) assert(claw.state(req).n == nil) end") }, nil, { body = {}, answer = "" })
            engine.request(r, list[1].index, "m")
            assert.equal("n=1", engine.response(r, list[1].index))
        end)
    end)

    describe("a failing policy", function()
        local boom = "request = function()\nerror('boom') end"

        it("raises who, where and what", function()
            local engine, r = routed({ x = policy(boom) }, nil, { body = {} })
            local ok, failure = pcall(engine.request, r, 1, "m")
            assert.is_false(ok)
            assert.same({ "x", "request", "policies/x.lua:2: boom" }, { failure.policy, failure.hook, failure.message })
            assert.truthy(failure.traceback:find("policies/x.lua:2", 1, true))
        end)

        it("is skipped when it says so", function()
            local engine, r, _, _, core = routed({ x = policy("on_error = 'skip', " .. boom),
                y = policy("request = function() return '[5]' end") }, nil, { body = {} })
            assert.equal("[5]", engine.request(r, 1, "m"))
            assert.same({ policy = "x", hook = "request", message = "policies/x.lua:2: boom" }, core.logged[1].fields)
        end)

        it("is one that answers a JSON request with what is none", function()
            local engine, r = routed({ x = policy("request = function() return 'no json' end") }, nil, { body = {} })
            local ok, failure = pcall(engine.request, r, 1, "m")
            assert.same({ false, "x", "request" }, { ok, failure.policy, failure.hook })
            assert.truthy(failure.message:find("policies/x.lua: request: the returned text is no valid JSON", 1, true))
        end)

        it("may throw anything", function()
            local engine, r = routed({ x = policy("request = function() error({ policy = 'other' }) end") }, nil, { body = {} })
            local ok, failure = pcall(engine.request, r, 1, "m")
            assert.is_false(ok)
            assert.equal("x", failure.policy)
            assert.is_string(failure.message)
        end)
    end)

    describe("events", function()
        local function event(policies, kind, data)
            local engine, r, list = routed(policies)
            return engine.event(r, list[1].index, kind, data)
        end
        local function hook(body)
            return policy("event = function(req, ev) " .. body .. " end")
        end

        it("go on as they are, changed, dropped or many", function()
            assert.is_nil(event({ x = hook("") }, "t", "d"))
            assert.is_nil(event({ x = hook("ev.data = 'ignored without return'") }, "t", "d"))
            assert.same({ { type = "t", data = "D" } }, event({ x = hook("ev.data = 'D' return ev") }, "t", "d"))
            assert.is_false(event({ x = hook("return false") }, "t", "d"))
            assert.is_false(event({ x = hook("return {}") }, "t", "d"))
            assert.same({ { data = "1" }, { type = "u", data = "2" } },
                event({ x = hook("return { { data = '1' }, { type = 'u', data = '2' } }") }, "t", "d"))
        end)

        it("pass from hook to hook", function()
            assert.same({ { data = "1x" }, { data = "2x" } }, event({
                a = hook("return { { data = '1' }, { data = '2' }, { data = 'drop' } }"),
                b = hook("if ev.data == 'drop' then return false end return { data = ev.data .. 'x' }"),
            }, nil, "d"))
            assert.same({ { type = "t", data = "d!" } },
                event({ a = hook(""), b = hook("return { type = ev.type, data = ev.data .. '!' }") }, "t", "d"))
        end)

        it("must be events", function()
            for _, body in ipairs({ "return 5", "return { 5 }", "return { type = 'x' }", "return { data = 5 }", "return true",
                "return { type = 5, data = 'x' }" }) do
                local ok, failure = pcall(event, { x = hook(body) }, "t", "d")
                assert.is_false(ok, body)
                assert.equal("event", failure.hook)
            end
        end)
    end)

    describe("retry", function()
        local function attempt(fields)
            local a = { kind = "http_503", status = 503, n = 1, index = 1, left = 1, elapsed_ms = 5, again = true }
            for key, value in pairs(fields or {}) do a[key] = value end
            return a
        end

        it("decides by the table when no policy does", function()
            local engine, r, _, _, _, number = routed({})
            assert.same({ "next", 0 }, { engine.retry(r, attempt(), number) })
            assert.equal("stop", (engine.retry(r, attempt({ status = 400 }), number)))
            assert.equal("stop", (engine.retry(r, attempt({ n = 2, left = 0 }), number)))
            assert.same({ "stop", 0 }, { engine.retry({}, attempt()) })
        end)

        it("sends a prompt that does not fit to the larger window", function()
            local function first(windows)
                local engine = build.engine({ conf = { upstreams = {
                    a = { models = { { name = "m", context_window = windows[1] } } },
                    b = { models = { { name = "m", context_window = windows[2] } } },
                }, routes = { { strategy = { type = "failover", upstreams = { "a", "b" } } } } } })
                local r = {}
                local number = select(4, engine.route(r, "POST", "/", "m", false))
                return (engine.retry(r, attempt({ status = 400, body = "context_length_exceeded" }), number))
            end
            assert.equal("next", first({ 8000, 128000 }))
            assert.equal("stop", first({ 8000, 8000 }))
            assert.equal("stop", first({ 8000 }))
        end)

        local function with(body, fields, retry)
            local engine, r = routed({ x = policy("retry = function(req, a) " .. body .. " end") }, { retry = retry })
            return { engine.retry(r, attempt(fields)) }
        end

        it("lets policies override", function()
            assert.same({ "next", 0 }, with(""))
            assert.same({ "stop", 0 }, with("return { stop = true }"))
            assert.same({ "same", 70 }, with("return { after_ms = 70 }"))
            assert.same({ "next", 5 }, with("return { next = true, after_ms = 5 }"))
            assert.same({ "next", 0 }, with("return { next = true }", { status = 400 }))
            assert.same({ "stop", 0 }, with("return { next = true }", { left = 0 }))
            assert.same({ "stop", 0 }, with("assert(a.kind == 'rate_limited' and a.action == 'next' and a.left == 1) "
                .. "return { stop = true }", { status = 429 }))
        end)

        it("holds the configured cap against policies", function()
            assert.same({ "stop", 0 }, with("return { after_ms = 1 }", { n = 3 }, { attempts = 3 }))
            assert.same({ "same", 1 }, with("return { after_ms = 1 }", { n = 2 }, { attempts = 3 }))
        end)

        it("checks the verdict", function()
            for _, body in ipairs({ "return 5", "return {}", "return { after_ms = -1 }", "return { after_ms = 1.5 }",
                "return { stop = true, next = true }", "return { wait = 5 }", "return { after_ms = 1e9 }" }) do
                assert.has_error(function() with(body) end)
            end
        end)
    end)

    describe("finish", function()
        it("charges whole micro-dollars by who answered", function()
            local engine, r = routed({ x = policy("log = function() end") })
            assert.same({ 60000 }, { engine.finish(r, 1, "m", 1000, 0, 500, 0) })
            engine.route(r, "POST", "/", "m", false)
            assert.same({}, { engine.finish(r, 2, "m", 1000, 0, 500, 0) })
            engine.route(r, "POST", "/", "m", false)
            assert.same({}, { engine.finish(r, 1, "m", nil, nil, nil, nil) })
            assert.same({}, { engine.finish(r, nil, nil) })
        end)

        it("is not called for a list with a number, of which everything is known", function()
            local engine, _, list, mask, _, number = routed({})
            assert.same({ 0, 1 }, { mask, number })
            for _ = 1, 3 do
                local index, again, _, same = engine.route({}, "POST", "/", "m", false)
                assert.same({ 1, 1 }, { index, same })
                assert.equal(list, again)
            end
            for _, hook in ipairs({ "request", "response", "event", "retry", "cost", "log" }) do
                assert.is_nil((select(6, routed({ x = policy(hook .. " = function() end") }))), hook)
            end
        end)

        it("runs cost and log hooks", function()
            local engine, r, _, mask = routed({
                a = policy("cost = function(req, usage) return usage.cost_micros * 2 end, log = function() return { a = 1, b = 1 } end"),
                b = policy("cost = function(req, usage) return usage.cost_micros + usage.output end, log = function() return { b = 2 } end"),
                c = policy("cost = function(req, usage) assert(usage.upstream == 'a' and usage.model == 'm') end, log = function() end"),
            })
            assert.equal(16, mask)
            assert.same({ 120500, { a = 1, b = 2 } }, { engine.finish(r, 1, "m", 1000, 0, 500, 0) })
        end)

        it("logs requests that were never routed", function()
            local engine = build.engine({ conf = conf(), policies = {
                x = policy("log = function() return { x = 1 } end, cost = function() error('no') end") } })
            assert.same({ nil, { x = 1 } }, { engine.finish({}, nil, nil) })
        end)

        it("checks the verdicts", function()
            for _, hooks in ipairs({ "cost = function() return 1.5 end", "cost = function() return -1 end",
                "cost = function() return '5' end", "log = function() return 5 end", "log = function() return { 1 } end" }) do
                local engine, r = routed({ x = policy(hooks) })
                assert.has_error(function() engine.finish(r, 1, "m", 1, 0, 1, 0) end)
            end
        end)
    end)

    it("converts both ways with the guide's transformation, which names the request's script only", function()
        local file = assert(io.open((os.getenv("CLAW_ROOT") or ".") .. "/policies/convert_openai_to_anthropic.lua"))
        local source = file:read("*a")
        file:close()
        local config = guide()
        config.transformations = { { id = "anthropic_request_adaptor", match = { upstream_name = "anthropic-claude" },
            request = { script = "convert_openai_to_anthropic.lua" } } }
        local engine = build.engine({ conf = config, builtin = { convert_openai_to_anthropic = source } })
        local r = { upstream = {}, body = { model = "claude-3-opus-20240229", messages = { { role = "user", content = "hi" } } } }
        local _, list = engine.route(r, "POST", "/v1/chat/completions", "claude-3-opus-20240229", false)
        assert.equal(7, list[1].mask)
        local sent = engine.request(r, list[1].index, list[1].model)
        assert.equal('{"max_tokens":4096,"messages":[{"content":[{"text":"hi","type":"text"}],"role":"user"}],'
            .. '"model":"claude-3-opus-20240229"}', sent)
        assert.equal("/messages", r.upstream.path)
        local _, other = engine.route({}, "POST", "/v1/chat/completions", "gpt-4o", false)
        assert.equal(0, other[1].mask)
    end)
end)
