local context = require("support.context")
local json = require("claw.json")
local meaning = require("support.meaning")
local responses = require("claw.protocols.openai_responses")

local function read(body, cx)
    return responses.read_request(context.doc(body), cx or context.new())
end

local function text(t)
    return { kind = "text", text = t }
end

local function turn(role, ...)
    return { role = role, parts = { ... } }
end

local function write(request, cx)
    request.system, request.turns = request.system or {}, request.turns or { turn("user", text("Hi")) }
    return json.decode(json.encode((responses.write_request(request, cx or context.new()))))
end

describe("a request of Responses'", function()
    it("is a text, or items of all kinds", function()
        local r = read({ model = "m", input = "Hello", instructions = "Be brief." })
        assert.same({ { text("Be brief.") }, { turn("user", text("Hello")) }, "m" }, { r.system, r.turns, r.model })
        r = read({ input = { { role = "developer", content = "d" }, { role = "user", content = { { type = "input_text", text = "a" },
            { type = "input_image", image_url = "data:image/png;base64,AAAA", detail = "low" }, { type = "input_image", image_url = "https://x" },
            { type = "input_file", filename = "f.pdf", file_data = "data:application/pdf;base64,BBBB" }, { type = "input_file", file_id = "file-1" },
            { type = "input_file", file_url = "https://f" }, { type = "input_audio", input_audio = { data = "CC", format = "mp3" } } } },
            { type = "message", role = "assistant", content = { { type = "output_text", text = "t" }, { type = "refusal", refusal = "no" } } },
            { role = "system", content = "later" } } })
        assert.same({ text("d") }, r.system)
        assert.same({ text("a"), { kind = "image", data = "AAAA", media_type = "image/png", detail = "low" }, { kind = "image", url = "https://x" },
            { kind = "document", data = "BBBB", media_type = "application/pdf", title = "f.pdf" }, { kind = "document", file_id = "file-1",
                origin = "openai" },
            { kind = "document", url = "https://f" }, { kind = "audio", data = "CC", format = "mp3" } }, r.turns[1].parts)
        assert.same(turn("assistant", text("t"), { kind = "refusal", text = "no" }), r.turns[2])
        assert.same(turn("system", text("later")), r.turns[3])
    end)

    it("has calls, results and reasoning as parts", function()
        local r = read({ input = { { type = "reasoning", id = "rs_1", summary = { { type = "summary_text", text = "a" }, { type = "summary_text",
            text = "b" } }, encrypted_content = "E" },
            { type = "reasoning", id = "rs_2", summary = json.array(), encrypted_content = "F" }, { type = "reasoning", id = "rs_3",
                summary = json.array() },
            { type = "reasoning", summary = json.array(), encrypted_content = "gemini:S" }, { type = "reasoning", summary = json.array(),
                encrypted_content = "anthropic:redacted:R" },
            { type = "function_call", call_id = "c1", name = "f", arguments = '{"z":[],"a":12345678901234567890}' },
            { type = "function_call_output", call_id = "c1", output = "ok" },
            { type = "function_call_output", call_id = "c2", output = { { type = "input_text", text = "x" }, { type = "input_image",
                image_url = "https://i" } } } } })
        local parts = {}
        for i, t in ipairs(r.turns) do parts[i] = t.parts[1] end
        assert.same({ kind = "thinking", text = "a\n\nb", signature = "E", origin = "openai", id = "rs_1", summary = true }, parts[1])
        assert.same({ kind = "redacted", data = "F", origin = "openai", id = "rs_2" }, parts[2])
        assert.same({ kind = "thinking", text = "", signature = "S", origin = "gemini" }, parts[3])
        assert.same({ kind = "redacted", data = "R", origin = "anthropic" }, parts[4])
        assert.equal('{"z":[],"a":12345678901234567890}', tostring(parts[5].input))
        assert.same({ kind = "result", id = "c1", parts = { text("ok") } }, parts[6])
        assert.equal("image", parts[7].parts[2].kind)
    end)

    it("has settings under the vocabulary's names", function()
        local r = read({ input = "x", max_output_tokens = 9, temperature = 0.5, top_p = 0.25, top_logprobs = 2, parallel_tool_calls = false,
            store = false,
            include = { "reasoning.encrypted_content", "message.output_text.logprobs", "web_search_call.action.sources" }, service_tier = "flex",
                user = "u", safety_identifier = "s",
            reasoning = { effort = "high", summary = "auto" }, truncation = "disabled", prompt_cache_key = "k", metadata = { a = "b" },
                previous_response_id = json.null,
            text = { verbosity = "low", format = { type = "json_schema", name = "n", strict = true, schema = { type = "object" } } } })
        assert.same({ 9, 0.5, 0.25, 2, true, false, false, "flex", "us", "low" }, { r.max_tokens, r.temperature, r.top_p, r.top_logprobs, r.logprobs,
            r.parallel, r.store,
            r.service_tier, r.user .. r.safety_identifier, r.verbosity })
        assert.same({ effort = "high", show = true }, r.reasoning)
        assert.same({ kind = "schema", name = "n", strict = true, schema = { type = "object" } }, meaning.plain(r.format))
        assert.same({ prompt_cache_key = "k", include = { "web_search_call.action.sources" } }, r.rest)
    end)

    it("has tools, and which of them may be called", function()
        local tools = { { type = "function", name = "f", parameters = { type = "object" }, strict = true }, { type = "web_search_preview" },
            { type = "custom", name = "patch" } }
        local r = read({ input = "x", tools = tools, tool_choice = { type = "function", name = "f" } })
        assert.same({ mode = "tool", name = "f" }, r.tool_choice)
        assert.equal(true, r.tools[1].strict)
        assert.same({ "web_search", "openai_responses" }, { r.tools[2].kind, r.tools[2].origin })
        assert.is_true(r.tools[3].custom)
        assert.truthy(tostring(r.tools[3].schema):find('"input"', 1, true))
        r = read({ input = "x", tools = tools, tool_choice = { type = "allowed_tools", mode = "required", tools = { { type = "function",
            name = "f" } } } })
        assert.same({ { mode = "required" }, 1 }, { r.tool_choice, #r.tools })
        assert.has_error(function() read({ input = "x", tool_choice = { type = "web_search_preview" } }) end)
        assert.has_error(function() read({ input = "x", tools = { { type = "custom", name = "p", format = { type = "grammar" } } } }) end)
    end)

    it("is refused elsewhere for what is kept at OpenAI", function()
        local chat = require("claw.protocols.openai_chat")
        for _, body in ipairs({ { input = "x", previous_response_id = "resp_1" }, { input = "x", conversation = { id = "c" } },
            { input = { { type = "item_reference", id = "msg_1" } } },
            { input = { { role = "user", content = "x" }, { type = "web_search_call", id = "ws_1" } } } }) do
            local ok, raised = pcall(chat.write_request, read(body), context.new())
            assert.is_false(ok)
            assert.equal(400, raised.status)
            local same = write(read(body))
            assert.equal(body.previous_response_id, same.previous_response_id)
            assert.same(body.conversation, same.conversation)
        end
        for _, body in ipairs({ {}, { input = 5 }, { input = { 5 } }, json.array() }) do
            local ok, raised = pcall(read, json.encode(body))
            assert.is_false(ok)
            assert.equal(400, raised.status)
        end
    end)
end)

describe("a request for Responses", function()
    it("has items in order, and keeps nothing at OpenAI", function()
        local body = write({ system = { text("a"), text("b") }, stream = true, turns = { turn("user", text("q"), { kind = "image", data = "AA",
            media_type = "image/png" }),
            turn("assistant", { kind = "thinking", text = "t", signature = "E", origin = "openai", id = "rs_1" }, { kind = "thinking", text = "no",
                signature = "x", origin = "anthropic" },
                text("say"), { kind = "call", id = "c", name = "f", input = context.doc('{"b":1,"a":[]}') }, text("more")),
            turn("user", { kind = "result", id = "c", parts = { text("1"), text("2") } }, text("and")), turn("system", text("note")) } },
            context.new({ model = "gpt-5-mini" }))
        assert.same({ "gpt-5-mini", "a\n\nb", true, false, { "reasoning.encrypted_content" } }, { body.model, body.instructions, body.stream,
            body.store, body.include })
        assert.same({ { role = "user", content = { { type = "input_text", text = "q" }, { type = "input_image", detail = "auto",
            image_url = "data:image/png;base64,AA" } } },
            { type = "reasoning", id = "rs_1", summary = { { type = "summary_text", text = "t" } }, encrypted_content = "E" },
            { role = "assistant", content = { { type = "output_text", text = "say", annotations = {} } } },
            { type = "function_call", call_id = "c", name = "f", arguments = '{"b":1,"a":[]}' },
            { role = "assistant", content = { { type = "output_text", text = "more", annotations = {} } } },
            { type = "function_call_output", call_id = "c", output = "1\n2" }, { role = "user", content = { { type = "input_text", text = "and" } } },
            { role = "developer", content = { { type = "input_text", text = "note" } } } }, body.input)
    end)

    it("says tools, formats and reasoning in its own form", function()
        local schema = '{"type":"object",  "x":12345678901234567890}'
        local r = { system = {}, turns = { turn("user", text("x")) }, tools = { { name = "f", description = "d", schema = context.doc(schema) },
            { name = "g" },
            { server = context.doc('{"google":1}'), kind = "web_search", origin = "gemini" } }, tool_choice = { mode = "tool", name = "f" },
                max_tokens = 4,
            format = { kind = "schema", schema = context.doc(schema) }, verbosity = "low", reasoning = { budget = 5000, show = true } }
        local body = responses.write_request(r, context.new({ model = "o3" }))
        assert.equal(schema, tostring(body.tools[1].parameters))
        assert.is_false(body.tools[1].strict)
        assert.equal("web_search", body.tools[3].type)
        assert.same({ type = "function", name = "f" }, body.tool_choice)
        assert.equal(schema, tostring(body.text.format.schema))
        assert.same({ effort = "medium", summary = "auto" }, body.reasoning)
        assert.equal(16, body.max_output_tokens)
        local function effort(model, reasoning)
            local made = write({ reasoning = reasoning }, context.new({ model = model })).reasoning
            return made and made.effort
        end
        assert.equal("minimal", effort("gpt-5", { off = true }))
        assert.equal("none", effort("gpt-5.2", { off = true }))
        assert.equal("low", effort("o4-mini", { effort = "minimal" }))
        assert.equal("high", effort("o4-mini", { effort = "xhigh" }))
        assert.is_nil(effort("gpt-4o", { effort = "high" }))
        assert.is_nil(write({}, context.new({ model = "gpt-4o" })).include)
    end)

    it("gives a custom tool its text back", function()
        local own = { input = { { role = "user", content = "x" }, { type = "custom_tool_call", call_id = "c", name = "patch", input = "*** Begin" },
            { type = "custom_tool_call_output", call_id = "c", output = "done" } }, tools = { { type = "custom", name = "patch",
                description = "d" } }, tool_choice = { type = "custom", name = "patch" } }
        local r = read(own)
        assert.equal('{"input":"*** Begin"}', tostring(r.turns[2].parts[1].input))
        local body = write(r)
        assert.same({ own.input[2], own.input[3], own.tools, own.tool_choice }, { body.input[2], body.input[3], body.tools, body.tool_choice })
    end)

    it("does not drop in silence", function()
        local cx = context.new({ lossy = "allow", model = "gpt-4o" })
        write({ top_k = 4, seed = 1, presence_penalty = 0, frequency_penalty = 1, stop = { "x" }, n = 2, logit_bias = context.doc('{"1":2}'),
            service_tier = "standard_only",
            reasoning = { effort = "low" }, rest = { z = 1 }, turns = { { role = "user", name = "ann", parts = { { kind = "text", text = "x",
                cache = true },
                { kind = "result", id = "c", error = true, parts = {} } } } } }, cx)
        assert.equal("messages.name,cache_control,messages.content.is_error,reasoning,top_k,seed,frequency_penalty,stop,n,logit_bias,service_tier,"
            .. "z", context.dropped(cx))
        for _, part in ipairs({ { kind = "video", url = "u" }, { kind = "image", file_id = "f", origin = "anthropic" }, { kind = "server_call",
            raw = context.doc("{}"), origin = "gemini" } }) do
            assert.has_error(function() write({ turns = { turn("user", part) } }) end)
        end
    end)
end)
