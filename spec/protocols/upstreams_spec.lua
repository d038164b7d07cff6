-- What Cohere, Ollama and Bedrock really sent, for clients of every chat protocol; what these say, for the three; and
-- all of it broken.

local context = require("support.context")
local json = require("claw.json")
local mutate = require("support.mutate")
local protocols = require("claw.protocols")
local recorded = require("support.recorded")
local rules = require("support.stream_rules")
local samples = require("support.samples")
local streams = require("support.dialect_streams")

local CLIENTS = { "openai_chat", "anthropic_messages", "gemini", "openai_responses", "ollama_chat" }
local UPSTREAMS = { "cohere_chat", "ollama_chat", "bedrock_converse" }
local MODEL = { cohere_chat = "command-a-reasoning-08-2025", ollama_chat = "gpt-oss:20b",
    bedrock_converse = "us.anthropic.claude-sonnet-4-5-20250929-v1:0" }
local ROUNDS = tonumber(os.getenv("CLAW_MUTATIONS")) or 12 -- of each recording
local LONG = 60000 -- bytes

local API = { ["chat-v2"] = "cohere_chat", ["api-chat"] = "ollama_chat", converse = "bedrock_converse",
    ["converse-stream"] = "bedrock_converse" }

local function upstream_of(case) return API[case.meta.api] end

local function client_of(case)
    if case.meta.api == "messages" or case.name:find("^vertex/claude") then return "anthropic_messages" end
    if case.meta.api:find("enerateContent$") then return "gemini" end
    if case.meta.api == "responses" then return "openai_responses" end
    if case.meta.api == "chat" then return "openai_chat" end
end

local function answering(case)
    return context.new({ answering = true, wants_usage = true, model = case.meta.model })
end

local function doc(t) return context.doc(json.encode(t)) end

local function text_of(parts, kind)
    local out = {}
    for _, part in ipairs(parts) do
        if part.kind == kind then out[#out + 1] = part.text end
    end
    return table.concat(out)
end

local function calls_of(parts)
    local out = {}
    for _, part in ipairs(parts) do
        if part.kind == "call" then
            out[#out + 1] = { name = part.name, input = json.decode(tostring(part.input)) }
        end
    end
    return out
end

local function answer(case, own)
    local cx = answering(case)
    local a = assert(protocols.get(own).read_answer(context.doc(case.json), cx))
    assert.truthy(a.parts[1])
    assert.truthy(a.usage.input > 0 and a.usage.output > 0)
    for _, to in ipairs(CLIENTS) do
        local back = assert(protocols.get(to).read_answer(doc(protocols.get(to).write_answer(a, cx)), cx))
        assert.equal(text_of(a.parts, "text"), text_of(back.parts, "text"), to)
        assert.equal(text_of(a.parts, "thinking"), text_of(back.parts, "thinking"), to)
        assert.same(calls_of(a.parts), calls_of(back.parts), to)
        assert.equal(a.usage.input, back.usage.input, to)
        assert.equal(a.usage.output, back.usage.output, to)
    end
end

local function stream(case, own)
    local read = rules.read(protocols.get(own).reader(answering(case)), case.events)
    assert.is_nil(rules.events(read))
    local got = rules.gather(read)
    assert.is_nil(got.err)
    assert.truthy(got.parts[1] and got.stop and got.usage.output > 0)
    for _, to in ipairs(CLIENTS) do
        local written = rules.write(protocols.get(to).writer(answering(case)), read)
        local problem, said = (streams[to] or rules[to])(written)
        assert.is_nil(problem, to)
        assert.equal(text_of(got.parts, "text"), said.text, to)
        assert.equal(text_of(got.parts, "thinking"), said.thinking, to)
    end
end

local function failed(case, own)
    local err = protocols.get(own).read_error(case.meta.status, case.json or case.text, context.new())
    assert.equal(case.meta.status, err.status)
    for _, to in ipairs(CLIENTS) do
        local again = protocols.get(to).read_error(err.status, json.encode(protocols.get(to).write_error(err)), context.new())
        if to ~= "ollama_chat" then assert.equal(err.kind, again.kind, to) end -- there an error is its message
        assert.is_string(again.message)
    end
end

-- ---- requests

local function refused_at_most(what, fn, ...)
    local ok, got = pcall(fn, ...)
    if ok then return got end
    if type(got) ~= "table" or got.status ~= 400 or type(got.message) ~= "string" then
        error(("%s raised %s"):format(what, tostring(got)), 0)
    end
end

local function requested(text, own, whole)
    local body = context.parse(text)
    if not body then return end
    for _, lossy in ipairs({ "allow", "refuse" }) do
        for _, to in ipairs(UPSTREAMS) do
            for _, model in ipairs({ MODEL[to], "another" }) do
                local cx = context.new({ lossy = lossy, model = model })
                local r = refused_at_most(text, protocols.get(own).read_request, body, cx)
                local made = r and refused_at_most(text, protocols.get(to).write_request, r, cx)
                if made then json.encode(made) end
                if whole and lossy == "allow" and r.turns[1] and r.turns[1].parts[1] then assert.truthy(made) end
            end
        end
    end
end

-- ---- broken

local function broken_answer(case, own, rng)
    local text = mutate.text(case.json, rng)
    local body = context.parse(text)
    if body then
        local cx = answering(case)
        local a, message = protocols.get(own).read_answer(body, cx)
        if not a then
            assert.is_string(message)
        else
            for _, to in ipairs(CLIENTS) do json.encode(protocols.get(to).write_answer(a, cx)) end
        end
    end
    local err = protocols.get(own).read_error(500, text, context.new())
    assert(err.status and err.kind and err.message, text)
    for _, to in ipairs(CLIENTS) do json.encode(protocols.get(to).write_error(err)) end
end

local function broken_stream(case, own, rng)
    local events = {}
    for i, event in ipairs(case.events) do events[i] = event end
    for _ = 1, rng(4) do
        local at, kind = rng(#events), rng(6)
        if kind == 1 then table.remove(events, at)
        elseif kind == 2 then table.insert(events, rng(#events), events[at])
        else events[at] = { type = events[at].type, data = mutate.text(events[at].data, rng) } end
        if not events[1] then return end
    end
    local read = rules.read(protocols.get(own).reader(answering(case)), events)
    local problem = rules.events(read)
    for _, to in ipairs(CLIENTS) do
        local found = not problem
            and (streams[to] or rules[to])(rules.write(protocols.get(to).writer(answering(case)), read))
        problem = problem or found and to .. ": " .. found
    end
    if problem then
        local lines = { problem }
        for _, event in ipairs(events) do lines[#lines + 1] = (event.type or "") .. " " .. event.data end
        error(table.concat(lines, "\n"), 0)
    end
end

local function rng_of(case, round)
    return mutate.random(round * 7919 + #case.name * 104729 + case.name:byte(-1))
end

local function client_requests(cases)
    for _, case in ipairs(cases) do
        it(case.name .. ": its request, whole and broken", function()
            if not case.request or #case.request > LONG then return end
            local own = client_of(case)
            if case.meta.status == 200 then requested(case.request, own, true) end
            for round = 1, ROUNDS do requested(mutate.text(case.request, rng_of(case, round)), own) end
        end)
    end
end

describe("made up requests for Cohere, Ollama and Bedrock", function()
    client_requests(samples.cases)
end)

describe("recorded traffic of Cohere, Ollama and Bedrock", function()
    if not recorded.folder then return pending(recorded.missing) end
    for _, case in ipairs(recorded.cases(upstream_of)) do
        local own = upstream_of(case)
        if case.meta.status ~= 200 then
            it(case.name .. ": the error", function() failed(case, own) end)
        elseif case.events then
            it(case.name .. ": the stream", function() stream(case, own) end)
        else
            it(case.name .. ": the answer", function() answer(case, own) end)
        end
        it(case.name .. ": broken", function()
            for round = 1, ROUNDS do
                local rng = rng_of(case, round)
                if case.json and #case.json < LONG then broken_answer(case, own, rng) end
                if case.events then broken_stream(case, own, rng) end
            end
        end)
    end
    client_requests(recorded.cases(function(case) return client_of(case) and not upstream_of(case) end))
end)
