local context = require("support.context")
local json = require("claw.json")
local responses = require("claw.protocols.openai_responses")
local rules = require("support.stream_rules")
local streams = require("support.dialect_streams")

local function read(...)
    local events = {}
    for i, data in ipairs({ ... }) do
        events[i] = { type = type(data) == "table" and data.type or nil, data = type(data) == "table" and json.encode(data) or data }
    end
    local out = rules.read(responses.reader(context.new({ answering = true })), events)
    assert.is_nil(rules.events(out))
    return out
end

local function kinds(events)
    local out = {}
    for i, e in ipairs(events) do out[i] = e.on .. (e.on == "part" and ":" .. e.part.kind or "") end
    return table.concat(out, " ")
end

local CREATED = { type = "response.created", response = { id = "resp_1", model = "m", created_at = 5, status = "in_progress",
    output = json.array() } }

local function done(more)
    local response = { id = "resp_1", status = "completed", output = json.array(), usage = { input_tokens = 3, output_tokens = 2 } }
    for key, v in pairs(more or {}) do response[key] = v end
    return { type = "response." .. response.status, response = response }
end

describe("a stream of Responses'", function()
    it("has a part for each content, reasoning and call", function()
        local out = read(CREATED, { type = "response.output_item.added", output_index = 0, item = { type = "reasoning", id = "rs_1",
            summary = json.array() } },
            { type = "response.reasoning_summary_part.added", output_index = 0, summary_index = 0, part = { type = "summary_text", text = "" } },
            { type = "response.reasoning_summary_text.delta", output_index = 0, summary_index = 0, item_id = "rs_1", delta = "a" },
            { type = "response.reasoning_summary_text.delta", output_index = 0, summary_index = 1, item_id = "rs_1", delta = "b" },
            { type = "response.output_item.done", output_index = 0, item = { type = "reasoning", id = "rs_1", summary = { { text = "a" },
                { text = "b" } }, encrypted_content = "E" } },
            { type = "response.output_item.added", output_index = 1, item = { type = "message", id = "msg_1", content = json.array() } },
            { type = "response.content_part.added", output_index = 1, content_index = 0, part = { type = "output_text", text = "" } },
            { type = "response.output_text.delta", output_index = 1, content_index = 0, delta = "x", logprobs = { { token = "x", logprob = -1 } } },
            { type = "response.output_text.annotation.added", output_index = 1, content_index = 0, annotation = { type = "url_citation",
                url = "u" } },
            { type = "response.content_part.done", output_index = 1, content_index = 0, part = { type = "output_text", text = "x",
                annotations = { { type = "url_citation", url = "u" } } } },
            { type = "response.output_item.done", output_index = 1, item = { type = "message", content = { { type = "output_text", text = "x" } } } },
            { type = "response.output_item.added", output_index = 2, item = { type = "function_call", call_id = "c", name = "f", arguments = "" } },
            { type = "response.function_call_arguments.delta", output_index = 2, delta = '{"a"' },
                { type = "response.function_call_arguments.delta", output_index = 2, delta = ":1}" },
            { type = "response.output_item.done", output_index = 2, item = { type = "function_call", call_id = "c", name = "f",
                arguments = '{"a":1}' } }, done())
        assert.equal("start part:thinking text text signature part_end part:text text logprobs citation part_end part:"
            .. "call input input part_end usage stop end", kinds(out))
        local got = rules.gather(out)
        assert.same({ "a\n\nb", "E", "openai", "rs_1" }, { got.parts[1].text, got.parts[1].signature, got.parts[1].origin, got.parts[1].id })
        assert.same({ id = "c", name = "f", kind = "call", input = '{"a":1}' }, got.parts[3])
        assert.equal("call", got.stop)
    end)

    it("takes from the end what did not come in pieces", function()
        local out = read(CREATED, { type = "response.output_item.done", output_index = 0, item = { type = "reasoning", id = "rs_1",
            summary = json.array(), encrypted_content = "E" } },
            { type = "response.output_item.done", output_index = 1, item = { type = "web_search_call", id = "ws_1" } },
            { type = "response.output_item.done", output_index = 2, item = { type = "message", content = { { type = "output_text", text = "x" },
                { type = "refusal", refusal = "no" } } } },
            { type = "response.output_item.done", output_index = 3, item = { type = "custom_tool_call", call_id = "c", name = "p",
                input = "*** y" } },
            done({ status = "incomplete", incomplete_details = { reason = "max_output_tokens" } }))
        assert.equal("start part:redacted part_end part:server_call part_end part:text text part_end part:refusal text part_end part:"
            .. "call input part_end usage stop end", kinds(out))
        local got = rules.gather(out)
        assert.equal('{"input":"*** y"}', got.parts[5].input)
        assert.equal("length", got.stop)
        out = read(done({ output = { { type = "message", content = { { type = "output_text", text = "all" } } } } }))
        assert.equal("all", rules.gather(out).parts[1].text)
    end)

    it("fails when it is cut, fails, or is none", function()
        assert.equal("error", kinds(read()))
        assert.equal("start error", kinds(read(CREATED)))
        assert.equal("error", kinds(read("<html>")))
        local out = read(CREATED, { type = "error", error = { type = "server_error", code = "server_error", message = "sorry" } },
            { type = "response.failed", response = { status = "failed" } })
        assert.equal("start error", kinds(out))
        assert.same({ "sorry", "server", 500 }, { out[2].err.message, out[2].err.kind, out[2].err.status })
        out = read(CREATED, { type = "response.failed", response = { status = "failed", error = { code = "rate_limit_exceeded",
            message = "slow" } } })
        assert.equal("rate_limit", out[2].err.kind)
        out = read({ type = "error", code = "context_length_exceeded", message = "too long" })
        assert.equal("context_window", out[1].err.kind)
        assert.equal("start part:text text part_end usage stop end", kinds(read(CREATED, { type = "response.new_thing" },
            { type = "response.output_text.delta", delta = "x" }, done(), "[DONE]")))
    end)
end)

local function written(events, more)
    local spec = { answering = true }
    for key, v in pairs(more or {}) do spec[key] = v end
    local cx = context.new(spec)
    local list = rules.write(responses.writer(cx), events)
    local problem, said = streams.openai_responses(list)
    assert.is_nil(problem)
    return said, list, cx
end

local function types(list)
    local out = {}
    for i, e in ipairs(list) do out[i] = e.type:gsub("^response%.", "") end
    return out
end

describe("a stream for a client of Responses'", function()
    it("keeps to the order of its events", function()
        local said, list = written({ { on = "start", id = "x", model = "m", created = 5 }, { on = "ping" },
            { on = "part", index = 0, part = { kind = "thinking" } }, { on = "text", index = 0, text = "hm" }, { on = "signature", index = 0,
                signature = "S", origin = "anthropic" },
            { on = "part_end", index = 0 }, { on = "part", index = 1, part = { kind = "text" } }, { on = "text", index = 1, text = "a" },
            { on = "citation", index = 1, citation = { url = "u", start = 0, finish = 1 } }, { on = "part_end", index = 1 },
            { on = "part", index = 2, part = { kind = "text" } }, { on = "text", index = 2, text = "b" }, { on = "part_end", index = 2 },
            { on = "part", index = 3, part = { kind = "call", id = "c", name = "f" } }, { on = "input", index = 3, text = '{"a":' }, { on = "input",
                index = 3, text = "1}" },
            { on = "part_end", index = 3 }, { on = "stop", stop = "call" }, { on = "usage", usage = { input = 3, output = 2, reasoning = 1 } },
                { on = "end" } })
        assert.same({ "created", "in_progress", "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done", "output_item.done", "output_item.added", "content_part.added", "output_text.delta",
                "output_text.annotation.added", "output_text.done",
            "content_part.done", "content_part.added", "output_text.delta", "output_text.done", "content_part.done", "output_item.done",
                "output_item.added",
            "function_call_arguments.delta", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done", "completed" },
                types(list))
        assert.same({ "ab", "hm", "completed" }, { said.text, said.thinking, said.status })
        assert.same({ { id = "c", name = "f", input = '{"a":1}' } }, said.calls)
        assert.same({ "anthropic:S" }, said.signatures)
        assert.equal("resp_x", said.response.id)
        assert.same({ 3, 2, 1 }, { said.usage.input_tokens, said.usage.output_tokens, said.usage.output_tokens_details.reasoning_tokens })
        assert.equal(2, #said.response.output[2].content)
    end)

    it("bears parts that are open together, redacted thinking, refusals and custom calls", function()
        local request = { system = {}, turns = {}, tools = { { name = "p", custom = true } } }
        local said, list = written({ { on = "start" }, { on = "part", index = 0, part = { kind = "redacted", data = "R", origin = "anthropic" } },
            { on = "part_end", index = 0 },
            { on = "part", index = 1, part = { kind = "text" } }, { on = "text", index = 1, text = "a" },
            { on = "part", index = 2, part = { kind = "call", id = "c", name = "f", signature = "G", origin = "gemini" } },
            { on = "part", index = 3, part = { kind = "call", id = "d", name = "p" } }, { on = "input", index = 3, text = '{"input":"*** z"}' },
            { on = "text", index = 1, text = "b" }, { on = "input", index = 2, text = "{}" }, { on = "part_end", index = 2 }, { on = "part_end",
                index = 3 },
            { on = "part_end", index = 1 }, { on = "part", index = 4, part = { kind = "refusal" } }, { on = "text", index = 4, text = "no" },
                { on = "part_end", index = 4 },
            { on = "stop", stop = "refusal" }, { on = "end" } }, { request = request })
        assert.same({ "ab", "no" }, { said.text, said.refusal })
        local output = said.response.output
        assert.same({ "anthropic:redacted:R", "gemini:G" }, said.signatures)
        assert.same({ "custom_tool_call", "*** z" }, { output[5].type, output[5].input })
        assert.equal(#list - 1, json.decode(list[#list].data).sequence_number)
    end)

    it("says why it is not complete", function()
        local open = { { on = "start" }, { on = "part", index = 0, part = { kind = "text" } }, { on = "text", index = 0, text = "a" },
            { on = "part_end", index = 0 } }
        local function ended(stop)
            local events = { unpack(open) }
            events[#events + 1] = { on = "stop", stop = stop }
            events[#events + 1] = { on = "end" }
            return written(events).response
        end
        assert.same({ "incomplete", "max_output_tokens", "incomplete" }, { ended("length").status, ended("length").incomplete_details.reason,
            ended("length").output[1].status })
        assert.equal("content_filter", ended("filter").incomplete_details.reason)
        assert.equal("failed", ended("error").status)
        local events = { unpack(open) }
        events[#events + 1] = { on = "error", err = { status = 529, kind = "overloaded", message = "busy" } }
        local said, list = written(events)
        assert.same({ "busy", "failed", "error", "response.failed" }, { said.error.message, said.status, list[#list - 1].type, list[#list].type })
    end)

    it("numbers an error that stands for the writer's next event", function()
        local _, list, cx = written({ { on = "start" }, { on = "stop", stop = "end" }, { on = "end" } })
        assert.equal(#list, json.decode(responses.write_error_event({ kind = "server", message = "m" }, cx).data).sequence_number)
    end)
end)
