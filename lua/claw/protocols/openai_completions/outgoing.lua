-- outgoing: a request of the vocabulary, written for OpenAI's completions: a lone turn's text is the prompt, a
-- conversation is told as one, down to where the assistant's next words stand.

local losses = require("claw.protocols.losses")

local M = {}

local MAX_STOPS = 4

local NONE = { "n", "logprobs", "parallel", "metadata", "service_tier", "store", "verbosity" }

local function text_of(parts, cx)
    local out = {}
    for _, part in ipairs(parts) do
        if part.kind == "text" or part.kind == "refusal" or part.kind == "document" and part.text then
            out[#out + 1] = part.text
        elseif part.kind ~= "thinking" and part.kind ~= "redacted" then
            cx.drop("messages.content." .. tostring(part.what or part.kind), "content", "a prompt is text")
        end
        if part.cache then cx.drop("cache_control", "hint", "the upstream caches by itself") end
    end
    return table.concat(out, "\n")
end

local LABEL = { user = "User: ", assistant = "Assistant: ", system = "" }

local function write_prompt(r, cx)
    local only = r.turns[1]
    local system = text_of(r.system or {}, cx)
    if only and not r.turns[2] and only.role == "user" and system == "" then return text_of(only.parts, cx) end
    local lines = { system ~= "" and system or nil }
    for _, turn in ipairs(r.turns) do
        if turn.name then cx.drop("messages.name", "hint") end
        lines[#lines + 1] = LABEL[turn.role] .. text_of(turn.parts, cx)
    end
    local last = r.turns[#r.turns]
    if not last or last.role ~= "assistant" then lines[#lines + 1] = "Assistant:" end -- else it goes on from there
    return table.concat(lines, "\n\n")
end

function M.write(r, cx)
    local out = { model = cx.model or r.model, prompt = write_prompt(r, cx), max_tokens = r.max_tokens,
        temperature = r.temperature, top_p = r.top_p, seed = r.seed, stop = losses.stops(r, MAX_STOPS, cx),
        presence_penalty = r.presence_penalty, frequency_penalty = r.frequency_penalty, logit_bias = r.logit_bias,
        user = losses.user(r, cx) }
    if r.stream then
        out.stream = true
        out.stream_options = cx.provider.stream_usage ~= false and { include_usage = true } or nil
    end
    if r.tools and r.tools[1] then cx.drop("tools", "tool", "a model that only continues calls none") end
    if r.format then cx.drop("response_format", "schema") end
    if r.reasoning and not r.reasoning.off then cx.drop("reasoning_effort", "hint") end
    if r.top_k and cx.provider.top_k then out.top_k = r.top_k elseif r.top_k then cx.drop("top_k", "hint") end
    losses.fields(r, NONE, cx)
    losses.rest(r, cx)
    return out
end

return M
