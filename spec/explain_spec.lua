local build = require("support.build")
local guide = require("support.guide")

-- As C does it: the steps admit, route and transform between explain and explained.
local function steps(engine, r, method, path, model, stream)
    local status, code, text = engine.admit(r)
    if status then return "denied", status, code, text end
    if status == false then return "answered", code end
    local first, list, third, number = engine.route(r, method, path, model, stream)
    if first == nil then return "refused", nil, list, third end
    if first == false then return "answered", list end
    engine.explain_attempt(r)
    engine.request(r, list[1].index, model)
    return "routed", nil, nil, nil, number
end

local function explain(engine, r, method, path, model, stream)
    engine.explain(r, method, path, model, stream)
    local ok, kind, status, code, text, number = pcall(steps, engine, r, method, path, model, stream)
    if ok then return engine.explained(r, kind, status, code, text, nil, nil, number) end
    return engine.explained(r, "failed", nil, nil, kind.message, kind.policy, kind.hook), kind
end

local function has(text, ...)
    for _, words in ipairs({ ... }) do assert.truthy(text:find(words, 1, true), words .. "\nnot in\n" .. text) end
end

local function has_not(text, words)
    assert.falsy(text:find(words, 1, true), words .. "\nin\n" .. text)
end

describe("claw.explain of a translation", function()
    local FILE = { upstreams = { gpt = { type = "openai", models = { "gpt-4o" } },
        claude = { type = "anthropic", models = { "claude-sonnet-4-5" } },
        google = { type = "gemini", models = { "gemini-2.5-flash" } }, strict = { type = "anthropic", lossy = "refuse", models = { "claude-x" } } },
        routes = { { id = "all", strategy = { type = "failover", upstreams = { "gpt", "claude", "google", "strict" } } } } }

    local function told(body, order, policies, path)
        FILE.routes[1].strategy.upstreams = order
        local made = build.engine({ conf = FILE, policies = policies })
        body.messages = body.messages or { { role = "user", content = "q" } }
        local dialect = path and "anthropic_messages" or "openai_chat"
        return (explain(made, { body = body, dialect = dialect, stream = false }, "POST", path or "/v1/chat/completions", body.model, false))
    end

    it("says for each candidate what it speaks and what is dropped, in the client's words", function()
        local text = told({ model = "gpt-4o", seed = 1, stop = { "1", "2", "3", "4", "5", "6" }, logit_bias = { a = 1 } },
            { "gpt", "claude", "google", "strict" })
        has(text, "translation, of a client that speaks openai_chat:\n  gpt: not translated\n"
            .. "  claude: speaks anthropic_messages; drops seed, logit_bias\n"
            .. "  google: speaks gemini_generate; drops stop, logit_bias\n  strict: speaks anthropic_messages; refused: \"seed\" has no counterpart",
            "decision: goes to gpt first")
        has_not(text, "translated for")
        text = told({ model = "claude-sonnet-4-5", max_tokens = 9 }, { "claude", "gpt" }, nil, "/v1/messages")
        has(text, "of a client that speaks anthropic_messages:\n  claude: not translated\n  gpt: speaks openai_chat; drops nothing\n")
    end)

    it("says who is asked instead of one that cannot be told, and that nobody can", function()
        local text = told({ model = "claude-x", seed = 1 }, { "strict", "google" })
        has(text, "strict: speaks anthropic_messages; refused: ", "decision: goes to google first")
        text = told({ model = "claude-x", seed = 1 }, { "strict" })
        has(text, "decision: refused, untranslatable: \"seed\" has no counterpart")
    end)

    it("knows what the first one's hooks made of the body", function()
        local policies = { cut = "return { api = 1, request = function(req, body) body.seed = nil; body.user = 'u' end }" }
        local text = told({ model = "claude-sonnet-4-5", seed = 1, logit_bias = { a = 1 } }, { "claude", "google" }, policies)
        has(text, "claude: speaks anthropic_messages; drops logit_bias\n", "google: speaks gemini_generate; drops logit_bias\n",
            "request at claude: cut")
        policies.cut = "return { api = 1, request = function(req, body) req.set_path = '/own' end }"
        has(told({ model = "claude-sonnet-4-5" }, { "claude" }, policies), "claude: a policy sets its path: not translated")
    end)
end)

describe("claw.explain", function()
    local config = guide()
    config.upstreams["openai-gpt4"].cost_per_million_input_tokens = 30
    config.upstreams["openai-gpt4"].cost_per_million_output_tokens = 60
    config.routes[3] = { id = "team", match = { path = "/v1/chat/completions", headers = { ["x-team"] = "red" }, model = "gpt-4" },
        strategy = { type = "failover", upstreams = { "local-mistral", "openai-gpt4" } } }
    local engine = build.engine({ conf = config, policies = { audit = "return { api = 1, request = function() end, log = function() end }" } })

    local function chat(model, r)
        return explain(engine, r or { tokens = 100 }, "POST", "/v1/chat/completions", model, false)
    end

    it("lists each route and why", function()
        has(chat("gpt-4"), "request: POST /v1/chat/completions, model gpt-4",
            "team (3 criteria): no: headers.x-team is not red", "specific_gpt4_route (2 criteria): matches: chosen",
            "default_chat_route (1 criterion): matches too, but is less specific",
            "candidates of specific_gpt4_route (weighted_random), in order:",
            "1. openai-gpt4 (openai), sends the model as asked, weight 100, about $0.018360",
            "request at openai-gpt4: audit", "log: audit", "estimated input: 100 tokens", "decision: goes to openai-gpt4 first")
    end)

    it("shows the order and the model each is sent", function()
        has(chat("gpt-4", { headers = { ["x-team"] = "red" } }), "team (3 criteria): matches: chosen",
            "1. local-mistral (generic), sends model mistral, no price", "2. openai-gpt4")
    end)

    it("says who is left out, and refusals", function()
        has(chat("claude-3-opus-20240229"), "-  openai-gpt4: unlisted model", "1. anthropic-claude")
        has(chat("nope"), "decision: refused, model_not_found", "-  anthropic-claude: unlisted model")
        has(explain(engine, {}, "GET", "/nothing", nil, false), "decision: refused, no_route", "path is not /v1/chat/completions")
        has(explain(engine, {}, "GET", "/v1/models", nil, false), "decision: answered by the proxy with status 200")
    end)

    it("says that nothing touches a body", function()
        has(explain(build.engine({ conf = guide() }), {}, "POST", "/v1/chat/completions", "gpt-4", true),
            "streaming", "hooks: none; the body goes out as it came")
    end)

    describe("with policies", function()
        local function with(policies, r)
            local made, core = build.engine({ conf = { upstreams = { a = {}, b = {} }, routes = { { id = "all",
                strategy = { type = "failover", upstreams = { "a", "b" } } } } }, policies = policies })
            local text, failure = explain(made, r or { body = { model = "m", temperature = 1, messages = { { content = "hi" } } } },
                "POST", "/v1/chat/completions", "m", false)
            return text, core, failure
        end

        it("tells who admits and who denies", function()
            has(with({ guard = "return { api = 1, admit = function() end }" }), "admit, guard: lets it pass (0 us)")
            has(with({ guard = "return { api = 1, admit = function() return { deny = 451, code = 'law', message = 'no' } end }" }),
                "admit, guard: denies it: 451 law: no", "decision: denied by guard with status 451")
        end)

        it("tells the order before and after", function()
            has(with({ p = "return { api = 1, route = function() return 'b' end }", q = "return { api = 1, route = function() end }" }),
                "route, p: order b, a (before: a, b)", "route, q: leaves the order: b, a", "  1. b")
        end)

        it("tells what changed in the body, the head and the path", function()
            local r = { body = { model = "m", temperature = 1, tools = { 1 } } }
            has(with({ p = [[return { api = 1, request = function(req, body)
                req.set_headers, req.set_path = { "x-a", "1", "x-b", false }, "/messages"
                return { model = "n", max_tokens = 5, tools = { 1, 2 } }
            end }]], q = "return { api = 1, request = function(req, body) end }" }, r),
                "request at a, p: changes (0 us)", '    ~ model: "m" -> "n"', "    + max_tokens: 5", "    - temperature: 1",
                "    + tools[1]: 2", "    header x-a: 1", "    header x-b: removed", "    path: /messages",
                "request at a, q: changes nothing")
        end)

        it("has what policies say in its place, and not in the log", function()
            local text, core = with({ p = "return { api = 1, admit = function() claw.log('warn', 'look', { n = 1 }) end }" })
            has(text, '    p says: warn: look {"n":1}')
            assert.same({}, core.logged)
        end)

        it("has errors in their place", function()
            local text, _, failure = with({ p = "return { api = 1,\n request = function() error('oh') end }" })
            has(text, "request at a, p: failed", "error: policies/p.lua:2: oh", "decision: none, p failed in request: policies/p.lua:2: oh")
            assert.equal("p", failure.policy)
            text = with({ p = "return { api = 1, on_error = 'skip',\n admit = function() return 42 end }" })
            has(text, "error: policies/p.lua: admit: expected", "(skipped)", "decision: goes to a first")
        end)

        it("fetches nothing, sleeps never and starts no background", function()
            local text, core = with({ p = [[return { api = 1, admit = function(req)
                claw.time.sleep(60000)
                local answer, message, code = claw.http.fetch("https://user:pw@example.org/x?key=1", { method = "POST", body = "b" })
                claw.task.background(function() error("it ran") end)
                local told = claw.task.wait(claw.task.spawn(function() return "spawned" end))
                claw.http.fetch({ upstream = "b", path = "/y" })
                return { deny = 403, code = code, message = told }
            end }]] })
            has(text, "would fetch POST https://example.org/x?…", "would fetch GET /y from upstream b",
                "would start a background task", "denies it: 403 EEXPLAIN: spawned")
            has_not(text, "pw")
            assert.has_error(function() core.sleep(1) end) -- outside of a coroutine: the core is its own again
        end)
    end)

    it("says who answers in an upstream's place", function()
        local answering = build.engine({ conf = config, policies = { faq = "return { api = 1, admit = function(req) "
            .. "if req.ask then return { say = 'The answer.' } end end }" } })
        has(explain(answering, { ask = true, id = "1", path = "/v1/chat/completions" }, "POST", "/v1/chat/completions", "gpt-4", false),
            "admit, faq: answers it: 200: The answer.", "decision: answered by faq with status 200")
        has(explain(answering, { tokens = 1 }, "POST", "/v1/chat/completions", "gpt-4", false), "lets it pass", "decision: goes to openai-gpt4 first")
    end)
end)
