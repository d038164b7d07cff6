-- answer: what an admit hook answers in an upstream's place, as the client's dialect has it.
--
-- A text goes out as it is, a table as JSON. A table that is a whole answer of a chat dialect goes to a client that
-- asked for a stream as that dialect's events. `say` makes such a table: the dialect is the path's. Of the request are
-- read: id, path, query, model, stream and body.

local json = require("claw.json")

local M = {}

local EVENTS = "text/event-stream"

local function event(out, value, kind)
    if kind then out[#out + 1] = "event: " .. kind .. "\n" end
    out[#out + 1] = "data: " .. (type(value) == "string" and value or json.encode(value)) .. "\n\n"
end

-- ---- one table a dialect: is it spoken at this path, does a table have its form, a text in it, that as events

local openai = {}

function openai.has_form(t) return type(t.choices) == "table" and t.object ~= "chat.completion.chunk" end

function openai.said(text, req)
    return {
        id = "chatcmpl-" .. tostring(req.id), object = "chat.completion", created = os.time(), model = req.model or "",
        choices = { { index = 0, finish_reason = "stop", message = { role = "assistant", content = text } } },
        usage = { prompt_tokens = 0, completion_tokens = 0, total_tokens = 0 },
    }
end

local function chunk(t, choices)
    return { id = t.id, object = "chat.completion.chunk", created = t.created, model = t.model, choices = choices }
end

-- The message as a delta: tool calls are numbered there.
local function delta_of(message)
    local out = {}
    for key, value in pairs(type(message) == "table" and message or {}) do out[key] = value end
    if type(out.tool_calls) == "table" then
        local calls = {}
        for i, call in ipairs(out.tool_calls) do
            calls[i] = { index = i - 1 }
            for key, value in pairs(call) do calls[i][key] = value end
        end
        out.tool_calls = calls
    end
    return out
end

local function wants_usage(options)
    if options == json.null or type(options) ~= "table" and type(options) ~= "userdata" then return false end
    return options.include_usage == true
end

function openai.events(t, req)
    local out = {}
    for i, choice in ipairs(t.choices) do
        local index = choice.index or i - 1
        event(out, chunk(t, { { index = index, delta = delta_of(choice.message), finish_reason = json.null } }))
        event(out, chunk(t, { { index = index, delta = {}, finish_reason = choice.finish_reason or "stop" } }))
    end
    if t.usage and wants_usage(req.body and req.body.stream_options) then
        local last = chunk(t, json.array({}))
        last.usage = t.usage
        event(out, last)
    end
    event(out, "[DONE]")
    return out
end

local anthropic = {}

function anthropic.spoken(path) return path:find("/v1/messages", 1, true) == 1 end

function anthropic.has_form(t) return t.type == "message" and type(t.content) == "table" end

function anthropic.said(text, req)
    return {
        id = "msg_" .. tostring(req.id), type = "message", role = "assistant", model = req.model or "",
        content = { { type = "text", text = text } }, stop_reason = "end_turn", stop_sequence = json.null,
        usage = { input_tokens = 0, output_tokens = 0 },
    }
end

-- A content block as it begins, and what comes behind that; nil: it is all there at once.
local function block_of(block)
    if block.type == "text" then return { type = "text", text = "" }, { type = "text_delta", text = block.text } end
    if block.type ~= "tool_use" then return block, nil end
    local input = json.encode(block.input or {})
    return { type = "tool_use", id = block.id, name = block.name, input = {} },
        { type = "input_json_delta", partial_json = input }
end

function anthropic.events(t)
    local out, start = {}, {}
    for key, value in pairs(t) do start[key] = value end
    start.content, start.stop_reason, start.stop_sequence = json.array({}), json.null, json.null
    event(out, { type = "message_start", message = start }, "message_start")
    for i, block in ipairs(t.content) do
        local first, delta = block_of(block)
        event(out, { type = "content_block_start", index = i - 1, content_block = first }, "content_block_start")
        if delta then
            event(out, { type = "content_block_delta", index = i - 1, delta = delta }, "content_block_delta")
        end
        event(out, { type = "content_block_stop", index = i - 1 }, "content_block_stop")
    end
    local used = type(t.usage) == "table" and t.usage.output_tokens or 0
    event(out, { type = "message_delta", usage = { output_tokens = used },
        delta = { stop_reason = t.stop_reason or "end_turn", stop_sequence = t.stop_sequence or json.null } },
        "message_delta")
    event(out, { type = "message_stop" }, "message_stop")
    return out
end

local gemini = {}

function gemini.spoken(path) return path:find("/v1beta/", 1, true) == 1 end

function gemini.has_form(t) return type(t.candidates) == "table" end

function gemini.said(text, req)
    return {
        candidates = {
            { index = 0, content = { role = "model", parts = { { text = text } } }, finishReason = "STOP" },
        },
        usageMetadata = { promptTokenCount = 0, candidatesTokenCount = 0, totalTokenCount = 0 },
        modelVersion = req.model,
    }
end

function gemini.events(t)
    local out = {}
    event(out, t)
    return out
end

local ollama = { content_type = "application/x-ndjson" }

function ollama.spoken(path) return path:find("/api/chat$") ~= nil end

function ollama.has_form(t) return type(t.message) == "table" and type(t.done) == "boolean" end

function ollama.said(text, req)
    return { model = req.model or "", created_at = os.date("!%Y-%m-%dT%H:%M:%SZ"), done = true, done_reason = "stop",
        message = { role = "assistant", content = text }, prompt_eval_count = 0, eval_count = 0 }
end

function ollama.events(t)
    local first, last = {}, {}
    for key, value in pairs(t) do last[key] = value end
    first.model, first.created_at, first.message, first.done = t.model, t.created_at, t.message, false
    last.message, last.done = { role = "assistant", content = "" }, true
    return { json.encode(first), "\n", json.encode(last), "\n" }
end

local function spoken_at(path)
    return anthropic.spoken(path) and anthropic or gemini.spoken(path) and gemini or ollama.spoken(path) and ollama
        or openai
end

-- ---- the answer

-- Does the client wait for events? Gemini says so by the path; without alt=sse its stream is a list.
local function streams(req, dialect)
    if dialect ~= gemini then return req.stream end
    return req.path:find(":streamGenerateContent$") ~= nil
end

local function of_table(t, req)
    local dialect
    for _, one in ipairs({ openai, anthropic, gemini, ollama }) do
        if not dialect and one.has_form(t) then dialect = one end
    end
    if not dialect or not streams(req, dialect) then return json.encode(t) end
    if dialect == gemini and not req.query:find("alt=sse", 1, true) then return json.encode({ t }) end
    return table.concat(dialect.events(t, req)), dialect.content_type or EVENTS
end

-- The bytes and the content type of an admit verdict with `answer` or `say`. Raises what has no JSON form.
function M.of(verdict, req)
    local answer = verdict.answer
    if verdict.say then answer = spoken_at(req.path or "").said(verdict.say, req) end
    if type(answer) == "string" then return answer, verdict.content_type or "text/plain; charset=utf-8" end
    local body, kind = of_table(answer, req)
    return body, kind or verdict.content_type or "application/json"
end

return M
