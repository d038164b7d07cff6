-- What providers really sent: through each chat protocol and back.

local context = require("support.context")
local json = require("claw.json")
local meaning = require("support.meaning")
local protocols = require("claw.protocols")
local recorded = require("support.recorded")
local rules = require("support.stream_rules")
local samples = require("support.samples")

local NAMES = { "openai_chat", "anthropic_messages" }

local function protocol_of(case)
    if case.meta.api == "messages" or case.name:find("^vertex/claude") then return "anthropic_messages" end
    if case.meta.api == "chat" and not case.name:find("^cohere/") then return "openai_chat" end
end

local function other(name)
    return name == NAMES[1] and NAMES[2] or NAMES[1]
end

local function doc(t)
    return context.doc(json.encode(t))
end

-- Parts that the other protocol cannot say at all, by recording.
local UNSAID = { ["anthropic/citations"] = true, ["mistral/error-500"] = true,
    ["openai/chat-audio-input"] = true, ["mistral/error-422"] = true }

local function request_there_and_back(case, name)
    local own, far = protocols.get(name), protocols.get(other(name))
    local cx = context.new({ lossy = "allow", provider = { document_url = true } })
    local first = own.read_request(context.doc(case.request), cx)
    cx.model = first.model
    local same = own.read_request(doc(own.write_request(first, cx)), cx)
    local back = far.read_request(doc(far.write_request(first, cx)), cx)
    local again = own.read_request(doc(own.write_request(back, cx)), cx)
    return first, same, again
end

local function common(case, name)
    local want, same, again = request_there_and_back(case, name)
    local provider = { secrets = name == "anthropic_messages" }
    assert.same(meaning.request(want, provider), meaning.request(same, provider))
    assert.same(meaning.plain(want.rest), meaning.plain(same.rest))
    for _, field in ipairs({ "top_k", "seed", "n", "logprobs", "presence_penalty", "parallel", "verbosity", "service_tier" }) do
        local v = want[field]
        if field == "n" and v == 1 then v = nil end
        assert.equal(v, same[field])
    end
    if UNSAID[case.name] then return end
    local a, b = meaning.request(want), meaning.request(again)
    if name == "openai_chat" then
        if b.temperature and a.top_p == 1 then a.top_p = nil end
        b.max_tokens = a.max_tokens and b.max_tokens -- one is set where none was: Anthropic wants one
        a.format = a.format and a.format.kind == "schema" and a.format or nil -- no JSON mode there
    end
    assert.same(a, b)
end

local function answer_there_and_back(case, name)
    local own, far = protocols.get(name), protocols.get(other(name))
    local cx = context.new({ answering = true })
    local first = assert(own.read_answer(context.doc(case.json), cx))
    local same = assert(own.read_answer(doc(own.write_answer(first, cx)), cx))
    local back = assert(far.read_answer(doc(far.write_answer(first, cx)), cx))
    local again = assert(own.read_answer(doc(own.write_answer(back, cx)), cx))
    assert.same(meaning.answer(first, { secrets = true }), meaning.answer(same, { secrets = true }))
    assert.same(meaning.answer(first, { secrets = true }), meaning.answer(again, { secrets = true }))
    assert.equal(first.stop_text, same.stop_text)
end

local STOPS = {
    openai_chat = { ["end"] = "stop", stop_sequence = "stop", length = "length", call = "tool_calls", filter = "content_filter" },
    anthropic_messages = { ["end"] = "end_turn", stop_sequence = "stop_sequence", length = "max_tokens", call = "tool_use",
        filter = "refusal" },
}

local function text_of(gathered, kind)
    local out = {}
    for _, part in ipairs(gathered.parts) do
        if part.kind == kind then out[#out + 1] = part.text end
    end
    return table.concat(out)
end

local function stream(case, name)
    local read = rules.read(protocols.get(name).reader(context.new()), case.events)
    assert.is_nil(rules.events(read))
    local got = rules.gather(read)
    for _, to in ipairs(NAMES) do
        local cx = context.new({ answering = true, wants_usage = true })
        local written = rules.write(protocols.get(to).writer(cx), read)
        local problem, said = rules[to](written)
        assert.is_nil(problem)
        assert.equal(text_of(got, "text"), said.text)
        assert.equal(text_of(got, "thinking"), said.thinking)
        if got.err then
            assert.equal(got.err.message, said.error.message)
        else
            assert.equal(STOPS[to][got.stop], said.stop)
            local i = 0
            for _, part in ipairs(got.parts) do
                if part.kind == "call" then
                    i = i + 1
                    assert.equal(part.id, said.calls[i].id)
                    assert.equal(part.name, said.calls[i].name)
                    local empty = to == "openai_chat" and "{}" or ""
                    assert.equal(part.input == "" and empty or part.input, said.calls[i].input)
                end
            end
            assert.equal(i, #said.calls)
            -- Read again, it is the same stream.
            local again = rules.read(protocols.get(to).reader(context.new()), written)
            assert.is_nil(rules.events(again))
            local anew = rules.gather(again)
            assert.equal(text_of(got, "text"), text_of(anew, "text"))
            if got.usage then
                assert.equal(got.usage.input, anew.usage.input)
                assert.equal(got.usage.output, anew.usage.output)
                assert.equal(got.usage.cached or 0, anew.usage.cached or 0)
                assert.equal(got.usage.reasoning or 0, anew.usage.reasoning or 0)
            end
            local answer = { id = "x", model = "m", parts = got.parts, stop = got.stop, usage = got.usage }
            local plain = protocols.get(to).read_answer(doc(protocols.get(to).write_answer(answer, cx)), cx)
            assert.same(meaning.parts(plain.parts, {}), meaning.parts(anew.parts, {}))
        end
    end
end

local function check(cases)
    for _, case in ipairs(cases) do
        local name = protocol_of(case)
        if case.request then
            it(case.name .. ": the request", function() common(case, name) end)
        end
        if case.meta.status == 200 and case.json then
            it(case.name .. ": the answer", function() answer_there_and_back(case, name) end)
        end
        if case.events then
            it(case.name .. ": the stream", function() stream(case, name) end)
        end
        if case.meta.status ~= 200 then
            it(case.name .. ": the error", function()
                local err = protocols.get(name).read_error(case.meta.status, case.json or case.text, context.new())
                assert.equal(case.meta.status, err.status)
                assert.is_string(err.message)
                assert.is_string(err.kind)
                for _, to in ipairs(NAMES) do
                    local body = json.encode(protocols.get(to).write_error(err))
                    local again = protocols.get(to).read_error(err.status, body, context.new())
                    assert.equal(err.kind, again.kind)
                end
            end)
        end
    end
end

describe("made up traffic", function()
    check(samples.cases)
end)

describe("recorded traffic", function()
    if not recorded.folder then return pending(recorded.missing) end
    check(recorded.cases(protocol_of))
end)
