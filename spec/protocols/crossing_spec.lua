-- What Google and OpenAI's Responses really sent: through every other chat protocol and back, whole and broken.

local context = require("support.context")
local json = require("claw.json")
local meaning = require("support.meaning")
local mutate = require("support.mutate")
local protocols = require("claw.protocols")
local recorded = require("support.recorded")
local rules = require("support.stream_rules")
local streams = require("support.dialect_streams")

local NAMES = { "gemini", "openai_responses", "openai_chat", "anthropic_messages" }
local ROUNDS = tonumber(os.getenv("CLAW_MUTATIONS")) or 12 -- of each recording
local LONG = 60000 -- bytes

local function protocol_of(case)
    if case.meta.api:find("enerateContent$") then return "gemini" end
    if case.meta.api == "responses" then return "openai_responses" end
end

local function legal(name, list)
    return (streams[name] or rules[name])(list)
end

local function doc(t)
    return context.doc(json.encode(t))
end

-- Google answers streams that were not asked for as SSE with a list of the same.
local function events_of(case)
    if case.events or not (case.json and case.json:find("^%s*%[%s*{%s*\"candidates\"")) then return case.events end
    local out, all = {}, context.doc(case.json)
    for i = 1, #all do out[i] = { data = tostring(all[i]) } end
    return out
end

local function context_for(case, more)
    local spec = { lossy = "allow", model = case.meta.model, asked = case.meta.model,
        provider = { document_url = true, remote_files = true } }
    for key, v in pairs(more or {}) do spec[key] = v end
    return context.new(spec)
end

-- ---- requests

local FIELDS = { "max_tokens", "temperature", "top_p", "tool_choice", "format" }

-- Parts that another provider has no use for, and ids, which Google has not.
local function comparable(r, ids)
    local out = meaning.request(r, { fields = FIELDS })
    local names, n = {}, 0
    for _, turn in ipairs(out.turns) do
        local kept = {}
        for _, part in ipairs(turn.parts) do
            part.signature = nil
            if part.url then part.media_type = nil end
            if not ids and part.id then
                if not names[part.id] then n = n + 1 end
                names[part.id] = names[part.id] or "id " .. n
                part.id = names[part.id]
            end
            if part.kind ~= "server_call" and part.kind ~= "server_result" and part.kind ~= "other" then
                if part.kind == "result" then
                    local text = part.parts[1] and part.parts[1].text or ""
                    part.parts = { { text = json.decode(text) or text } }
                end
                kept[#kept + 1] = part
            end
        end
        turn.parts = kept
    end
    local turns = {}
    for _, turn in ipairs(out.turns) do
        local last = turns[#turns]
        if last and last.role == turn.role then
            for _, part in ipairs(turn.parts) do table.insert(last.parts, part) end
        elseif turn.parts[1] then
            turns[#turns + 1] = turn
        end
    end
    out.turns = turns
    local tools = {}
    for _, tool in ipairs(out.tools) do
        tool.server = nil
        if tool.name then tools[#tools + 1] = tool end
    end
    out.tools = tools
    return out
end

local function request_through(case, own, far, name)
    local cx = context_for(case)
    local first = protocols.get(own).read_request(context.doc(case.request), cx)
    first.stream = first.stream or false
    if not comparable(first).turns[1] then return end -- it says nothing at all
    local there = protocols.get(far).write_request(first, cx)
    local back = protocols.get(far).read_request(doc(there), cx)
    local again = protocols.get(own).read_request(doc(protocols.get(own).write_request(back, cx)), cx)
    local ids = own ~= "gemini" and far ~= "gemini"
    local want, got = comparable(first, ids), comparable(again, ids)
    if far == "anthropic_messages" then
        if not want.max_tokens then got.max_tokens = nil end -- one is set where none was
        if want.temperature and got.temperature then got.temperature = want.temperature end -- 0 to 1 there
        want.format, got.format = nil, nil
    end
    if far == "openai_responses" and (want.max_tokens or 16) < 16 then got.max_tokens = want.max_tokens end
    assert.same(want, got, name)
end

-- ---- answers

-- A call's input is an object, and ids and the order of reasoning are a dialect's own.
local function answer_of(a)
    local out = meaning.answer(a)
    out.id, out.model = nil, nil
    for _, part in ipairs(out.parts) do part.signature, part.origin = nil, nil end
    local kept = {}
    for _, part in ipairs(out.parts) do
        if part.kind == "text" or part.kind == "call" then kept[#kept + 1] = part end
    end
    out.parts = kept
    return out
end

local function answer_through(case, own, far)
    local cx = context_for(case, { answering = true })
    local first = assert(protocols.get(own).read_answer(context.doc(case.json), cx))
    local back = assert(protocols.get(far).read_answer(doc(protocols.get(far).write_answer(first, cx)), cx))
    local again = assert(protocols.get(own).read_answer(doc(protocols.get(own).write_answer(back, cx)), cx))
    local want = answer_of(first)
    assert.same(want, answer_of(back))
    assert.same(want, answer_of(again))
    return first
end

-- ---- streams

local function text_of(gathered, kind)
    local out = {}
    for _, part in ipairs(gathered.parts) do
        if part.kind == kind then out[#out + 1] = part.text end
    end
    return table.concat(out)
end

local function calls_of(parts)
    local out = {}
    for _, part in ipairs(parts) do
        if part.kind == "call" then
            local input = part.input == "" and "{}" or part.input
            out[#out + 1] = { id = part.id, name = part.name,
                input = type(input) == "table" and input or json.decode(tostring(input)) }
        end
    end
    return out
end

local function stream_through(events, own, to)
    local read = rules.read(protocols.get(own).reader(context.new()), events)
    assert.is_nil(rules.events(read))
    local got = rules.gather(read)
    local cx = context.new({ answering = true, wants_usage = true })
    local written = rules.write(protocols.get(to).writer(cx), read)
    local problem, said = legal(to, written)
    assert.is_nil(problem)
    if got.err then
        assert.equal(got.err.message, said.error.message)
        return
    end
    assert.equal(text_of(got, "text"), said.text)
    assert.equal(text_of(got, "thinking"), said.thinking)
    local again = rules.read(protocols.get(to).reader(context.new()), written)
    assert.is_nil(rules.events(again))
    local anew = rules.gather(again)
    assert.equal(text_of(got, "text"), text_of(anew, "text"))
    assert.same(calls_of(got.parts), calls_of(anew.parts))
    local want, usage = got.usage or {}, anew.usage or {}
    for _, name in ipairs({ "input", "output", "cached" }) do assert.equal(want[name] or 0, usage[name] or 0) end
    local most = want.output or 0 -- some count more reasoning than output
    assert.equal(math.min(want.reasoning or 0, most), math.min(usage.reasoning or 0, most))
    local answer = { id = "x", model = "m", parts = got.parts, stop = got.stop, usage = got.usage }
    local plain = assert(protocols.get(to).read_answer(doc(protocols.get(to).write_answer(answer, cx)), cx))
    assert.equal(text_of(plain, "text"), text_of(anew, "text"))
    assert.same(calls_of(plain.parts), calls_of(anew.parts))
    assert.equal(plain.stop, anew.stop)
end

-- ---- errors

local function error_through(case, own)
    local err = protocols.get(own).read_error(case.meta.status, case.json or case.text, context.new())
    assert.equal(case.meta.status, err.status)
    for _, to in ipairs(NAMES) do
        local body = json.encode(protocols.get(to).write_error(err))
        local again = protocols.get(to).read_error(err.status, body, context.new())
        assert.equal(err.kind, again.kind, to)
        assert.truthy(again.message:find(err.message, 1, true)) -- Anthropic's says more of what is too long
    end
end

-- ---- broken

local function refused_at_most(what, fn, ...)
    local ok, got = pcall(fn, ...)
    if ok then return got end
    if type(got) ~= "table" or got.status ~= 400 or type(got.message) ~= "string" then
        error(("%s raised %s"):format(what, tostring(got)), 0)
    end
end

local function broken_request(case, own, rng)
    local text = mutate.text(case.request, rng)
    local body = context.parse(text)
    if not body then return end
    for _, lossy in ipairs({ "allow", "refuse" }) do
        local cx = context_for(case, { lossy = lossy, provider = {} })
        local r = refused_at_most(text, protocols.get(own).read_request, body, cx)
        for _, to in ipairs(r and NAMES or {}) do
            local made = refused_at_most(text, protocols.get(to).write_request, r, cx)
            if made then json.encode(made) end
        end
    end
end

local function broken_answer(case, own, rng)
    local text = mutate.text(case.json, rng)
    local body = context.parse(text)
    if body then
        local cx = context_for(case, { answering = true })
        local a, message = protocols.get(own).read_answer(body, cx)
        if not a then
            assert.is_string(message)
        else
            for _, to in ipairs(NAMES) do json.encode(protocols.get(to).write_answer(a, cx)) end
        end
    end
    local err = protocols.get(own).read_error(500, text, context.new())
    assert(err.status and err.kind and err.message, text)
    for _, to in ipairs(NAMES) do json.encode(protocols.get(to).write_error(err)) end
end

local function broken_stream(given, own, rng)
    local events = {}
    for i, event in ipairs(given) do events[i] = event end
    for _ = 1, rng(4) do
        local at, kind = rng(#events), rng(6)
        if kind == 1 then table.remove(events, at)
        elseif kind == 2 then table.insert(events, rng(#events), events[at])
        else events[at] = { type = events[at].type, data = mutate.text(events[at].data, rng) } end
        if not events[1] then return end
    end
    local cx = context.new({ answering = true, wants_usage = true })
    local read = rules.read(protocols.get(own).reader(cx), events)
    local problem = rules.events(read)
    for _, to in ipairs(NAMES) do
        local writing = context.new({ answering = true, wants_usage = true })
        local found = not problem and legal(to, rules.write(protocols.get(to).writer(writing), read))
        problem = problem or found and to .. ": " .. found
    end
    if problem then
        local lines = { problem }
        for _, event in ipairs(events) do lines[#lines + 1] = event.data end
        error(table.concat(lines, "\n"), 0)
    end
end

describe("recorded traffic of Google and of Responses", function()
    if not recorded.folder then
        pending(recorded.missing)
        return
    end
    for _, case in ipairs(recorded.cases(protocol_of)) do
        local own, events = protocol_of(case), events_of(case)
        for _, far in ipairs(NAMES) do
            if case.request then
                it(case.name .. ": the request, by " .. far, function() request_through(case, own, far, far) end)
            end
            if case.meta.status == 200 and case.json and not events then
                it(case.name .. ": the answer, by " .. far, function() answer_through(case, own, far) end)
            end
            if events then
                it(case.name .. ": the stream, to " .. far, function() stream_through(events, own, far) end)
            end
        end
        if case.meta.status ~= 200 then
            it(case.name .. ": the error", function() error_through(case, own) end)
        end
        it(case.name .. ": broken", function()
            for round = 1, ROUNDS do
                local rng = mutate.random(round * 7919 + #case.name * 104729 + case.name:byte(-1))
                if case.request and #case.request < LONG then broken_request(case, own, rng) end
                if case.json and #case.json < LONG and not events then broken_answer(case, own, rng) end
                if events then broken_stream(events, own, rng) end
            end
        end)
    end
    -- What the other dialects' clients and upstreams said, by these and back.
    for _, case in ipairs(recorded.cases(function(c)
        return c.meta.api == "chat" and not c.name:find("^cohere/") or c.meta.api == "messages" or c.name:find("^vertex/claude")
    end)) do
        local own = case.meta.api == "chat" and "openai_chat" or "anthropic_messages"
        for i = 1, 2 do
            if case.request and case.name ~= "anthropic/citations" then -- its document, a text, goes as one
                it(case.name .. ": the request, by " .. NAMES[i], function() request_through(case, own, NAMES[i], NAMES[i]) end)
            end
            if case.meta.status == 200 and case.json then
                it(case.name .. ": the answer, by " .. NAMES[i], function() answer_through(case, own, NAMES[i]) end)
            end
        end
        for i = 1, case.events and 2 or 0 do
            it(case.name .. ": the stream, to " .. NAMES[i], function() stream_through(case.events, own, NAMES[i]) end)
        end
    end
end)
