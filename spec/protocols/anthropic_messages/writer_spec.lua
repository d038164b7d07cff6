local messages = require("claw.protocols.anthropic_messages")
local context = require("support.context")
local json = require("claw.json")
local rules = require("support.stream_rules")

local function write(...)
    local cx = context.new({ answering = true })
    local list = rules.write(messages.writer(cx), { ... })
    local problem, said = rules.anthropic_messages(list)
    assert.is_nil(problem)
    return said, list, context.dropped(cx)
end

local START = { on = "start", id = "i", model = "m", usage = { input = 5, output = 0 } }
local STOP, END = { on = "stop", stop = "end" }, { on = "end" }
local function part(index, p) return { on = "part", index = index, part = p } end
local function text(index, t) return { on = "text", index = index, text = t } end
local function input(index, t) return { on = "input", index = index, text = t } end
local function over(index) return { on = "part_end", index = index } end

local function types(list)
    local out = {}
    for i, e in ipairs(list) do out[i] = e.type:gsub("content_block", "block"):gsub("message_", "") end
    return table.concat(out, " ")
end

describe("anthropic_messages.writer", function()
    it("says its events in order, the stop with the usage last", function()
        local said, list = write(START, { on = "ping" }, part(0, { kind = "text" }), text(0, 'a "b"\n'), over(0), { on = "stop",
            stop = "stop_sequence", stop_text = "E" },
            { on = "usage", usage = { input = 9, output = 4, cached = 3 } }, END)
        assert.equal("start ping block_start block_delta block_stop delta stop", types(list))
        assert.equal('a "b"\n', said.text)
        assert.equal('{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a \\"b\\"\\n"}}', list[4].data)
        assert.same({ "stop_sequence", "E" }, { said.stop, said.stop_text })
        assert.same({ 6, 3, 4 }, { said.usage.input_tokens, said.usage.cache_read_input_tokens, said.usage.output_tokens })
        assert.equal(5, json.decode(list[1].data).message.usage.input_tokens)
    end)

    it("writes calls as they come", function()
        local said, list = write(START, part(0, { kind = "call", id = "c", name = "f" }), input(0, '{"a"'), input(0, ":1}"), over(0),
            part(1, { kind = "call", id = "d", name = "g" }), over(1), { on = "stop", stop = "call" }, END)
        assert.same({ { id = "c", name = "f", input = '{"a":1}' }, { id = "d", name = "g", input = "" } }, said.calls)
        assert.equal("tool_use", said.stop)
        assert.equal("start block_start block_delta block_delta block_stop block_start block_stop delta stop", types(list))
    end)

    it("makes parts that are open at once wait for each other", function()
        local said = write(START, part(0, { kind = "call", id = "c", name = "f" }), part(1, { kind = "call", id = "d", name = "g" }),
            input(1, '{"b"'),
            input(0, "{}"), part(2, { kind = "text" }), text(2, "t"), over(2), over(0), input(1, ":2}"), over(1), { on = "stop", stop = "call" }, END)
        assert.same({ { id = "c", name = "f", input = "{}" }, { id = "d", name = "g", input = '{"b":2}' } }, said.calls)
        assert.equal("t", said.text)
    end)

    it("writes thinking with its signature, another's with its name in front", function()
        local said, list = write(START, part(0, { kind = "thinking" }), text(0, "why"), { on = "signature", index = 0, signature = "S",
            origin = "anthropic" }, over(0),
            part(1, { kind = "thinking" }), text(1, "x"), { on = "signature", index = 1, signature = "G", origin = "gemini" }, over(1),
            part(2, { kind = "redacted", data = "E", origin = "openai" }), over(2), STOP, END)
        assert.equal("whyx", said.thinking)
        assert.same({ "S", "gemini:G" }, said.signatures)
        assert.same({ "openai:E" }, said.redacted)
        assert.equal("start block_start block_delta block_delta block_stop "
            .. "block_start block_delta block_delta block_stop block_start block_stop delta stop", types(list))
    end)

    it("carries a call's signature on an empty thinking block, which is read back", function()
        local said, list = write(START, part(0, { kind = "call", id = "c", name = "f", signature = "G", origin = "gemini" }), input(0, "{}"), over(0),
            { on = "stop", stop = "call" }, END)
        assert.same({ "gemini:G" }, said.signatures)
        assert.equal("start block_start block_delta block_stop block_start block_delta block_stop delta stop", types(list))
    end)

    it("writes citations, refusals as text, and drops what it has not", function()
        local said, _, dropped = write(START, part(0, { kind = "text" }), { on = "citation", index = 0, citation = { url = "https://u",
            title = "T", text = "c" } },
            { on = "citation", index = 0, citation = { text = "nowhere" } }, text(0, "a"), { on = "logprobs", index = 0, logprobs = {} }, over(0),
            part(1, { kind = "refusal" }), text(1, "no"), over(1), part(2, { kind = "audio", data = "A" }), over(2), { on = "stop",
                stop = "refusal" }, END)
        assert.equal("https://u", said.annotations[1].url)
        assert.equal("ano", said.text)
        assert.equal("refusal", said.stop)
        assert.equal("citations,logprobs,content.audio", dropped)
    end)

    it("keeps its own blocks whole", function()
        local _, list = write(START, part(0, { kind = "server_call", origin = "anthropic",
            raw = context.doc('{"type":"server_tool_use","id":"s","input":{"q":1}}') }),
            over(0), STOP, END)
        assert.truthy(list[2].data:find('{"type":"server_tool_use","id":"s","input":{"q":1}}', 1, true))
    end)

    it("leaves out other choices", function()
        local said = write(START, part(0, { kind = "text" }), { on = "part", index = 0, choice = 1, part = { kind = "text" } },
            { on = "text", index = 0, choice = 1, text = "b" }, text(0, "a"), over(0), STOP, { on = "stop", stop = "end", choice = 1 }, END)
        assert.equal("a", said.text)
    end)

    it("ends with an error, and says no more", function()
        local said, list = write(START, part(0, { kind = "text" }), { on = "error", err = { kind = "overloaded", message = "m",
            status = 529 } }, text(0, "b"), END)
        assert.equal("overloaded_error", said.error.type)
        assert.equal(3, #list)
        assert.equal(1, #select(2, write({ on = "error", err = { kind = "server", message = "m", status = 500 } })))
    end)

    it("begins by itself when nobody did", function()
        assert.equal("a", write(part(0, { kind = "text" }), text(0, "a"), over(0), STOP, END).text)
    end)
end)
