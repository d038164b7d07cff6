local build = require("support.build")
local guide = require("support.guide")

describe("claw.explain", function()
    local config = guide()
    config.upstreams["openai-gpt4"].cost_per_million_input_tokens = 30
    config.upstreams["openai-gpt4"].cost_per_million_output_tokens = 60
    config.routes[3] = { id = "team", match = { path = "/v1/chat/completions", headers = { ["x-team"] = "red" }, model = "gpt-4" },
        strategy = { type = "failover", upstreams = { "local-mistral", "openai-gpt4" } } }
    local engine = build.engine({ conf = config, policies = { audit = "return { api = 1, request = function() end, log = function() end }" } })

    local function explain(model, r)
        return engine.explain(r or { tokens = 100 }, "POST", "/v1/chat/completions", model, false)
    end

    local function has(text, ...)
        for _, words in ipairs({ ... }) do assert.truthy(text:find(words, 1, true), words .. "\nnot in\n" .. text) end
    end

    it("lists each route and why", function()
        has(explain("gpt-4"), "request: POST /v1/chat/completions, model gpt-4",
            "team (3 criteria): no: headers.x-team is not red", "specific_gpt4_route (2 criteria): matches: chosen",
            "default_chat_route (1 criterion): matches too, but is less specific",
            "candidates of specific_gpt4_route (weighted_random), in order:",
            "1. openai-gpt4 (openai), sends the model as asked, weight 100, about $0.018360",
            "request at openai-gpt4: audit", "log: audit", "estimated input: 100 tokens")
    end)

    it("shows the order and the model each is sent", function()
        has(explain("gpt-4", { headers = { ["x-team"] = "red" } }), "team (3 criteria): matches: chosen",
            "1. local-mistral (generic), sends model mistral, no price", "2. openai-gpt4")
    end)

    it("says who is left out, and refusals", function()
        has(explain("claude-3-opus-20240229"), "-  openai-gpt4: unlisted model", "1. anthropic-claude")
        has(explain("nope"), "decision: refused, model_not_found", "-  anthropic-claude: unlisted model")
        has(engine.explain({}, "GET", "/nothing", nil, false), "decision: refused, no_route", "path is not /v1/chat/completions")
        has(engine.explain({}, "GET", "/v1/models", nil, false), "decision: answered by the proxy with status 200")
    end)

    it("says that nothing touches a body", function()
        has(build.engine({ conf = guide() }).explain({}, "POST", "/v1/chat/completions", "gpt-4", true),
            "streaming", "hooks: none; the body goes out as it came")
    end)
end)
