-- Ollama's clients: their requests read, answers and streams written for them.

local context = require("support.context")
local dialects = require("support.dialect_streams")
local json = require("claw.json")
local ollama = require("claw.protocols.ollama_chat")
local protocols = require("claw.protocols")
local rules = require("support.stream_rules")
local written = require("support.written")

local function read(body, cx)
    return ollama.read_request(context.doc(body), cx or context.new())
end

local HI = { { role = "user", content = "Hi" } }

describe("a request of an Ollama client", function()
    it("has its settings under the vocabulary's names", function()
        local r = read({ model = "m", messages = HI, stream = false, think = "high", logprobs = true, top_logprobs = 2, keep_alive = "5m", options = {
            num_predict = 9, temperature = 0.5, top_p = 0.25, top_k = 3, seed = 7, stop = { "a" }, presence_penalty = 1, frequency_penalty = 2,
            num_ctx = 4096 } })
        assert.same({ 9, 0.5, 0.25, 3, 7, "a", 1, 2, true, 2, false }, { r.max_tokens, r.temperature, r.top_p, r.top_k, r.seed, r.stop[1],
            r.presence_penalty, r.frequency_penalty, r.logprobs, r.top_logprobs, r.stream })
        assert.same({ effort = "high", show = true }, r.reasoning)
        assert.same({ ["options.num_ctx"] = 4096, keep_alive = "5m" }, r.rest)
        assert.is_true(read({ messages = HI }).stream)
        assert.is_true(read({ messages = HI, think = false }).reasoning.off)
        assert.is_nil(read({ messages = HI, options = { num_predict = -1 }, format = "" }).max_tokens)
        assert.same({ kind = "json" }, read({ messages = HI, format = "json" }).format)
        assert.equal("object", read({ messages = HI, format = { type = "object" } }).format.schema.type)
    end)

    it("finds whose each result is without ids", function()
        local function call(name) return { ["function"] = { name = name, arguments = { x = 1 } } } end
        local r = read({ messages = { HI[1], { role = "assistant", content = "", thinking = "hm", tool_calls = { call("f"), call("g"), call("f") } },
            { role = "tool", tool_name = "g", content = "G" }, { role = "tool", tool_name = "f", content = "F1" }, { role = "tool",
                content = "F2" } } })
        local calls, ids = r.turns[2].parts, {}
        assert.same({ "thinking", "call", "call", "call" }, { calls[1].kind, calls[2].kind, calls[3].kind, calls[4].kind })
        for i = 3, 5 do ids[i] = r.turns[i].parts[1].id end
        assert.same({ calls[3].id, calls[2].id, calls[4].id }, { ids[3], ids[4], ids[5] })
        assert.equal("f", r.turns[5].parts[1].name)
    end)

    it("has images by what their bytes are", function()
        local r = read({ messages = { { role = "user", content = "q", images = { "/9j/4AAQ", "iVBORw0KGgoA", "UklGRabc", "R0lGODlh" } } } })
        local kinds = {}
        for i = 1, 4 do kinds[i] = r.turns[1].parts[i].media_type end
        assert.same({ "image/jpeg", "image/png", "image/webp", "image/gif" }, kinds)
        assert.equal("q", r.turns[1].parts[5].text)
    end)

    it("tells what is lost, and refuses what is no request", function()
        local body = { model = "m", messages = { { role = "user", content = "q", odd = 1 } }, options = { num_ctx = 1, mirostat = 2 },
            keep_alive = "1h" }
        for _, to in ipairs({ "openai_chat", "openai_responses", "anthropic_messages", "gemini", "cohere_chat", "bedrock_converse" }) do
            local _, dropped = written.request("ollama_chat", to, body)
            assert.equal("messages[0].odd,keep_alive,options.mirostat,options.num_ctx", dropped, to)
        end
        local made, dropped = written.request("ollama_chat", "ollama_chat", body)
        assert.same({ { num_ctx = 1, mirostat = 2 }, "1h", "messages[0].odd" }, { made.options, made.keep_alive, dropped })
        for _, bad in ipairs({ {}, { messages = "x" }, { messages = { { role = "boss" } } }, { messages = { 1 } } }) do
            assert.is_false((pcall(read, bad)))
        end
    end)
end)

local ANSWER = { model = "m", created = 1700000000, stop = "call", usage = { input = 3, output = 4, reasoning = 2 }, parts = {
    { kind = "thinking", text = "hm", signature = "s", origin = "anthropic" }, { kind = "text", text = "so" },
    { kind = "call", id = "c", name = "f", input = '{"big":12345678901234567890,\n"e":[]}' }, { kind = "call", id = "d", name = "g", input = "" },
    { kind = "call", id = "e", name = "h", input = "{cut" } } }

describe("an Ollama client", function()
    it("gets a whole answer, its calls' arguments byte for byte", function()
        local text = json.encode(ollama.write_answer(ANSWER, context.new({ answering = true })))
        assert.truthy(text:find('"arguments":{"big":12345678901234567890, "e":[]}', 1, true), text)
        local got = json.decode(text)
        assert.same({ "so", "hm", "stop", 3, 4, true, "2023-11-14T22:13:20Z" }, { got.message.content, got.message.thinking, got.done_reason,
            got.prompt_eval_count, got.eval_count, got.done, got.created_at })
        assert.same({}, got.message.tool_calls[2]["function"].arguments)
        assert.same({ input = "{cut" }, got.message.tool_calls[3]["function"].arguments)
    end)

    it("gets the same as lines, each as soon as it is known", function()
        local cx = context.new({ answering = true })
        local lines = rules.write(ollama.writer(cx), require("claw.protocols.whole").events(ANSWER))
        local problem, said = dialects.ollama_chat(lines)
        assert.is_nil(problem)
        assert.same({ "so", "hm", "stop", { 3, 4 }, 3 }, { said.text, said.thinking, said.stop, said.usage, #said.calls })
        assert.truthy(lines[3].data:find('"arguments":{"big":12345678901234567890, "e":[]}', 1, true), lines[3].data)
        assert.equal("", context.dropped(cx))
    end)

    it("is told how an answer ended", function()
        for stop, reason in pairs({ length = "length", context = "length", filter = "content_filter", refusal = "content_filter", pause = "stop",
            stop_sequence = "stop", ["end"] = "stop" }) do
            assert.equal(reason, ollama.write_answer({ parts = {}, stop = stop }, context.new({ answering = true })).done_reason)
        end
        local refused = ollama.write_answer({ parts = { { kind = "refusal", text = "no" } }, stop = "refusal" }, context.new({ answering = true }))
        assert.same({ "no", "stop" }, { refused.message.content, refused.done_reason })
    end)

    it("is told of errors in its words, alone and in a stream", function()
        assert.same({ error = "no" }, ollama.write_error({ message = "no" }))
        local write = ollama.writer(context.new({ answering = true }))
        write({ on = "start" })
        assert.equal('{"error":"no"}', write({ on = "error", err = { message = "no" } })[1].data)
        assert.same({}, write({ on = "end" }))
    end)

    it("has logprobs where they are", function()
        local logprobs = { content = { { token = "a", logprob = -1 } } }
        local got = json.decode(json.encode(ollama.write_answer({ parts = {}, logprobs = logprobs }, context.new({ answering = true }))))
        assert.equal("a", got.logprobs[1].token)
        assert.is_table(protocols.get("ollama_chat").read_answer(context.doc(got), context.new()))
    end)
end)
