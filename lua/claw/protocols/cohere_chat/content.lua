-- content: what Cohere's answers say of stops, usage, calls and citations, plain and in streams.

local fields = require("claw.protocols.fields")

local M = {}

local word, text_of, count = fields.word, fields.text, fields.count
local list, object, members = fields.list, fields.object, fields.fields

local STOP = { COMPLETE = "end", STOP_SEQUENCE = "stop_sequence", MAX_TOKENS = "length", TOOL_CALL = "call",
    ERROR = "error", ERROR_TOXIC = "filter", ERROR_LIMIT = "context", TIMEOUT = "error" }

-- nil when there is none yet.
function M.stop(reason, calls)
    if not word(reason) then return nil end
    local stop = STOP[reason:upper()] or "end"
    return stop == "end" and calls and "call" or stop
end

-- billed_units are what is charged, pictures in them; tokens, which have Cohere's own preamble in them and pictures
-- beside them, stand in where they are not told.
function M.usage(u)
    u = members(u)
    local tokens, billed = members(u.tokens), members(u.billed_units)
    local input = count(billed.input_tokens) or count(tokens.input_tokens)
    local output = count(billed.output_tokens) or count(tokens.output_tokens)
    if not input and not output then return nil end
    local cached = count(u.cached_tokens)
    local pictures = not count(billed.input_tokens) and count(tokens.image_tokens) or 0
    return { input = (input or 0) + pictures, output = output or 0, cached = cached and math.min(cached, input or 0),
        reasoning = count(tokens.reasoning_tokens) }
end

-- A call's input: text of JSON, here as in OpenAI's.
function M.call(given, cx)
    local named = members(given["function"])
    return { kind = "call", id = word(given.id) or cx.id("call_"), name = text_of(named.name) or "" },
        text_of(named.arguments) or ""
end

-- A citation's sources, each as one of the vocabulary's.
function M.citations(c, out)
    local sources = list(c.sources)
    for i = 1, #sources do
        local source = members(sources[i])
        local document = members(source.document)
        out[#out + 1] = { text = text_of(c.text), start = count(c.start), finish = count(c["end"]), raw = object(c),
            url = word(document.url), title = word(document.title) or word(source.id), origin = "cohere" }
    end
end

-- Is it one of the answer's text, not of its plan or thinking?
function M.of_text(c)
    return object(c) and (c.type == nil or c.type == "TEXT_CONTENT")
end

return M
