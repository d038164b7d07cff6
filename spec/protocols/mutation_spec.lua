-- Broken requests, answers and streams: nothing raises but a refusal, and what comes out is still legal.

local context = require("support.context")
local json = require("claw.json")
local mutate = require("support.mutate")
local protocols = require("claw.protocols")
local recorded = require("support.recorded")
local rules = require("support.stream_rules")
local samples = require("support.samples")

local NAMES = { "openai_chat", "anthropic_messages" }
local ROUNDS = tonumber(os.getenv("CLAW_MUTATIONS")) or 12 -- of each recording
local LONG = 60000 -- bytes: an image is not worth the time

local function protocol_of(case)
    if case.meta.api == "messages" or case.name:find("^vertex/claude") then return "anthropic_messages" end
    if case.meta.api == "chat" and not case.name:find("^cohere/") then return "openai_chat" end
end

-- fn(…), whose only error may be a refusal; what it gives, or nil.
local function refused_at_most(what, fn, ...)
    local ok, got, more = pcall(fn, ...)
    if ok then return got, more end
    if type(got) ~= "table" or got.status ~= 400 or type(got.message) ~= "string" then
        error(("%s raised %s"):format(what, tostring(got)), 0)
    end
end

local function request(case, module, rng)
    local text = mutate.text(case.request, rng)
    local doc = context.parse(text)
    if not doc then return end
    for _, lossy in ipairs({ "allow", "refuse" }) do
        local cx = context.new({ lossy = lossy })
        local r = refused_at_most(text, module.read_request, doc, cx)
        for _, to in ipairs(r and NAMES or {}) do
            local body = refused_at_most(text, protocols.get(to).write_request, r, cx)
            if body then json.encode(body) end
        end
    end
end

local function answer(case, module, rng)
    local text = mutate.text(case.json, rng)
    local doc = context.parse(text)
    if doc then
        local cx = context.new({ answering = true })
        local a, message = module.read_answer(doc, cx)
        if not a then return assert.is_string(message) end
        for _, to in ipairs(NAMES) do json.encode(protocols.get(to).write_answer(a, cx)) end
    end
    local err = module.read_error(500, text, context.new())
    assert(err.status and err.kind and err.message, text)
    for _, to in ipairs(NAMES) do json.encode(protocols.get(to).write_error(err)) end
end

local function stream(case, module, rng)
    local events = {}
    for i, event in ipairs(case.events) do events[i] = event end
    for _ = 1, rng(4) do
        local at, kind = rng(#events), rng(6)
        if kind == 1 then table.remove(events, at)
        elseif kind == 2 then table.insert(events, rng(#events), events[at])
        else events[at] = { type = events[at].type, data = mutate.text(events[at].data, rng) } end
        if not events[1] then return end
    end
    local cx = context.new({ answering = true, wants_usage = true })
    local read = rules.read(module.reader(cx), events)
    local problem = rules.events(read)
    for _, to in ipairs(NAMES) do
        problem = problem or rules[to](rules.write(protocols.get(to).writer(cx), read))
    end
    if problem then
        local lines = { problem }
        for _, event in ipairs(events) do lines[#lines + 1] = event.data end
        error(table.concat(lines, "\n"), 0)
    end
end

local function check(cases)
    for _, case in ipairs(cases) do
        local module = protocols.get(protocol_of(case))
        it(case.name, function()
            for round = 1, ROUNDS do
                local rng = mutate.random(round * 7919 + #case.name * 104729 + case.name:byte(-1))
                if case.request and #case.request < LONG then request(case, module, rng) end
                if case.json and #case.json < LONG then answer(case, module, rng) end
                if case.events then stream(case, module, rng) end
            end
        end)
    end
end

describe("broken made up traffic", function()
    check(samples.cases)
end)

describe("broken recorded traffic", function()
    if not recorded.folder then return pending(recorded.missing) end
    check(recorded.cases(protocol_of))
end)
