local chat = require("claw.protocols.openai_chat")
local context = require("support.context")
local json = require("claw.json")
local recorded = require("support.recorded")
local rules = require("support.stream_rules")

-- A chunk with a choice; fields of the chunk in `more`.
local function chunk(delta, finish, more, index)
    local t = { id = "x", object = "chat.completion.chunk", created = 5, model = "m",
        choices = { { index = index or 0, delta = delta, finish_reason = finish or json.null } } }
    for key, v in pairs(more or {}) do t[key] = v end
    return { data = json.encode(t) }
end
local DONE = { data = "[DONE]" }

local function read(...)
    local events = rules.read(chat.reader(context.new()), { ... })
    assert.is_nil(rules.events(events))
    return rules.gather(events), events
end

local function call(index, id, name, arguments)
    return { index = index, id = id, type = id and "function", ["function"] = { name = name, arguments = arguments } }
end

local function names(events)
    local out = {}
    for i, e in ipairs(events) do out[i] = e.on end
    return table.concat(out, " ")
end

describe("openai_chat.reader", function()
    it("gives events as their meaning is known", function()
        local got, events = read(chunk({ role = "assistant", content = "" }), chunk({ content = "a" }), chunk({ content = "b" }), chunk({},
            "stop"), DONE)
        assert.equal("start part text text part_end stop end", names(events))
        assert.same({ id = "x", model = "m", created = 5, on = "start" }, events[1])
        assert.same({ { kind = "text", text = "ab" } }, got.parts)
        assert.equal("end", got.stop)
    end)

    it("passes a call's arguments on as they come", function()
        local _, events = read(chunk({ tool_calls = { call(0, "c", "f", "") } }), chunk({ tool_calls = { call(0, nil, nil, '{"a"') } }),
            chunk({ tool_calls = { call(0, nil, nil, ":1}") } }), chunk({}, "tool_calls"), DONE)
        assert.equal("start part input input part_end stop end", names(events))
        assert.same({ kind = "call", id = "c", name = "f" }, events[2].part)
        assert.equal('{"a"', events[3].text)
    end)

    it("follows reasoning by text by calls, in every spelling", function()
        local got = read(chunk({ reasoning_content = "a" }), chunk({ reasoning = "b", reasoning_details = { { type = "reasoning.text",
            text = "b" } } }),
            chunk({ reasoning_details = { { type = "reasoning.text", text = "c", signature = "S", format = "anthropic-claude-v1" } } }),
            chunk({ reasoning_details = { { type = "reasoning.encrypted", data = "E", format = "openai-responses-v1", id = "i" } } }),
            chunk({ content = { { type = "thinking", thinking = { { type = "text", text = "d" } } }, { type = "text", text = "t" } } }),
            chunk({ refusal = "no" }), chunk({}, "stop"), DONE)
        assert.same({ { kind = "thinking", text = "abc", signature = "S", origin = "anthropic" },
            { kind = "redacted", data = "E", origin = "openai", id = "i" }, { kind = "thinking", text = "d" }, { kind = "text", text = "t" },
            { kind = "refusal", text = "no" } }, got.parts)
        assert.equal("refusal", got.stop)
    end)

    it("bears calls without index, without id, with the id again, and whole ones", function()
        local whole = read(chunk({ tool_calls = { { id = "c1", ["function"] = { name = "f", arguments = "{}" } },
            { id = "c2", ["function"] = { name = "g", arguments = { a = 1 } } } } }, "tool_calls"), DONE)
        assert.same({ { kind = "call", id = "c1", name = "f", input = "{}" }, { kind = "call", id = "c2", name = "g",
            input = '{"a":1}' } }, whole.parts)
        local gemini = read(chunk({ tool_calls = { call(0, "c1", "f", "{}") } }), chunk({ tool_calls = { call(0, "c2", "g", "{}") } }, "stop"), DONE)
        assert.same({ "f", "g" }, { gemini.parts[1].name, gemini.parts[2].name })
        assert.equal("call", gemini.stop)
        local again = read(chunk({ tool_calls = { call(0, "c1", "f", "{") } }), chunk({ tool_calls = { call(0, "c1", "f", "}") } }),
            chunk({ tool_calls = { { ["function"] = { arguments = " " } } } }, "tool_calls"), DONE)
        assert.same({ { kind = "call", id = "c1", name = "f", input = "{} " } }, again.parts)
        local none = read(chunk({ tool_calls = { call(0, nil, "f", "{}") } }, "tool_calls"), DONE)
        assert.truthy(none.parts[1].id:find("^call_%w+$"))
        local late = read(chunk({ tool_calls = { call(0, "c1", nil, "{") } }), chunk({ tool_calls = { call(0, nil, "f", "}") } }),
            chunk({}, "tool_calls"), DONE)
        assert.same({ { kind = "call", id = "c1", name = "f", input = "{}" } }, late.parts)
    end)

    it("puts calls that interleave one after the other", function()
        local got, events = read(chunk({ tool_calls = { call(0, "c1", "f", ""), call(1, "c2", "g", "") } }),
            chunk({ tool_calls = { call(0, nil, nil, '{"a":') } }), chunk({ tool_calls = { call(1, nil, nil, '{"b":') } }),
            chunk({ tool_calls = { call(0, nil, nil, "1}") } }), chunk({ tool_calls = { call(1, nil, nil, "2}") } }), chunk({}, "tool_calls"), DONE)
        assert.same({ '{"a":1}', '{"b":2}' }, { got.parts[1].input, got.parts[2].input })
        assert.equal("start part input input part_end part input part_end stop end", names(events))
    end)

    it("reads usage wherever it is", function()
        local usage = { prompt_tokens = 3, completion_tokens = 2, total_tokens = 5 }
        local last = { data = json.encode({ id = "x", choices = json.array(), usage = usage }) }
        assert.equal(3, read(chunk({ content = "a" }, "stop"), last, DONE).usage.input)
        assert.equal(3, read(chunk({ content = "a" }, "stop", { usage = usage }), DONE).usage.input)
        assert.equal(3, read(chunk({ content = "a" }, "stop", { x_groq = { usage = usage } }), DONE).usage.input)
        assert.is_nil(read(chunk({ content = "a" }, "stop", { usage = json.null }), DONE).usage)
    end)

    it("takes null, \"\" and \"null\" for no finish", function()
        for _, finish in ipairs({ "", "null" }) do
            assert.equal("ab", read(chunk({ content = "a" }, finish), chunk({ content = "b" }, finish), chunk({}, "stop"), DONE).parts[1].text)
        end
    end)

    it("ends at [DONE], or with the upstream when it had stopped; else the stream was cut", function()
        assert.equal("end", read(chunk({ content = "a" }), DONE).stop)
        assert.is_nil(read(chunk({ content = "a" }, "stop")).err)
        assert.equal("server", read(chunk({ content = "a" })).err.kind)
        assert.equal("server", read().err.kind)
        assert.equal("server", read(DONE).err.kind)
    end)

    it("tells of errors inside the stream, and then no more", function()
        local got, events = read(chunk({ content = "a" }), { data = '{"error":{"message":"m","type":"overloaded_error"}}' },
            chunk({ content = "b" }), DONE)
        assert.equal("overloaded", got.err.kind)
        assert.equal("error", events[#events].on)
        assert.equal("m", read({ type = "error", data = '{"error":{"message":"m","code":"tool_use_failed","status_code":400}}' }).err.message)
        assert.equal(400, read(chunk({}, nil, { error = { code = 400, message = "limit" } })).err.status)
        assert.equal("m", read({ data = '{"object":"error","message":"m","code":500}' }).err.message)
        assert.equal("server", read({ data = "oops" }).err.kind)
    end)

    it("numbers choices and their parts", function()
        local _, events = read(chunk({ content = "a" }), chunk({ content = "b" }, nil, nil, 1), chunk({}, "stop"), chunk({}, "length", nil, 1), DONE)
        assert.equal("b", rules.gather(events, 1).parts[1].text)
        assert.equal("length", rules.gather(events, 1).stop)
        assert.equal("a", rules.gather(events, 0).parts[1].text)
    end)

    it("gives logprobs, citations and a call's signature", function()
        local logprobs = { content = { { token = "a", logprob = -1, bytes = json.array(), top_logprobs = json.array() } } }
        local with = json.decode(chunk({ content = "a" }).data)
        with.choices[1].logprobs = logprobs
        local _, events = read({ data = json.encode(with) }, chunk({ annotations = { { type = "url_citation",
            url_citation = { url = "https://u", title = "T", start_index = 0, end_index = 1 } } } }),
            chunk({ tool_calls = { { index = 0, id = "c", ["function"] = { name = "f", arguments = "{}" },
                extra_content = { google = { thought_signature = "G" } } } } }, "tool_calls"), DONE)
        assert.equal("start part text logprobs citation part_end part input part_end stop end", names(events))
        assert.same(logprobs, events[4].logprobs)
        assert.equal("https://u", events[5].citation.url)
        assert.equal("G", events[7].part.signature)
    end)

    it("gives Perplexity's sources with the last text", function()
        local got = read(chunk({ content = "a" }, nil, { citations = { "https://u" } }), chunk({ content = "" }, "stop",
            { citations = { "https://u" } }), DONE)
        assert.same({ { url = "https://u" } }, got.parts[1].citations)
    end)

    describe("over recordings", function()
        if not recorded.folder then return pending(recorded.missing) end
        local cases = recorded.cases(function(c) return c.events and c.meta.api == "chat" and c.meta.provider ~= "cohere" end)
        it("gives the same whether chunks are decoded or known by what is around their text", function()
            for _, case in ipairs(cases) do
                local spaced = {}
                for i, e in ipairs(case.events) do -- the mould knows no such spelling
                    spaced[i] = { data = (e.data:gsub('"delta":', '"delta" :')) }
                end
                assert.same(rules.read(chat.reader(context.new()), spaced), rules.read(chat.reader(context.new()), case.events))
            end
        end)
    end)
end)
