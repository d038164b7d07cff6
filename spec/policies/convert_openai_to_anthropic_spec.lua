local json = require("claw.json")
local testing = require("openclaw.testing")

local NAME = "convert_openai_to_anthropic"
local p = testing.load("policies/" .. NAME .. ".lua")

local function new_request()
    return testing.request({ upstream = { name = "anthropic" } })
end

-- What goes out, nil when it is what came; the path it goes to.
local function request(body, req)
    local result = p:run("request", req or new_request(), body)
    return result.changed and result.json or nil, result.upstream.path
end

local function user(content)
    return { role = "user", content = content }
end

describe("policies/" .. NAME, function()
    describe("request", function()
        it("joins system turns and fills max_tokens", function()
            local out, path = request({ model = "claude", messages = {
                { role = "system", content = "a" }, user("hi"),
                { role = "developer", content = { { type = "text", text = "b" } } },
            } })
            assert.equal("a\n\nb", out.system)
            assert.equal(4096, out.max_tokens)
            assert.equal("claude", out.model)
            assert.same({ { role = "user", content = { { type = "text", text = "hi" } } } }, out.messages)
            assert.equal("/messages", path)
            assert.is_nil(out.stream)
        end)

        it("keeps what both know", function()
            local out = request({ model = "m", messages = { user("x") }, temperature = 0.5, top_p = 0.9, stream = true,
                max_tokens = 7, user = "u", stop = "END", n = 1, seed = json.null })
            assert.same({ 0.5, 0.9, true, 7, { user_id = "u" }, { "END" } },
                { out.temperature, out.top_p, out.stream, out.max_tokens, out.metadata, out.stop_sequences })
            assert.equal(9, request({ messages = { user("x") }, max_tokens = 5, max_completion_tokens = 9 }).max_tokens)
            assert.same({ "a", "b" }, request({ messages = { user("x") }, stop = { "a", "b" } }).stop_sequences)
            assert.is_nil(request({ messages = { user("x") }, stop = json.null, temperature = json.null }).temperature)
        end)

        it("takes images by URL and as data", function()
            local out = request({ messages = { user({
                { type = "text", text = "look" }, { type = "image_url", image_url = { url = "https://x/y.png" } },
                { type = "image_url", image_url = { url = "data:image/png;base64,QUJD" } },
            }) } })
            assert.same({ { type = "text", text = "look" },
                { type = "image", source = { type = "url", url = "https://x/y.png" } },
                { type = "image", source = { type = "base64", media_type = "image/png", data = "QUJD" } } },
                out.messages[1].content)
        end)

        it("converts tools, calls and results, and keeps results of parallel calls together", function()
            local schema = { type = "object", properties = { q = { type = "string" } }, required = json.array() }
            local out = request({
                tools = { { type = "function", ["function"] = { name = "find", description = "d", parameters = schema } },
                    { type = "function", ["function"] = { name = "bare" } } },
                messages = {
                    user("go"),
                    { role = "assistant", content = json.null, tool_calls = {
                        { id = "t1", type = "function", ["function"] = { name = "find", arguments = '{"q":"a"}' } },
                        { id = "t2", type = "function", ["function"] = { name = "bare", arguments = "" } },
                    } },
                    { role = "tool", tool_call_id = "t1", content = "one" },
                    { role = "tool", tool_call_id = "t2", content = "" },
                    user("and?"),
                },
            })
            assert.same({ { name = "find", description = "d", input_schema = schema },
                { name = "bare", input_schema = { type = "object" } } }, out.tools)
            assert.truthy(json.encode(out.tools):find('"required":[]', 1, true))
            assert.equal(3, #out.messages)
            assert.same({ { type = "tool_use", id = "t1", name = "find", input = { q = "a" } },
                { type = "tool_use", id = "t2", name = "bare", input = {} } }, out.messages[2].content)
            assert.same({ { type = "tool_result", tool_use_id = "t1", content = { { type = "text", text = "one" } } },
                { type = "tool_result", tool_use_id = "t2", content = {} }, { type = "text", text = "and?" } },
                out.messages[3].content)
            assert.equal("user", out.messages[3].role)
        end)

        for given, expected in pairs({ auto = { type = "auto" }, none = { type = "none" }, required = { type = "any" } }) do
            it("tool_choice " .. given, function()
                assert.same(expected, request({ messages = { user("x") }, tool_choice = given }).tool_choice)
            end)
        end

        it("tool_choice of one function", function()
            assert.same({ type = "tool", name = "f" }, request({ messages = { user("x") },
                tool_choice = { type = "function", ["function"] = { name = "f" } } }).tool_choice)
        end)

        it("leaves to Anthropic what is not valid", function()
            local out = request({ messages = { { role = "assistant", tool_calls = { { id = "t",
                ["function"] = { name = "f", arguments = "{" } } } } } })
            assert.equal("{", out.messages[1].content[1].input)
            out = request({ messages = { user({ { type = "input_audio", input_audio = { data = "x" } } }) } })
            assert.same({ type = "input_audio", input_audio = { data = "x" } }, out.messages[1].content[1])
        end)

        it("leaves alone what is no chat", function()
            local out, path = request({ model = "m", input = "x" })
            assert.is_nil(out)
            assert.is_nil(path)
            assert.is_nil((request(nil)))
        end)
    end)

    describe("response", function()
        local function response(answer)
            local result = p:run("response", new_request(), answer)
            return result.changed and result.json or nil
        end

        it("comes back as a completion", function()
            local out = response({ id = "msg_1", type = "message", model = "claude", stop_reason = "end_turn",
                content = { { type = "thinking", thinking = "hm" }, { type = "text", text = "Hel" }, { type = "text", text = "lo" } },
                usage = { input_tokens = 10, cache_read_input_tokens = 4, cache_creation_input_tokens = 1, output_tokens = 3 } })
            assert.equal("chat.completion", out.object)
            assert.equal("msg_1", out.id)
            assert.same({ { index = 0, finish_reason = "stop", message = { role = "assistant", content = "Hello" } } }, out.choices)
            assert.same({ prompt_tokens = 15, completion_tokens = 3, total_tokens = 18,
                prompt_tokens_details = { cached_tokens = 4 } }, out.usage)
            assert.is_number(out.created)
        end)

        it("brings tool calls", function()
            local out = response({ type = "message", stop_reason = "tool_use", content = {
                { type = "tool_use", id = "t1", name = "f", input = { a = json.array() } },
                { type = "tool_use", id = "t2", name = "g", input = {} } } })
            local message = out.choices[1].message
            assert.equal(json.null, message.content)
            assert.same({ name = "f", arguments = '{"a":[]}' }, message.tool_calls[1]["function"])
            assert.same({ name = "g", arguments = "{}" }, message.tool_calls[2]["function"])
            assert.equal("tool_calls", out.choices[1].finish_reason)
        end)

        for reason, expected in pairs({ end_turn = "stop", stop_sequence = "stop", max_tokens = "length",
            tool_use = "tool_calls", refusal = "content_filter", something_new = "stop" }) do
            it("finish_reason for " .. reason, function()
                local out = response({ type = "message", stop_reason = reason, content = json.array() })
                assert.equal(expected, out.choices[1].finish_reason)
            end)
        end

        it("keeps errors, and leaves alone what it does not know", function()
            assert.same({ error = { type = "overloaded_error", message = "Overloaded" } },
                response({ type = "error", error = { type = "overloaded_error", message = "Overloaded" } }))
            assert.is_nil(response({ id = "x" }))
            assert.is_nil(response("<html>"))
        end)
    end)

    describe("events", function()
        -- Run a stream through the policy; the decoded chunks, "[DONE]" as itself.
        local function stream(events, include_usage)
            local req, out = new_request(), {}
            request({ messages = { user("x") }, stream = true,
                stream_options = include_usage and { include_usage = true } or nil }, req)
            for _, e in ipairs(events) do
                for _, ev in ipairs(p:stream(req, { { type = e.type, data = e } })) do
                    assert.is_nil(ev.type)
                    out[#out + 1] = ev.data == "[DONE]" and ev.data or json.decode(ev.data)
                end
            end
            return out
        end
        local function start()
            return { type = "message_start", message = { id = "msg_1", model = "claude",
                usage = { input_tokens = 12, output_tokens = 1 } } }
        end
        local function text(s, i)
            return { type = "content_block_delta", index = i or 0, delta = { type = "text_delta", text = s } }
        end
        local function done(reason)
            return { type = "message_delta", delta = { stop_reason = reason }, usage = { output_tokens = 9 } }
        end

        it("become chunks", function()
            local out = stream({ start(), { type = "ping" },
                { type = "content_block_start", index = 0, content_block = { type = "text", text = "" } },
                text("Hel"), text("lo"), { type = "content_block_stop", index = 0 }, done("end_turn"), { type = "message_stop" } })
            assert.equal(5, #out)
            assert.same({ role = "assistant", content = "" }, out[1].choices[1].delta)
            assert.equal("Hel", out[2].choices[1].delta.content)
            assert.equal("lo", out[3].choices[1].delta.content)
            assert.equal("stop", out[4].choices[1].finish_reason)
            assert.equal("[DONE]", out[5])
            for i = 1, 4 do
                assert.same({ "msg_1", "claude", "chat.completion.chunk" }, { out[i].id, out[i].model, out[i].object })
            end
        end)

        it("carry usage when it was asked for", function()
            local out = stream({ start(), text("x"), done("max_tokens"), { type = "message_stop" } }, true)
            assert.equal("length", out[3].choices[1].finish_reason)
            assert.same({ prompt_tokens = 12, completion_tokens = 9, total_tokens = 21,
                prompt_tokens_details = { cached_tokens = 0 } }, out[4].usage)
            assert.equal(0, #out[4].choices)
            assert.equal("[DONE]", out[5])
        end)

        it("carry tool calls piece by piece", function()
            local function tool(i, id)
                return { type = "content_block_start", index = i, content_block = { type = "tool_use", id = id, name = "f" .. i, input = {} } }
            end
            local function piece(i, s)
                return { type = "content_block_delta", index = i, delta = { type = "input_json_delta", partial_json = s } }
            end
            local out = stream({ start(), text("so"), tool(1, "t1"), piece(1, '{"a"'), piece(1, ":1}"), tool(2, "t2"), piece(2, "{}"),
                done("tool_use"), { type = "message_stop" } })
            local calls = {}
            for _, chunk in ipairs(out) do
                local delta = type(chunk) == "table" and chunk.choices[1].delta
                for _, c in ipairs(delta and delta.tool_calls or {}) do
                    local call = calls[c.index + 1] or { id = c.id, name = c["function"].name, arguments = "" }
                    call.arguments = call.arguments .. c["function"].arguments
                    calls[c.index + 1] = call
                end
            end
            assert.same({ { id = "t1", name = "f1", arguments = '{"a":1}' }, { id = "t2", name = "f2", arguments = "{}" } }, calls)
            assert.equal("tool_calls", out[#out - 1].choices[1].finish_reason)
        end)

        it("drop thinking, and pass errors on", function()
            local out = stream({ start(), { type = "content_block_start", index = 0, content_block = { type = "thinking" } },
                { type = "content_block_delta", index = 0, delta = { type = "thinking_delta", thinking = "hm" } },
                { type = "error", error = { type = "overloaded_error", message = "Overloaded" } } })
            assert.equal(2, #out)
            assert.same({ type = "overloaded_error", message = "Overloaded" }, out[2].error)
        end)

        it("drop what is no event of Anthropic's", function()
            assert.same({}, p:stream(new_request(), { "data: not json", 'data: {"type":"new_thing"}' }))
        end)
    end)
end)
