-- content: what Bedrock's answers say of stops and usage, plain and in streams.

local fields = require("claw.protocols.fields")

local M = {}

local word, text_of, count = fields.word, fields.text, fields.count
local list, members = fields.list, fields.fields

local STOP = { end_turn = "end", tool_use = "call", max_tokens = "length", stop_sequence = "stop_sequence",
    guardrail_intervened = "filter", content_filtered = "filter", refusal = "refusal",
    model_context_window_exceeded = "context", malformed_model_output = "error", malformed_tool_use = "error" }

-- nil when there is none.
function M.stop(reason)
    return word(reason) and (STOP[reason] or "end")
end

-- The sequence that hit: outgoing asks Claude for it.
function M.stop_text(body)
    return word(members(body.additionalModelResponseFields).stop_sequence)
end

-- inputTokens is what was neither read from the cache nor written to it.
function M.usage(u)
    u = members(u)
    local input, output = count(u.inputTokens), count(u.outputTokens)
    if not input and not output then return nil end
    local read, written = count(u.cacheReadInputTokens), count(u.cacheWriteInputTokens)
    local out = { input = (input or 0) + (read or 0) + (written or 0), output = output or 0, cached = read,
        cache_write = written }
    local details = list(u.cacheDetails)
    for i = 1, #details do
        local one = members(details[i])
        if one.ttl == "1h" then out.cache_write_1h = count(one.inputTokens) end
    end
    return out
end

-- { title, source, sourceContent: [ { text } ], location }
function M.citation(c)
    local said, sources = {}, list(c.sourceContent)
    for i = 1, #sources do said[#said + 1] = text_of(members(sources[i]).text) end
    return { text = said[1] and table.concat(said) or nil, title = word(c.title), raw = c, origin = "bedrock",
        url = word(members(members(c.location).web).url) }
end

return M
