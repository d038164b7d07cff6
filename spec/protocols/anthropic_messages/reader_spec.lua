local messages = require("claw.protocols.anthropic_messages")
local context = require("support.context")
local json = require("claw.json")
local plain = require("support.meaning").plain
local recorded = require("support.recorded")
local rules = require("support.stream_rules")

local function ev(t) return { type = t.type, data = json.encode(t) } end
local function start(index, block) return ev({ type = "content_block_start", index = index, content_block = block }) end
local function delta(index, kind, field, v) return ev({ type = "content_block_delta", index = index, delta = { type = kind, [field] = v } }) end
local function stop(index) return ev({ type = "content_block_stop", index = index }) end
local START = ev({ type = "message_start", message = { id = "i", model = "m", usage = { input_tokens = 5, cache_read_input_tokens = 2,
    output_tokens = 1 } } })
local END = ev({ type = "message_stop" })
local function done(reason, more)
    return ev({ type = "message_delta", delta = { stop_reason = reason, stop_sequence = more }, usage = { output_tokens = 9 } })
end

local function read(...)
    local events = rules.read(messages.reader(context.new()), { ... })
    assert.is_nil(rules.events(events))
    return rules.gather(events), events
end

local function names(events)
    local out = {}
    for i, e in ipairs(events) do out[i] = e.on end
    return table.concat(out, " ")
end

describe("anthropic_messages.reader", function()
    it("gives events as their meaning is known", function()
        local got, events = read(START, start(0, { type = "text", text = "" }), { type = "ping", data = '{"type": "ping"}' },
            delta(0, "text_delta", "text", "a"), delta(0, "text_delta", "text", 'b"\n'), stop(0), done("stop_sequence", "END"), END)
        assert.equal("start part ping text text part_end usage stop end", names(events))
        assert.same({ on = "start", id = "i", model = "m", created = 1700000000, usage = { input = 7, cached = 2, output = 1 } }, events[1])
        assert.equal('ab"\n', got.parts[1].text)
        assert.same({ "stop_sequence", "END" }, { got.stop, got.stop_text })
        assert.same({ input = 7, cached = 2, output = 9 }, got.usage)
    end)

    it("passes a call's input on as it comes", function()
        local got, events = read(START, start(0, { type = "tool_use", id = "c", name = "f", input = {} }), delta(0, "input_json_delta",
            "partial_json", ""),
            delta(0, "input_json_delta", "partial_json", '{"a"'), delta(0, "input_json_delta", "partial_json", ":1}"), stop(0), done("tool_use"), END)
        assert.equal("start part input input part_end usage stop end", names(events))
        assert.equal('{"a":1}', got.parts[1].input)
        assert.equal("call", got.stop)
        got = read(START, start(0, { type = "tool_use", id = "c", name = "f", input = { a = 1 } }), stop(0), done("tool_use"), END)
        assert.equal('{"a":1}', got.parts[1].input)
    end)

    it("reads thinking, its signature, and what is redacted", function()
        local got = read(START, start(0, { type = "thinking", thinking = "", signature = "" }), delta(0, "thinking_delta", "thinking", "why"),
            delta(0, "signature_delta", "signature", "S"), stop(0), start(1, { type = "redacted_thinking", data = "R" }), stop(1),
                done("end_turn"), END)
        assert.same({ { kind = "thinking", text = "why", signature = "S", origin = "anthropic" }, { kind = "redacted", data = "R",
            origin = "anthropic" } },
            got.parts)
    end)

    it("keeps its own tools' blocks until they are whole", function()
        local got, events = read(START, start(0, { type = "server_tool_use", id = "s", name = "web_search", input = {} }),
            delta(0, "input_json_delta", "partial_json", '{"q":'), delta(0, "input_json_delta", "partial_json", '"x"}'), stop(0),
            start(1, { type = "web_search_tool_result", tool_use_id = "s", content = json.array() }), stop(1),
            start(2, { type = "text", text = "" }), ev({ type = "content_block_delta", index = 2, delta = { type = "citations_delta",
                citation = { type = "web_search_result_location", url = "https://u", title = "T", cited_text = "c" } } }),
            delta(2, "text_delta", "text", "t"), stop(2), done("pause_turn"), END)
        assert.equal("start part part_end part part_end part citation text part_end usage stop end", names(events))
        assert.same({ id = "s", input = { q = "x" }, name = "web_search", type = "server_tool_use" }, plain(got.parts[1].raw))
        assert.equal("server_result", got.parts[2].kind)
        assert.equal("https://u", got.parts[3].citations[1].url)
        assert.equal("pause", got.stop)
    end)

    it("ends at message_stop, or with the upstream when it had stopped; else the stream was cut", function()
        assert.is_nil(read(START, done("end_turn")).err)
        assert.equal("end", read(START, END).stop)
        assert.equal("server", read(START, start(0, { type = "text", text = "" })).err.kind)
        assert.equal("server", read().err.kind)
        assert.equal("server", read(END).err.kind)
    end)

    it("tells of errors inside the stream, and then no more", function()
        local got, events = read(START, ev({ type = "error", error = { type = "overloaded_error", message = "Overloaded" } }), done("end_turn"), END)
        assert.same({ "overloaded", 529, "Overloaded" }, { got.err.kind, got.err.status, got.err.message })
        assert.equal(2, #events)
        assert.equal("server", read({ data = "oops" }).err.kind)
        assert.equal("m", read({ data = '{"error":{"message":"m"}}' }).err.message)
    end)

    it("bears what is unknown, out of order, or of another type", function()
        local got = read(start(0, { type = "text", text = "a" }), ev({ type = "vector_clock" }), delta(7, "text_delta", "text", "x"),
            delta(0, "input_json_delta", "partial_json", "{"), delta(0, "mood_delta", "mood", "x"), { data = "[]" }, stop(9),
            start(1, { type = "tool_use", name = 5 }), ev({ type = "content_block_delta", index = 1, delta = "x" }), done("tired"), END)
        assert.equal("a", got.parts[1].text)
        assert.equal("", got.parts[2].name)
        assert.equal("end", got.stop)
    end)

    describe("over recordings", function()
        if not recorded.folder then return pending(recorded.missing) end
        it("gives the same whether text is decoded or known by what is around it", function()
            for _, case in ipairs(recorded.cases(function(c) return c.events and c.meta.api == "messages" end)) do
                local spaced = {}
                for i, e in ipairs(case.events) do spaced[i] = { type = e.type, data = " " .. e.data } end
                assert.same(rules.read(messages.reader(context.new()), spaced), rules.read(messages.reader(context.new()), case.events))
            end
        end)
    end)
end)
