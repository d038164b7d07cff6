local context = require("support.context")
local completions = require("claw.protocols.openai_completions")
local written = require("support.written")

local function read(body)
    local cx = context.new()
    return completions.read_request(context.doc(body), cx)
end

local function refused(body)
    local ok, err = pcall(read, body)
    assert.is_false(ok)
    assert.equal(400, err.status)
    return err.param
end

describe("a completions request", function()
    it("is one turn of the user", function()
        local r = read({ model = "m", prompt = "Once", max_tokens = 9, temperature = 0, stop = { "a", "b" }, n = 2, logprobs = 3, echo = false,
            best_of = 2, stream = true, stream_options = { include_usage = true }, mine = 1, user = "u", suffix = "" })
        assert.same({ { role = "user", parts = { { kind = "text", text = "Once" } } } }, r.turns)
        assert.same({ "m", 9, 0, { "a", "b" }, 2, true, 3, true, true, "u" }, { r.model, r.max_tokens, r.temperature, r.stop, r.n, r.logprobs,
            r.top_logprobs, r.stream, r.include_usage, r.user })
        assert.same({ mine = 1 }, r.rest)
        assert.equal("Once", read({ prompt = { "Once" } }).turns[1].parts[1].text)
    end)

    it("is refused where turns cannot say it", function()
        assert.equal("prompt", refused({ prompt = { "a", "b" } }))
        assert.equal("prompt", refused({ prompt = { 1, 2, 3 } }))
        assert.equal("prompt", refused({ prompt = { { 1, 2 } } }))
        assert.equal("prompt", refused({ model = "m" }))
        assert.equal("suffix", refused({ prompt = "a", suffix = "b" }))
        assert.equal("echo", refused({ prompt = "a", echo = true }))
        assert.equal("best_of", refused({ prompt = "a", best_of = 3 }))
    end)

    it("reaches every chat upstream", function()
        for _, to in ipairs({ "openai_chat", "anthropic_messages", "gemini", "openai_responses", "cohere_chat", "ollama_chat",
            "bedrock_converse" }) do
            local body, dropped = written.request("openai_completions", to, { model = "m", prompt = "Once", temperature = 0.5 })
            assert.truthy(require("claw.json").encode(body):find("Once", 1, true), to)
            assert.equal("", dropped, to)
        end
    end)
end)

describe("a request for completions", function()
    it("has a lone turn as its prompt", function()
        local body, dropped = written.request("openai_chat", "openai_completions", { max_tokens = 9, stream = true,
            messages = { { role = "user", content = { { type = "text", text = "a" }, { type = "text", text = "b" } } } } })
        assert.same({ "a\nb", 9, true, true, "" }, { body.prompt, body.max_tokens, body.stream, body.stream_options.include_usage, dropped })
    end)

    it("tells a conversation", function()
        local body = written.request("openai_chat", "openai_completions", { messages = { { role = "system", content = "Be short." },
            { role = "user", content = "Hi" }, { role = "assistant", content = "Hello" }, { role = "user", content = "And?" } } })
        assert.equal("Be short.\n\nUser: Hi\n\nAssistant: Hello\n\nUser: And?\n\nAssistant:", body.prompt)
        body = written.request("openai_chat", "openai_completions", { messages = { { role = "user", content = "Hi" },
            { role = "assistant", content = "Well" } } })
        assert.equal("User: Hi\n\nAssistant: Well", body.prompt)
    end)

    it("refuses tools", function()
        local ok, err = pcall(written.request, "openai_chat", "openai_completions", { messages = { { role = "user", content = "a" } },
            tools = { { type = "function", ["function"] = { name = "f" } } } }, { lossy = "refuse" })
        assert.same({ false, "tools" }, { ok, err.param })
    end)
end)
