-- answer: a plain answer of Ollama's chat, and what its lines share with it.

local errors = require("claw.protocols.openai_chat.error")
local fields = require("claw.protocols.fields")
local json = require("claw.json")

local M = {}

local word, text_of, count = fields.word, fields.text, fields.count
local list, object, members = fields.list, fields.object, fields.fields

local STOP = { stop = "end", length = "length" }

function M.stop(reason, calls)
    local stop = STOP[reason] or "end"
    return stop == "end" and calls and "call" or stop
end

-- Of a prompt that it remembers whole, older versions tell no count.
function M.usage(body)
    local input, output = count(body.prompt_eval_count), count(body.eval_count)
    if not input and not output then return nil end
    return { input = input or 0, output = output or 0 }
end

-- Calls had no ids, and may have none.
function M.call(given, cx)
    local named = members(given["function"])
    return { kind = "call", id = word(given.id) or cx.id("call_"), name = text_of(named.name) or "" }
end

-- { token, logprob, top_logprobs }, as OpenAI says them.
function M.logprobs(body)
    local all = fields.array(body.logprobs)
    return all and #all > 0 and { content = all } or nil
end

function M.read(body, cx)
    body = object(body)
    local message = body and object(body.message)
    if not message then
        local err = body and errors.find(body)
        if err then return { parts = {}, stop = "error", error = err } end
        return nil, "no message in the upstream's answer"
    end
    local parts, calls = {}, list(message.tool_calls)
    if word(message.thinking) then parts[1] = { kind = "thinking", text = message.thinking } end
    if word(message.content) then parts[#parts + 1] = { kind = "text", text = message.content } end
    local called = false
    for i = 1, #calls do
        if object(calls[i]) then
            local part = M.call(calls[i], cx)
            part.input = object(members(calls[i]["function"]).arguments) or "{}"
            parts[#parts + 1], called = part, true
        end
    end
    return { model = word(body.model), created = cx.now, parts = parts, stop = M.stop(body.done_reason, called),
        usage = M.usage(body), logprobs = M.logprobs(body) }
end

-- ---- writing

local REASON = { length = "length", context = "length", filter = "content_filter" }

-- A refusal that has words is told by them.
function M.reason(stop, refused)
    if stop == "refusal" and not refused then return "content_filter" end
    return REASON[stop] or "stop"
end

function M.time(seconds)
    return os.date("!%Y-%m-%dT%H:%M:%SZ", seconds)
end

local FORM = { text = true, thinking = true, refusal = true, redacted = true }

-- Does a part, which is no call, have a form here? What only its provider can read has none, and is not missed.
function M.has_form(part)
    return FORM[part.kind] or part.kind == "image" and part.data ~= nil
end

-- Arguments must be an object: text that is none is kept in one.
local function object_text(text, cx)
    if not text:find("%S") then return "{}" end
    local given = cx.parse(text)
    if not object(given) then return json.encode({ input = text }) end
    return (text:gsub("[\r\n]", " ")) -- between its words: a line is one line
end

-- A call as JSON. text: its arguments.
function M.call_text(call, text, index, cx)
    return ('{"id":%s,"function":{"index":%d,"name":%s,"arguments":'):format(json.quote(call.id or cx.id("call_")),
        index,
        json.quote(call.name or "")) .. object_text(text, cx) .. "}}"
end

-- logprobs as JSON, or nil.
function M.logprobs_text(given)
    local all = list(members(given).content)
    return #all > 0 and fields.encoded(members(given).content) or nil
end

function M.write_error(err) return { error = err.message } end
function M.write_error_event(err) return { data = json.encode(M.write_error(err)) } end

-- Durations are the model's, and nobody told them.
function M.write(answer, cx)
    if answer.error then return M.write_error(answer.error) end
    local texts, thought, calls, images, refused = {}, {}, {}, {}, nil
    for _, part in ipairs(answer.parts) do
        if part.kind == "call" then
            local text = type(part.input) == "table" and json.encode(part.input) or tostring(part.input or "")
            calls[#calls + 1] = cx.parse(M.call_text(part, text, #calls, cx))
        elseif part.kind == "thinking" then
            thought[#thought + 1] = part.text ~= "" and part.text or nil
        elseif part.kind == "text" or part.kind == "refusal" then
            texts[#texts + 1] = part.text
            refused = refused or part.kind == "refusal"
            if part.citations then cx.drop("citations", "hint", "the client's protocol has none") end
        elseif part.kind == "image" and part.data then
            images[#images + 1] = part.data
        elseif not M.has_form(part) then
            cx.drop("content." .. tostring(part.what or part.kind), "hint", "the client's protocol has no such part")
        end
    end
    local message = { role = "assistant", content = table.concat(texts), images = images[1] and images,
        thinking = thought[1] and table.concat(thought, "\n\n"), tool_calls = calls[1] and calls }
    local usage, told = answer.usage, M.logprobs_text(answer.logprobs)
    return { model = answer.model or cx.model, created_at = M.time(answer.created or cx.now), message = message,
        done = true, done_reason = M.reason(answer.stop, refused), prompt_eval_count = usage and (usage.input or 0),
        eval_count = usage and (usage.output or 0), logprobs = told and cx.parse(told) or nil }
end

return M
