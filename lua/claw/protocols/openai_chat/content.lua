-- content: what an OpenAI chat message says, as parts of the vocabulary.
--
-- Providers that speak this protocol add to it: reasoning_content (DeepSeek, xAI), reasoning and reasoning_details
-- (OpenRouter, Groq), content that is an array of thinking chunks (Mistral), extra_content (Gemini).

local fields = require("claw.protocols.fields")
local losses = require("claw.protocols.losses")

local M = {}

local word, text_of = fields.word, fields.text
local list, object, members = fields.list, fields.object, fields.fields

-- OpenRouter's names of whose reasoning a detail is.
local FAMILY = { ["anthropic-claude-v1"] = "anthropic", ["google-gemini-v1"] = "gemini",
    ["openai-responses-v1"] = "openai" }
M.FAMILY = FAMILY

-- media_type, base64 of a data: URL, or nil.
function M.data_url(url)
    local head, data = url:match("^data:([^,]*);base64,(.*)$")
    if head then return head:match("^[^;]+") or "text/plain", data end
end

local function mark(part)
    local control = object(part.cache_control)
    return control and (word(control.ttl) or true) or nil
end

local function located(part, url)
    local media_type, data = M.data_url(url)
    if data then
        part.media_type, part.data = media_type, data
    else
        part.url = url
    end
    return part
end

local READ = {}

function READ.text(part)
    return { kind = "text", text = text_of(part.text) or "", cache = mark(part) }
end

function READ.image_url(part)
    local given = part.image_url
    local url = text_of(given) or text_of(members(given).url)
    if not url then return nil end
    return located({ kind = "image", detail = word(members(given).detail), cache = mark(part) }, url)
end

function READ.input_audio(part)
    local audio = members(part.input_audio)
    if not text_of(audio.data) then return nil end
    return { kind = "audio", data = audio.data, format = word(audio.format) }
end

function READ.file(part)
    local file = members(part.file)
    local out = { kind = "document", title = word(file.filename), cache = mark(part) }
    if text_of(file.file_data) then
        if file.file_data:find("^https?://") then -- as OpenRouter's clients have it
            out.url = file.file_data
            return out
        end
        local media_type, data = M.data_url(file.file_data)
        out.media_type, out.data = media_type or "application/pdf", data or file.file_data
    elseif word(file.file_id) then
        out.file_id, out.origin = file.file_id, "openai"
    else
        return nil
    end
    return out
end

function READ.video_url(part)
    local url = text_of(part.video_url) or text_of(members(part.video_url).url)
    return url and located({ kind = "video" }, url) or nil
end

function READ.document_url(part) -- Mistral
    local url = text_of(part.document_url)
    return url and located({ kind = "document", title = word(part.document_name) }, url) or nil
end

function READ.refusal(part)
    return { kind = "refusal", text = text_of(part.refusal) or "" }
end

-- Mistral: { type: "thinking", thinking: [{ type: "text", text }] }
function M.thinking_text(chunk)
    if text_of(chunk.thinking) then return chunk.thinking end
    local said, chunks = {}, list(chunk.thinking)
    for i = 1, #chunks do said[#said + 1] = text_of(members(chunks[i]).text) end
    return table.concat(said)
end

function READ.thinking(part)
    return { kind = "thinking", text = M.thinking_text(part) }
end

M.mark = mark

local KNOWN = {}
for kind, words in pairs({ text = "text", image_url = "image_url", input_audio = "input_audio", file = "file",
    video_url = "video_url", document_url = "document_url document_name", refusal = "refusal",
    thinking = "thinking" }) do
    KNOWN[kind] = losses.set("type cache_control " .. words)
end
local INNER = { image_url = losses.set("url detail"), input_audio = losses.set("data format"),
    file = losses.set("filename file_data file_id"), video_url = losses.set("url") }

-- What a part says that no part of the vocabulary does. at: its message's place.
local function lose(part, cx, at, i)
    losses.extra(part, KNOWN[part.type], cx, "messages[%d].content[%d]", at, i)
    local inner = INNER[part.type] and object(part[part.type])
    if inner then
        losses.extra(inner, INNER[part.type], cx, "messages[%d].content[%d]." .. part.type, at, i)
    end
end

-- Adds the parts of a message's content to `parts`. cx, at: of a request, the message's place (from 0).
function M.read(content, parts, cx, at)
    if text_of(content) then
        parts[#parts + 1] = { kind = "text", text = content }
        return
    end
    local chunks = object(content) and { content } or list(content)
    for i = 1, #chunks do
        local part = object(chunks[i])
        if text_of(chunks[i]) then parts[#parts + 1] = { kind = "text", text = chunks[i] } end
        local read = part and READ[part.type]
        local got = read and read(part)
        if got and at then lose(part, cx, at, i - 1) end
        if not got and part then
            got = { kind = "other", raw = part, origin = "openai", what = text_of(part.type) or "untyped" }
        end
        parts[#parts + 1] = got
    end
end

local function read_detail(detail, parts)
    local origin = FAMILY[detail.format]
    local kind, id = detail.type, word(detail.id)
    if kind == "reasoning.encrypted" and word(detail.data) then
        parts[#parts + 1] = { kind = "redacted", data = detail.data, origin = origin, id = id }
    elseif kind == "reasoning.text" or kind == "reasoning.summary" then
        local said = text_of(kind == "reasoning.text" and detail.text or detail.summary) or ""
        local signature = word(detail.signature)
        if said == "" and not signature then return end
        parts[#parts + 1] = { kind = "thinking", text = said, signature = signature, origin = signature and origin,
            id = id, summary = kind == "reasoning.summary" or nil }
    end
end

-- Adds a message's reasoning to `parts`: details know more than the plain text does.
function M.read_reasoning(message, parts)
    local plain = word(message.reasoning_content) or word(message.reasoning)
    local details, first, said = list(message.reasoning_details), #parts + 1, false
    for i = 1, #details do
        local detail = object(details[i])
        if detail then read_detail(detail, parts) end
    end
    for i = first, #parts do said = said or (parts[i].text or "") ~= "" end
    if not plain or said then return end
    if parts[first] and parts[first].kind == "thinking" then -- a detail with the signature alone
        parts[first].text = plain
    else
        table.insert(parts, first, { kind = "thinking", text = plain })
    end
end

-- A call's arguments: a document when they are an object, else their text.
function M.read_input(arguments, cx)
    if object(arguments) then return arguments end
    local said = text_of(arguments) or ""
    if not said:find("%S") or said:find("^%s*null%s*$") then return cx.parse("{}") end -- some models say null for none
    local doc = cx.parse(said)
    return object(doc) and doc or said
end

local function read_call(call, cx)
    local custom = call.type == "custom" and object(call.custom)
    local named = custom or members(call["function"])
    local google = members(members(call.extra_content).google)
    local signature = word(google.thought_signature)
    local part = { kind = "call", id = word(call.id) or cx.id("call_"), name = text_of(named.name) or "",
        signature = signature, origin = signature and "gemini" or nil }
    if custom then
        part.custom, part.input = true, text_of(custom.input) or ""
    else
        part.input = M.read_input(named.arguments, cx)
    end
    return part
end

local CALL = losses.set("id type function custom index extra_content")
local NAMED = losses.set("name arguments input")

-- Adds a message's calls to `parts`. at: as for read().
function M.read_calls(message, parts, cx, at)
    local calls = list(message.tool_calls)
    for i = 1, #calls do
        local call = object(calls[i])
        if call then
            parts[#parts + 1] = read_call(call, cx)
            if at then losses.extra(call, CALL, cx, "messages[%d].tool_calls[%d]", at, i - 1) end
            local named = at and object(call["function"])
            if named then losses.extra(named, NAMED, cx, "messages[%d].tool_calls[%d].function", at, i - 1) end
        end
    end
end

-- The one call of the time before tools.
function M.read_legacy_call(message, parts, cx)
    local call = object(message.function_call)
    if not call then return nil end
    local part = { kind = "call", id = cx.id("call_"), name = text_of(call.name) or "",
        input = M.read_input(call.arguments, cx) }
    parts[#parts + 1] = part
    return part.id
end

-- An answer in audio: its words are in the transcript.
function M.read_audio(message, parts)
    local audio = object(message.audio)
    if not audio then return end
    if word(audio.transcript) then parts[#parts + 1] = { kind = "text", text = audio.transcript } end
    if text_of(audio.data) then
        parts[#parts + 1] = { kind = "audio", data = audio.data, raw = audio }
    else
        parts[#parts + 1] = { kind = "other", raw = audio, origin = "openai_message", what = "audio" }
    end
end

-- Images of an answer, as OpenRouter has them beside its text.
function M.read_images(message, parts)
    local all = list(message.images)
    for i = 1, #all do
        local image = object(all[i])
        parts[#parts + 1] = image and READ.image_url(image) or nil
    end
end

-- Adds url_citation annotations to the text part they speak of.
function M.read_annotations(message, part)
    local notes = list(message.annotations)
    for i = 1, #notes do
        local cited = object(members(notes[i]).url_citation)
        if cited and word(cited.url) then
            part.citations = part.citations or {}
            table.insert(part.citations, { url = cited.url, title = word(cited.title),
                start = fields.count(cited.start_index), finish = fields.count(cited.end_index) })
        end
    end
end

return M
