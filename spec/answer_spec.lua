local answer = require("claw.answer")
local json = require("claw.json")

local function req(more)
    local out = { id = "7", path = "/v1/chat/completions", query = "", model = "m", stream = false }
    for key, value in pairs(more or {}) do out[key] = value end
    return out
end

local function events(verdict, more)
    local body, kind = answer.of(verdict, req(more))
    assert.equal("text/event-stream", kind)
    local out = {}
    for block in body:gmatch("(.-)\n\n") do
        local event, data = block:match("^event: (.-)\ndata: (.*)$")
        data = data or block:match("^data: (.*)$")
        out[#out + 1] = { event = event, data = json.decode(data) or data }
    end
    return out
end

describe("claw.answer", function()
    it("leaves a text as it is", function()
        assert.same({ "x", "text/plain; charset=utf-8" }, { answer.of({ answer = "x" }, req()) })
        assert.same({ "", "a/b" }, { answer.of({ answer = "", content_type = "a/b" }, req({ stream = true })) })
    end)

    it("writes a table as JSON, also to who asked for a stream when it is no whole chat answer", function()
        assert.same({ '{"data":[1]}', "application/json" }, { answer.of({ answer = { data = { 1 } } }, req({ stream = true })) })
        assert.same({ '{"choices":[]}', "a/b" }, { answer.of({ answer = { choices = json.array({}) }, content_type = "a/b" }, req()) })
    end)

    it("says a text in the dialect of the path", function()
        local openai = json.decode((answer.of({ say = "Hi." }, req())))
        assert.same({ "chat.completion", "chatcmpl-7", "m" }, { openai.object, openai.id, openai.model })
        assert.same({ { index = 0, finish_reason = "stop", message = { role = "assistant", content = "Hi." } } }, openai.choices)
        local anthropic = json.decode((answer.of({ say = "Hi." }, req({ path = "/v1/messages" }))))
        assert.same({ "message", "assistant", "end_turn" }, { anthropic.type, anthropic.role, anthropic.stop_reason })
        assert.same({ { type = "text", text = "Hi." } }, anthropic.content)
        local gemini = json.decode((answer.of({ say = "Hi." }, req({ path = "/v1beta/models/g:generateContent" }))))
        assert.same({ role = "model", parts = { { text = "Hi." } } }, gemini.candidates[1].content)
    end)

    it("streams OpenAI's form: the message, how it ends, its usage when that was asked for, and the mark", function()
        local list = events({ say = "Hi." }, { stream = true })
        assert.equal(3, #list)
        assert.same({ index = 0, delta = { role = "assistant", content = "Hi." }, finish_reason = json.null }, list[1].data.choices[1])
        assert.same({ index = 0, delta = {}, finish_reason = "stop" }, list[2].data.choices[1])
        assert.equal("chat.completion.chunk", list[1].data.object)
        assert.equal("[DONE]", list[3].data)
        list = events({ say = "Hi." }, { stream = true, body = { stream_options = { include_usage = true } } })
        assert.same({}, list[3].data.choices)
        assert.equal(0, list[3].data.usage.total_tokens)
        for _, odd in ipairs({ json.null, 5, "x", true, {} }) do
            assert.equal(3, #events({ say = "Hi." }, { stream = true, body = { stream_options = odd } }))
        end
    end)

    it("numbers tool calls in a stream", function()
        local call = { id = "c", type = "function", ["function"] = { name = "f", arguments = "{}" } }
        local list = events({ answer = { choices = { { finish_reason = "tool_calls",
            message = { role = "assistant", tool_calls = { call } } } } } }, { stream = true })
        assert.same({ index = 0, id = "c", type = "function", ["function"] = call["function"] }, list[1].data.choices[1].delta.tool_calls[1])
        assert.equal("tool_calls", list[2].data.choices[1].finish_reason)
    end)

    it("streams Anthropic's form, tools too", function()
        local verdict = { answer = { type = "message", id = "x", content = { { type = "text", text = "Hi." },
            { type = "tool_use", id = "t", name = "f", input = { a = 1 } } }, stop_reason = "tool_use", usage = { output_tokens = 3 } } }
        local list, kinds = events(verdict, { stream = true, path = "/v1/messages" }), {}
        for i, ev in ipairs(list) do
            kinds[i] = ev.event
            assert.equal(ev.event, ev.data.type)
        end
        assert.same({ "message_start", "content_block_start", "content_block_delta", "content_block_stop", "content_block_start",
            "content_block_delta", "content_block_stop", "message_delta", "message_stop" }, kinds)
        assert.same({}, list[1].data.message.content)
        assert.same({ type = "text_delta", text = "Hi." }, list[3].data.delta)
        assert.same({ type = "input_json_delta", partial_json = '{"a":1}' }, list[6].data.delta)
        assert.same({ "tool_use", 3 }, { list[8].data.delta.stop_reason, list[8].data.usage.output_tokens })
    end)

    it("streams Gemini's form as the query says", function()
        local path = "/v1beta/models/g:streamGenerateContent"
        local list = events({ say = "Hi." }, { path = path, query = "a=b&alt=sse" })
        assert.equal("Hi.", list[1].data.candidates[1].content.parts[1].text)
        local body, kind = answer.of({ say = "Hi." }, req({ path = path }))
        assert.equal("application/json", kind)
        assert.equal("Hi.", json.decode(body)[1].candidates[1].content.parts[1].text)
    end)

    it("raises what has no JSON form", function()
        assert.has_error(function() answer.of({ answer = { print } }, req()) end)
    end)
end)
