local chat = require("claw.protocols.openai_chat")
local context = require("support.context")
local json = require("claw.json")
local rules = require("support.stream_rules")

local function write(overrides, ...)
    overrides = overrides or {}
    overrides.answering = true
    local cx = context.new(overrides)
    local list = rules.write(chat.writer(cx), { ... })
    local problem, said = rules.openai_chat(list)
    assert.is_nil(problem)
    return said, list, context.dropped(cx)
end

local START = { on = "start", id = "i", model = "m", created = 7, usage = { input = 5, output = 0 } }
local STOP, END = { on = "stop", stop = "end" }, { on = "end" }
local function part(index, p) return { on = "part", index = index, part = p } end
local function text(index, t) return { on = "text", index = index, text = t } end
local function over(index) return { on = "part_end", index = index } end

describe("openai_chat.writer", function()
    it("begins with the role and ends with [DONE]", function()
        local said, list = write(nil, START, part(0, { kind = "text" }), text(0, 'a "b"\n'), over(0), STOP, END)
        assert.equal('a "b"\n', said.text)
        assert.equal("stop", said.stop)
        assert.equal('{"id":"i","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"content":"a \\"b\\"\\n"},'
            .. '"logprobs":null,"finish_reason":null}]}', list[2].data)
        assert.equal("[DONE]", list[#list].data)
        assert.is_nil(said.usage)
    end)

    it("tells usage once, at the end, when it was asked for", function()
        local said, list = write({ wants_usage = true }, START, part(0, { kind = "text" }), text(0, "a"), over(0), STOP,
            { on = "usage", usage = { input = 9, output = 4, cached = 3, reasoning = 1 } }, END)
        assert.equal(13, said.usage.total_tokens)
        assert.equal(3, said.usage.prompt_tokens_details.cached_tokens)
        assert.equal(json.null, json.decode(list[1].data).usage)
    end)

    it("writes calls one after the other, each with arguments", function()
        local said = write(nil, START, part(0, { kind = "call", id = "c1", name = "f" }), { on = "input", index = 0, text = '{"a"' },
            { on = "input", index = 0, text = ":1}" }, over(0), part(1, { kind = "call", id = "c2", name = "g", signature = "G", origin = "gemini" }),
            over(1), { on = "stop", stop = "call" }, END)
        assert.same({ { id = "c1", name = "f", input = '{"a":1}' }, { id = "c2", name = "g", input = "{}", signature = "G" } }, said.calls)
        assert.equal("tool_calls", said.stop)
    end)

    it("writes function_call for who asked with functions", function()
        local cx = context.new({ answering = true, request = { legacy = true } })
        local list = rules.write(chat.writer(cx), { START, part(0, { kind = "call", id = "c", name = "f" }), { on = "input", index = 0, text = "{}" },
            over(0), part(1, { kind = "call", id = "d", name = "g" }), over(1), { on = "stop", stop = "call" }, END })
        local said = { name = "", arguments = "" }
        for i = 1, #list - 1 do
            local choice = json.decode(list[i].data).choices[1]
            local call = choice.delta.function_call or {}
            assert.is_nil(choice.delta.tool_calls)
            said.name, said.arguments = said.name .. (call.name or ""), said.arguments .. (call.arguments or "")
        end
        assert.same({ name = "f", arguments = "{}" }, said)
        assert.equal("function_call", json.decode(list[#list - 1].data).choices[1].finish_reason)
    end)

    it("gives the client what it must hand back of thinking", function()
        local said, list = write(nil, START, part(0, { kind = "thinking" }), text(0, "wh"), text(0, "y"),
            { on = "signature", index = 0, signature = "S", origin = "anthropic" }, over(0),
            part(1, { kind = "redacted", data = "R", origin = "anthropic" }), over(1), part(2, { kind = "text" }), text(2, "a"), over(2), STOP, END)
        assert.equal("why", said.thinking)
        assert.same({ "S" }, said.signatures)
        assert.same({ "R" }, said.redacted)
        assert.same({ { type = "reasoning.text", text = "why", signature = "S", format = "anthropic-claude-v1", index = 0 } },
            json.decode(list[4].data).choices[1].delta.reasoning_details)
    end)

    it("writes citations of the web where they stand, and drops others", function()
        local said, _, dropped = write(nil, START, part(0, { kind = "text" }), text(0, "äb"), over(0), part(1, { kind = "text" }),
            { on = "citation", index = 1, citation = { url = "https://u", title = "T" } }, { on = "citation", index = 1,
                citation = { text = "doc" } },
            text(1, "c"), over(1), STOP, END)
        assert.same({ { url = "https://u", title = "T", start_index = 2, end_index = 2 } }, said.annotations)
        assert.equal("citations", dropped)
    end)

    it("writes refusals, logprobs and choices", function()
        local said = write(nil, START, part(0, { kind = "refusal" }), text(0, "no"), over(0), { on = "stop", stop = "refusal" }, END)
        assert.equal("no", said.refusal)
        assert.equal("stop", said.stop)
        local _, list = write(nil, START, part(0, { kind = "text" }), text(0, "a"), { on = "logprobs", index = 0,
            logprobs = { content = json.array() } },
            { on = "part", index = 0, choice = 1, part = { kind = "text" } }, { on = "text", index = 0, choice = 1, text = "b" },
            { on = "part_end", index = 0, choice = 1 }, over(0), STOP, { on = "stop", stop = "length", choice = 1 }, END)
        assert.same({ content = {} }, json.decode(list[3].data).choices[1].logprobs)
        local problem, second = rules.openai_chat(list, 1)
        assert.is_nil(problem)
        assert.same({ "b", "length" }, { second.text, second.stop })
    end)

    it("ends with an error, and says no more", function()
        local said, list = write(nil, START, part(0, { kind = "text" }), text(0, "a"), { on = "error", err = { kind = "overloaded",
            message = "m", status = 529 } },
            text(0, "b"), END)
        assert.equal("m", said.error.message)
        assert.equal(3, #list)
        assert.equal(1, #select(2, write(nil, { on = "error", err = { kind = "server", message = "m", status = 500 } })))
    end)
end)
