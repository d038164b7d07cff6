-- Broken completions and embeddings, made up and recorded: nothing raises but a refusal, and what comes out is legal.

local context = require("support.context")
local json = require("claw.json")
local mutate = require("support.mutate")
local protocols = require("claw.protocols")
local recorded = require("support.recorded")
local rules = require("support.stream_rules")

local ROUNDS = (tonumber(os.getenv("CLAW_MUTATIONS")) or 12) * 8
local CHATS = { "openai_chat", "openai_responses", "anthropic_messages", "gemini", "cohere_chat", "ollama_chat", "bedrock_converse",
    "openai_completions" }
local CLIENTS = { "openai_chat", "openai_responses", "anthropic_messages", "gemini", "openai_completions", "ollama_chat" }
local EMBEDS = { "openai_embeddings", "gemini_embed", "cohere_embeddings", "ollama_embeddings", "bedrock_embeddings" }
local EMBED_CLIENTS = { "openai_embeddings", "gemini_embed", "gemini_embed_batch", "ollama_embeddings" }

local function refused_at_most(what, fn, ...)
    local ok, got, more = pcall(fn, ...)
    if ok then return got, more end
    if type(got) ~= "table" or got.status ~= 400 or type(got.message) ~= "string" then
        error(("%s raised %s"):format(what, tostring(got)), 0)
    end
end

local function request(text, own, targets)
    local body = context.parse(text)
    if not body then return end
    for _, lossy in ipairs({ "allow", "refuse" }) do
        for _, to in ipairs(targets) do
            local cx = context.new({ lossy = lossy })
            local r = refused_at_most(text, protocols.get(own).read_request, body, cx)
            local made = r and refused_at_most(text .. " for " .. to, protocols.get(to).write_request, r, cx)
            if made then json.encode(made) end
        end
    end
end

local function answer(text, own, clients)
    local body = context.parse(text)
    local err = protocols.get(own).read_error(500, text, context.new())
    assert(err.status and err.kind and err.message, text)
    for _, to in ipairs(clients) do json.encode(protocols.get(to).write_error(err)) end
    for _, to in ipairs(body and clients or {}) do
        local cx = context.new({ answering = true, request = { encoding = #text % 2 == 0 and "base64" or "float" } })
        local a, message = protocols.get(own).read_answer(body, cx)
        if a then json.encode(protocols.get(to).write_answer(a, cx)) else assert.is_string(message) end
    end
end

-- The order of a completions stream: nothing behind [DONE] or an error, one finish of each choice.
local function legal(list)
    local over, finished = false, {}
    for _, event in ipairs(list) do
        if over then return "an event behind the end" end
        local chunk = json.decode(event.data)
        over = event.data == "[DONE]" or type(chunk) == "table" and chunk.error ~= nil
        for _, choice in ipairs(not over and chunk.choices or {}) do
            if type(choice.text) ~= "string" then return "a choice without text" end
            if finished[choice.index] then return "a choice behind its finish" end
            finished[choice.index] = choice.finish_reason ~= json.null
        end
    end
    return not over and "no end" or nil
end

local function stream(given, own, rng)
    local events = {}
    for i, event in ipairs(given) do events[i] = event end
    for _ = 1, rng and rng(4) or 0 do
        local at, kind = rng(#events), rng(6)
        if kind == 1 then table.remove(events, at)
        elseif kind == 2 then table.insert(events, rng(#events), events[at])
        else events[at] = { type = events[at].type, data = mutate.text(events[at].data, rng) } end
        if not events[1] then return end
    end
    local read = rules.read(protocols.get(own).reader(context.new({ answering = true })), events)
    local problem = rules.events(read)
        or legal(rules.write(protocols.get("openai_completions").writer(context.new({ answering = true, wants_usage = true })), read))
    for _, name in ipairs({ "openai_chat", "anthropic_messages" }) do
        problem = problem
            or rules[name](rules.write(protocols.get(name).writer(context.new({ answering = true, wants_usage = true })), read))
    end
    if problem then
        local lines = { problem }
        for _, event in ipairs(events) do lines[#lines + 1] = event.data end
        error(table.concat(lines, "\n"), 0)
    end
    return read
end

local function rng_of(name, round) return mutate.random(round * 7919 + #name * 104729 + name:byte(-1)) end

local PROMPT = json.encode({ model = "m", prompt = { "Once" }, max_tokens = 9, temperature = 0.5, n = 1, logprobs = 2, echo = false,
    suffix = json.null, reasoning_effort = "low",
    stop = { "a", "b" }, stream = true, stream_options = { include_usage = true }, user = "u", seed = 3, best_of = 1,
    logit_bias = { ["1"] = -5 }, presence_penalty = 1 })
local TEXT = json.encode({ id = "cmpl-1", object = "text_completion", created = 1, model = "m", choices = {
    { index = 0, text = " upon", finish_reason = "stop", logprobs = json.null }, { index = 1, text = "", finish_reason = "length" } },
    usage = { prompt_tokens = 3, completion_tokens = 2, total_tokens = 5 } })
local function piece(text, finish)
    return { data = json.encode({ id = "cmpl-1", object = "text_completion", created = 1, model = "m",
        choices = { { index = 0, text = text, finish_reason = finish or json.null, logprobs = json.null } } }) }
end
local PIECES = { piece(" upon"), piece(" a"), piece("", "stop"), { data = json.encode({ id = "cmpl-1", choices = json.array(),
    usage = { prompt_tokens = 3, completion_tokens = 2, total_tokens = 5 } }) }, { data = "[DONE]" } }

-- By protocol: requests of its clients, answers of its upstreams.
local ASKED = {
    openai_embeddings = { model = "m", input = { "a", "b" }, dimensions = 3, encoding_format = "float", user = "u", truncate = "END" },
    gemini_embed = { content = { parts = { { text = "a" } } }, outputDimensionality = 3, taskType = "RETRIEVAL_QUERY" },
    gemini_embed_batch = { requests = { { model = "models/m", content = { parts = { { text = "a" } } }, title = "t" } } },
}
local ANSWERED = {
    openai_embeddings = { object = "list", model = "m", data = { { index = 1, embedding = { 1, 2 } }, { index = 0, embedding = "AACAPw==" } },
        usage = { prompt_tokens = 2 } },
    gemini_embed = { embedding = { values = { 1, 2 } }, usageMetadata = { promptTokenCount = 3 } },
    gemini_embed_batch = { embeddings = { { values = { 1, 2 } }, { values = { 3 } } } },
    cohere_embeddings = { embeddings = { float = { { 1, 2 } }, base64 = { "AACAPw==" } }, meta = { billed_units = { input_tokens = 2 } } },
    ollama_embeddings = { model = "m", embeddings = { { 1, 2 } }, prompt_eval_count = 2 },
    bedrock_embeddings = { embeddings = { { embeddingType = "TEXT", embedding = { 1, 2 } } }, inputTextTokenCount = 2 },
}

local function check(cases)
    for _, case in ipairs(cases) do
        local own = case.own
        local chat = own == "openai_completions"
        it(case.name, function()
            for round = 0, ROUNDS do
                local rng = rng_of(case.name, round)
                local function broken(text) return round == 0 and text or mutate.text(text, rng) end
                if case.request and protocols.get(own).read_request then request(broken(case.request), own, chat and CHATS or EMBEDS) end
                if case.json then answer(broken(case.json), own, chat and CLIENTS or EMBED_CLIENTS) end
                if case.events then stream(case.events, own, round > 0 and rng) end
            end
        end)
    end
end

describe("broken completions and embeddings", function()
    local cases = { { name = "completions", own = "openai_completions", request = PROMPT, json = TEXT, events = PIECES } }
    for own, a in pairs(ANSWERED) do
        cases[#cases + 1] = { name = own, own = own, request = ASKED[own] and json.encode(ASKED[own]), json = json.encode(a) }
    end
    check(cases)

    it("are said by streams of all chat protocols", function()
        assert.equal(" upon a", rules.gather(stream(PIECES, "openai_completions")).parts[1].text)
        local chunk = { data = json.encode({ id = "c", choices = { { index = 0, delta = { content = "x" }, finish_reason = json.null } } }) }
        local last = { data = json.encode({ id = "c", choices = { { index = 0, delta = {}, finish_reason = "stop" } } }) }
        for round = 1, ROUNDS do stream({ chunk, chunk, last, { data = "[DONE]" } }, "openai_chat", rng_of("chat", round)) end
    end)
end)

describe("a completions request", function()
    it("with an effort that nobody knows is served, and tells", function()
        local cx = context.new()
        protocols.get("openai_completions").read_request(context.doc({ prompt = "a", reasoning_effort = "heroic" }), cx)
        assert.equal("reasoning_effort", context.dropped(cx))
    end)
end)

describe("broken recorded completions", function()
    if not recorded.folder then return pending(recorded.missing) end
    local cases = recorded.cases(function(case) return case.meta.api == "completions" end)
    assert(#cases > 0, "no completions among the recordings")
    for _, case in ipairs(cases) do case.own = "openai_completions" end
    check(cases)
end)
