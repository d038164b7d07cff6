local messages = require("claw.protocols.anthropic_messages")
local context = require("support.context")
local json = require("claw.json")
local plain = require("support.meaning").plain

local function read(body)
    return messages.read_answer(context.doc(body), context.new())
end

local function write(answer)
    local cx = context.new({ answering = true })
    return json.decode(json.encode(messages.write_answer(answer, cx))), context.dropped(cx)
end

describe("anthropic_messages.read_answer", function()
    it("reads blocks, stops and usage", function()
        local a = read({ id = "msg_1", type = "message", role = "assistant", model = "m", stop_reason = "stop_sequence", stop_sequence = "END",
            content = { { type = "thinking", thinking = "why", signature = "S" }, { type = "text", text = "" },
                { type = "text", text = "t", citations = { { type = "web_search_result_location", url = "https://u", title = "T", cited_text = "c" },
                    { type = "char_location", cited_text = "d", document_title = "D" } } },
                { type = "tool_use", id = "c", name = "f", input = { a = 1 } }, { type = "server_tool_use", id = "s" } },
            usage = { input_tokens = 10, cache_read_input_tokens = 5, cache_creation_input_tokens = 3, output_tokens = 7, service_tier = "standard",
                cache_creation = { ephemeral_1h_input_tokens = 2, ephemeral_5m_input_tokens = 1 },
                    output_tokens_details = { thinking_tokens = 4 } } })
        assert.same({ "msg_1", "m", "stop_sequence", "END", "default" }, { a.id, a.model, a.stop, a.stop_text, a.service_tier })
        assert.same({ input = 18, cached = 5, cache_write = 3, cache_write_1h = 2, output = 7, reasoning = 4 }, a.usage)
        assert.same({ "thinking", "text", "call", "server_call" }, { a.parts[1].kind, a.parts[2].kind, a.parts[3].kind, a.parts[4].kind })
        assert.same({ "https://u", "T", "c" }, { a.parts[2].citations[1].url, a.parts[2].citations[1].title, a.parts[2].citations[1].text })
        assert.equal("D", a.parts[2].citations[2].title)
        assert.same({ a = 1 }, plain(a.parts[3].input))
    end)

    it("reads reasons to stop", function()
        local cases = { end_turn = "end", max_tokens = "length", stop_sequence = "stop_sequence", tool_use = "call", refusal = "refusal",
            pause_turn = "pause", model_context_window_exceeded = "context", compaction = "end" }
        for reason, stop in pairs(cases) do assert.equal(stop, read({ content = json.array(), stop_reason = reason }).stop) end
    end)

    it("knows what is none, and what failed with 200", function()
        for _, text in ipairs({ "[]", "{}", '{"content":"x"}', '{"type":"error"}' }) do
            local none, message = read(text)
            assert.is_nil(none)
            assert.is_string(message)
        end
        assert.equal("overloaded", read('{"type":"error","error":{"type":"overloaded_error","message":"m"}}').error.kind)
    end)
end)

describe("anthropic_messages.write_answer", function()
    it("says all it can", function()
        local body, dropped = write({ id = "x", model = "m", stop = "call", usage = { input = 18, cached = 5, cache_write = 3,
            cache_write_1h = 2, output = 7,
            reasoning = 4 }, parts = { { kind = "thinking", text = "why", signature = "S", origin = "anthropic" }, { kind = "thinking", text = "w" },
            { kind = "redacted", data = "E", origin = "openai" },
            { kind = "text", text = "t", citations = { { url = "https://u", title = "T" }, { text = "nowhere" } } }, { kind = "refusal",
                text = "no" },
            { kind = "call", id = "c", name = "f", input = '{"a":1}', signature = "G", origin = "gemini" }, { kind = "audio", data = "A" } },
            logprobs = context.doc("{}") })
        assert.same({ { type = "thinking", thinking = "why", signature = "S" }, { type = "thinking", thinking = "w", signature = "" },
            { type = "redacted_thinking", data = "openai:E" },
            { type = "text", text = "t", citations = { { type = "web_search_result_location", url = "https://u", title = "T", cited_text = "",
                encrypted_index = "" } } }, { type = "text", text = "no" }, { type = "thinking", thinking = "", signature = "gemini:G" },
            { type = "tool_use", id = "c", name = "f", input = { a = 1 } } }, body.content)
        assert.same({ "message", "assistant", "tool_use", json.null }, { body.type, body.role, body.stop_reason, body.stop_sequence })
        assert.same({ input_tokens = 10, cache_read_input_tokens = 5, cache_creation_input_tokens = 3, output_tokens = 7,
            cache_creation = { ephemeral_1h_input_tokens = 2, ephemeral_5m_input_tokens = 1 },
                output_tokens_details = { thinking_tokens = 4 } }, body.usage)
        assert.equal("citations,content.audio,logprobs", dropped)
    end)

    it("has an id and a list always, and counts from nothing", function()
        local body = write({ parts = {}, stop = "filter" })
        assert.truthy(body.id:find("^msg_%w+$"))
        assert.same(json.array(), body.content)
        assert.equal("refusal", body.stop_reason)
        assert.equal(0, body.usage.input_tokens)
        assert.equal("pause_turn", write({ parts = {}, stop = "pause" }).stop_reason)
        assert.equal("END", write({ parts = {}, stop = "stop_sequence", stop_text = "END" }).stop_sequence)
    end)

    it("gives the first of several, saying so", function()
        local _, dropped = write({ parts = {}, stop = "end", choices = { { parts = {} }, { parts = {} } } })
        assert.equal("choices", dropped)
    end)
end)
