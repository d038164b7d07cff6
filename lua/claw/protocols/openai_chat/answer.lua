-- answer: a plain answer of OpenAI's chat protocol, read and written; stop reasons and usage for streams too.

local content = require("claw.protocols.openai_chat.content")
local spelling = require("claw.protocols.openai_chat.spelling")
local errors = require("claw.protocols.openai_chat.error")
local fields = require("claw.protocols.fields")
local json = require("claw.json")
local unfinished = require("claw.protocols.errors").unfinished

local M = {}

local word, text_of, count = fields.word, fields.text, fields.count
local list, object, members = fields.list, fields.object, fields.fields

-- ---- reading

local STOP = { stop = "end", length = "length", max_tokens = "length", tool_calls = "call", function_call = "call",
    content_filter = "filter", model_length = "context", error = "error", insufficient_system_resource = "error" }

-- The stop of a finish_reason, nil when there is none yet: null, "" and "null" are none. Calls that end with "stop", as
-- they do when the tool was forced, are calls all the same.
function M.stop(finish, calls, refused)
    finish = word(finish)
    if not finish or finish == "null" then return nil end
    local stop = STOP[finish] or "end"
    if stop == "end" and calls then return "call" end
    if refused and (stop == "end" or stop == "filter") then return "refusal" end
    return stop
end

-- Usage as the vocabulary counts it. Some (xAI, Gemini) leave reasoning out of completion_tokens: the total has it.
function M.read_usage(u)
    u = object(u)
    local input = u and (count(u.prompt_tokens) or count(u.input_tokens))
    if not input then return nil end
    local output = count(u.completion_tokens) or count(u.output_tokens) or 0
    local prompt, completion = members(u.prompt_tokens_details), members(u.completion_tokens_details)
    local reasoning = count(completion.reasoning_tokens)
    local hidden = (count(u.total_tokens) or 0) - input - output
    if hidden > 0 then
        output = output + hidden
        reasoning = math.max(reasoning or 0, hidden)
    end
    return { input = input, output = output, reasoning = reasoning,
        cached = count(prompt.cached_tokens) or count(u.prompt_cache_hit_tokens),
        cache_write = count(prompt.cache_write_tokens),
        audio_input = count(prompt.audio_tokens), audio_output = count(completion.audio_tokens) }
end

-- Where a body has its usage (Groq's streams: in x_groq).
function M.usage_in(body)
    return M.read_usage(body.usage) or M.read_usage(members(body.x_groq).usage)
end

local function read_choice(choice, cx)
    local message, parts = object(choice.message), {}
    if message then
        content.read_reasoning(message, parts)
        local first = #parts + 1
        content.read(message.content, parts)
        local part = parts[first]
        if part and part.kind == "text" then
            if part.text == "" then table.remove(parts, first) else content.read_annotations(message, part) end
        end
        content.read_images(message, parts)
        if word(message.refusal) then parts[#parts + 1] = { kind = "refusal", text = message.refusal } end
        content.read_calls(message, parts, cx)
        content.read_legacy_call(message, parts, cx)
        content.read_audio(message, parts)
    end
    local calls, refused
    for _, part in ipairs(parts) do
        calls, refused = calls or part.kind == "call", refused or part.kind == "refusal"
    end
    return { parts = parts, stop = M.stop(choice.finish_reason, calls, refused) or (calls and "call" or "end"),
        logprobs = object(choice.logprobs), filter = object(choice.content_filter_results) }
end

function M.read(body, cx)
    local choices = fields.array(members(body).choices)
    local first_choice = choices and object(choices[1])
    local failed = first_choice and object(first_choice.error) and first_choice or body
    local err = fields.says(members(failed).error) and errors.find(failed)
    if err then return { parts = {}, stop = "error", error = err } end
    if not first_choice then return nil, "no choices in the upstream's answer" end
    local out = { id = word(body.id), model = word(body.model), created = count(body.created), usage = M.usage_in(body),
        service_tier = word(body.service_tier), fingerprint = word(body.system_fingerprint) }
    local all = {}
    for i = 1, #choices do
        if object(choices[i]) then all[#all + 1] = read_choice(choices[i], cx) end
    end
    local first = all[1]
    out.parts, out.stop, out.logprobs, out.filter = first.parts, first.stop, first.logprobs, first.filter
    if all[2] then out.choices = all end
    for i, choice in ipairs(all) do
        if choice.stop == "error" then
            out.stop, out.error = "error", out.error or unfinished(word(members(choices[i]).finish_reason))
        end
    end
    -- Perplexity's sources, which its text names by number.
    local sources, part = list(body.citations), first.parts[1]
    if part and part.kind == "text" and not part.citations then
        for i = 1, #sources do
            if text_of(sources[i]) then
                part.citations = part.citations or {}
                local found = members(list(body.search_results)[i])
                table.insert(part.citations, { url = sources[i], title = word(found.title) })
            end
        end
    end
    return out
end

-- ---- writing

local FINISH = { length = "length", context = "length", call = "tool_calls", filter = "content_filter" }

-- A refusal that has words is told by them; one that has none, only by the reason.
function M.finish(stop, refused, cx)
    if stop == "call" and cx.request and cx.request.legacy then return "function_call" end
    if stop == "refusal" then return refused and "stop" or "content_filter" end
    return FINISH[stop] or "stop"
end

function M.write_usage(u)
    local out = { prompt_tokens = u.input or 0, completion_tokens = u.output or 0,
        total_tokens = (u.input or 0) + (u.output or 0),
        prompt_tokens_details = { cached_tokens = u.cached or 0, audio_tokens = u.audio_input,
            cache_write_tokens = u.cache_write },
        completion_tokens_details = { reasoning_tokens = u.reasoning or 0, audio_tokens = u.audio_output } }
    return out
end

local LEFT_OUT = { server_call = true, server_result = true, other = true, audio = true, document = true, video = true }

-- Characters of a text (annotations count these, not bytes).
function M.length(text)
    if not text:find("[\128-\255]") then return #text end
    local _, n = text:gsub("[^\128-\191]", "")
    return n
end
local length = M.length

-- Citations of a text part, which is `size` characters long, as annotations; `before`: characters of the message's
-- content in front of it. Only those with a URL have a form here.
function M.annotations(part_citations, before, size, notes, cx)
    for _, c in ipairs(part_citations or {}) do
        if c.url then
            notes[#notes + 1] = { type = "url_citation", url_citation = { url = c.url, title = c.title or "",
                start_index = before + (c.start or 0), end_index = before + (c.finish or size) } }
        else
            cx.drop("citations", "hint", "the client's protocol cites web pages only")
        end
    end
end

function M.write_message(parts, cx)
    local message, said, refused, calls, notes, at = { role = "assistant" }, {}, {}, {}, {}, 0
    for _, part in ipairs(parts) do
        if part.kind == "text" then
            said[#said + 1] = part.text
            local size = length(part.text)
            M.annotations(part.citations, at, size, notes, cx)
            at = at + size
        elseif part.kind == "refusal" then
            refused[#refused + 1] = part.text
        elseif part.kind == "call" then
            calls[#calls + 1] = spelling.write_call(part)
        elseif part.kind == "image" and (part.data or part.url) then
            message.images = message.images or {}
            table.insert(message.images, spelling.write(part, cx))
        elseif part.kind == "audio" and part.raw then
            message.audio = part.raw
        elseif LEFT_OUT[part.kind] then
            cx.drop("content." .. tostring(part.what or part.kind), "hint", "the client's protocol has no such part")
        end
    end
    spelling.write_reasoning(message, parts)
    message.content = said[1] and table.concat(said) or json.null
    message.refusal = refused[1] and table.concat(refused) or json.null
    message.annotations = notes[1] and notes
    if not (cx.request and cx.request.legacy) then
        message.tool_calls = calls[1] and calls
    elseif calls[1] then -- the client is of the time before tools
        message.function_call = calls[1]["function"]
    end
    return message
end

local function write_choice(choice, index, cx)
    local message = M.write_message(choice.parts or {}, cx)
    return { index = index, message = message, logprobs = choice.logprobs or json.null,
        content_filter_results = choice.filter,
        finish_reason = M.finish(choice.stop, message.refusal ~= json.null, cx) }
end

function M.write(answer, cx)
    if answer.error then return errors.write(answer.error) end
    local out = { id = answer.id or cx.id("chatcmpl-"), object = "chat.completion", created = answer.created or cx.now,
        model = answer.model or cx.model, choices = {}, service_tier = answer.service_tier,
        system_fingerprint = answer.fingerprint, usage = answer.usage and M.write_usage(answer.usage) }
    for i, choice in ipairs(answer.choices or { answer }) do
        out.choices[i] = write_choice(choice, i - 1, cx)
    end
    return out
end

return M
