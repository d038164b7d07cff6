-- outgoing: a request of the vocabulary, written for OpenAI's chat protocol and those who speak it.
--
-- What a provider does otherwise is in its table: `responses_fields` (fields of OpenAI's Responses that its chat has,
-- too), `lacks` (fields that it refuses; `seed` is its random_seed), `max_tokens_field`, `max_stops`, `stream_usage`
-- (false: not to be
-- asked for), `top_k`, `cache_control`, `document_url`, `video_url` (true: known), `flat_content` (a result's content
-- is one text), `tool_id_length` (spelling.id), `reasoning_field` (how it takes reasoning back: "reasoning_content",
-- "reasoning", "reasoning_details").

local spelling = require("claw.protocols.openai_chat.spelling")
local json = require("claw.json")
local losses = require("claw.protocols.losses")
local models = require("claw.protocols.openai_responses.models")

local M = {}

local function add(messages, message)
    messages[#messages + 1] = message
end

-- Content of a user's or system's message: text where it is one text, for not all providers take a list there.
local function body_of(parts, cx, joined)
    local out = {}
    for _, part in ipairs(parts) do out[#out + 1] = spelling.write(part, cx) end
    local texts = {}
    for i, chunk in ipairs(out) do
        if chunk.type ~= "text" or type(chunk) == "userdata" or chunk.cache_control then return out end
        texts[i] = chunk.text
    end
    if #texts > 1 and not joined then return out end
    return table.concat(texts, joined or "")
end

-- A result's text is the tool's message; what else is in it (images) can only be said by the user, behind all results.
local function write_result(part, messages, media, cx)
    local texts = {}
    for _, p in ipairs(part.parts) do
        if p.kind == "text" or p.kind == "refusal" or p.kind == "document" and p.text then
            texts[#texts + 1] = p
        else
            media[#media + 1] = p
        end
    end
    if part.error then cx.drop("messages.content.is_error", "hint", "what the result says is kept") end
    if part.cache then cx.drop("cache_control", "hint", "the upstream caches by itself") end
    add(messages, { role = "tool", tool_call_id = spelling.id(part.id, cx),
        content = body_of(texts, cx, cx.provider.flat_content and "\n" or nil) })
end

local WRITE = {}

function WRITE.user(t, messages, cx)
    local rest, media = {}, {}
    for _, part in ipairs(t.parts) do
        if part.kind == "result" then write_result(part, messages, media, cx) else rest[#rest + 1] = part end
    end
    for i, part in ipairs(media) do table.insert(rest, i, part) end
    if rest[1] or not t.parts[1] then
        add(messages, { role = "user", name = t.name, content = body_of(rest, cx) })
    end
end

function WRITE.system(t, messages, cx)
    add(messages, { role = "system", name = t.name, content = body_of(t.parts, cx, "\n\n") })
end

-- Thinking goes along only where the provider says how it takes it back: others refuse it, or bill what they do not
-- need.
local function write_thinking(message, parts, cx)
    local field = cx.provider.reasoning_field
    if not field then return end
    spelling.write_reasoning(message, parts)
    if field == "reasoning_details" and message.reasoning_details then
        message.reasoning_content = nil
    elseif field ~= "reasoning_details" then
        message.reasoning_details = nil
        local said = message.reasoning_content
        message.reasoning_content = nil
        message[field] = said
    end
end

function WRITE.assistant(t, messages, cx)
    local message, said, refused, calls = { role = "assistant", name = t.name }, {}, {}, {}
    for _, part in ipairs(t.parts) do
        if part.kind == "text" then
            said[#said + 1] = part.text
            if part.cache then spelling.write(part, cx) end
        elseif part.kind == "refusal" then
            refused[#refused + 1] = part.text
        elseif part.kind == "call" then
            calls[#calls + 1] = spelling.write_call(part, cx)
        elseif part.kind == "other" and part.origin == "openai_message" then
            message[part.what] = part.raw
        elseif part.kind ~= "thinking" and part.kind ~= "redacted" then
            spelling.lose(part, cx)
        end
    end
    write_thinking(message, t.parts, cx)
    message.content = said[1] and table.concat(said) or (calls[1] or refused[1]) and json.null or ""
    message.refusal = refused[1] and table.concat(refused) or nil
    message.tool_calls = calls[1] and calls
    add(messages, message)
end

local function write_messages(r, cx)
    local messages = json.array()
    if r.system and r.system[1] then WRITE.system({ parts = r.system }, messages, cx) end
    for _, t in ipairs(r.turns) do WRITE[t.role](t, messages, cx) end
    local last = r.turns[#r.turns]
    if last and last.role == "assistant" and r.dialect ~= "openai_chat" then
        cx.drop("messages.prefill", "hint", "the answer begins anew, not where the last turn ends")
    end
    return messages
end

local function write_tools(r, cx)
    local out = {}
    for _, tool in ipairs(r.tools or {}) do
        if not tool.server then
            if tool.cache then cx.drop("cache_control", "hint", "the upstream caches by itself") end
            out[#out + 1] = { type = "function", ["function"] = { name = tool.name, description = tool.description,
                parameters = tool.schema, strict = tool.strict } }
        elseif tool.origin == "openai_chat" then
            out[#out + 1] = tool.server
        else
            losses.server(tool, cx)
        end
    end
    return out[1] and out or nil
end

local function write_choice(r)
    local choice = r.tool_choice
    if not choice then return nil end
    if choice.mode ~= "tool" then return choice.mode end
    return { type = "function", ["function"] = { name = choice.name } }
end

local MAX_STOPS = 4 -- developers.openai.com, chat.completions.create, stop

local function write_stop(r, cx)
    if not r.stop or #r.stop <= (cx.provider.max_stops or MAX_STOPS) then return r.stop end
    local out = {}
    for i = 1, cx.provider.max_stops or MAX_STOPS do out[i] = r.stop[i] end
    cx.drop("stop_sequences", "hint", ("only the first %d of %d are sent"):format(#out, #r.stop))
    return out
end

local function write_format(format)
    if not format then return nil end
    if format.kind == "json" then return { type = "json_object" } end
    return { type = "json_schema", json_schema = { name = format.name or "answer", description = format.description,
        schema = format.schema, strict = format.strict } }
end

-- Budgets as efforts; the other way round is in Anthropic's writer.
local function effort_of(reasoning)
    if reasoning.effort then return reasoning.effort end
    local budget = reasoning.budget
    if not budget then return nil end -- think as you see fit: what the model does anyway
    return budget <= 4096 and "low" or budget <= 12288 and "medium" or "high"
end

local function write_reasoning(r, out, cx)
    local reasoning = r.reasoning
    if not reasoning then return end
    out.thinking, out.reasoning = reasoning.thinking, reasoning.more -- as this dialect's client said it
    if out.reasoning then return end
    if reasoning.off then -- said to a model that has no reasoning it is an error
        if reasoning.effort == "none" then out.reasoning_effort = "none" end
    else
        out.reasoning_effort = effort_of(reasoning)
        if out.reasoning_effort and r.dialect ~= "openai_chat" and not models.reasons(out.model) then
            cx.drop("reasoning_effort", "hint", "the model does not reason")
            out.reasoning_effort = nil
        end
    end
end

-- o1, o3, gpt-5 … refuse max_tokens, which is what all others know.
local function max_tokens_field(model, provider)
    if provider.max_tokens_field then return provider.max_tokens_field end
    local name = model or ""
    name = name:match(".*/(.*)") or name
    return (name:find("^o%d") or name:find("^gpt%-[5-9]")) and "max_completion_tokens" or "max_tokens"
end

-- What the client's own dialect says and this reader has no name for is kept when both are the same.
local function write_rest(r, out, cx)
    local names = {}
    for name in pairs(r.rest or {}) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
        local shared = r.dialect == "openai_responses" and cx.provider.responses_fields
        if r.dialect == "openai_chat" or shared and shared[name] then
            out[name] = r.rest[name]
        else
            cx.drop(name, losses.class(name))
        end
    end
end

local TIER = { standard_only = "default" } -- Anthropic's

function M.write(r, cx)
    local out = { model = cx.model or r.model, messages = write_messages(r, cx), tools = write_tools(r, cx) }
    if r.stream then out.stream, out.stream_options = true, { include_usage = true } end
    if cx.provider.stream_usage == false then out.stream_options = nil end
    if out.tools then out.tool_choice = write_choice(r) end
    if out.tools and not r.legacy then out.parallel_tool_calls = r.parallel end
    out[max_tokens_field(out.model, cx.provider)] = r.max_tokens
    out.temperature, out.top_p, out.stop, out.seed = r.temperature, r.top_p, write_stop(r, cx), r.seed
    out.n = r.n and r.n ~= 1 and r.n or nil
    out.presence_penalty, out.frequency_penalty = r.presence_penalty, r.frequency_penalty
    out.logprobs, out.top_logprobs, out.logit_bias = r.logprobs, r.top_logprobs, r.logit_bias
    out.metadata, out.store = r.metadata, r.store
    out.service_tier = TIER[r.service_tier] or r.service_tier
    out.response_format, out.verbosity = write_format(r.format), r.verbosity
    if cx.provider.responses_fields then
        out.user, out.safety_identifier = r.user, r.safety_identifier
    else
        out.user = losses.user(r, cx)
        if not out.store then out.store = nil end
    end
    write_reasoning(r, out, cx)
    if r.dialect then models.leave_sampling(r, out, cx) end
    if r.top_k and (cx.provider.top_k or r.dialect == "openai_chat") then
        out.top_k = r.top_k
    elseif r.top_k then
        cx.drop("top_k", "hint")
    end
    write_rest(r, out, cx)
    for name in pairs(cx.provider.lacks or {}) do
        if r.dialect ~= "openai_chat" and out[name] ~= nil then
            if name == "seed" then out.random_seed = out.seed else cx.drop(name, losses.class(name),
                "it is refused there") end
            out[name] = nil
        end
    end
    return out
end

return M
