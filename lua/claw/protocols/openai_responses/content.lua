-- content: parts of messages, and what an item says besides: calls, results, reasoning. Of requests and of answers.

local fields = require("claw.protocols.fields")
local json = require("claw.json")
local losses = require("claw.protocols.losses")
local seal = require("claw.protocols.seal")

local M = {}

local word, text_of, count = fields.word, fields.text, fields.count
local object, list, members = fields.object, fields.list, fields.fields

M.FAMILY = "openai"          -- whose secrets encrypted_content has
M.OWN = "openai_responses"   -- origin of what only this protocol can say

-- ---- reading

-- media type and base64 of a data: URL, or nil.
local function inline(url)
    local kind, data = url:match("^data:([^,]-);base64,(.*)$")
    if kind then return kind:match("^([^;]*)"), data end
end

-- annotations as citations. They count characters of their part's text.
function M.citations(annotations)
    local out, all = {}, list(annotations)
    for i = 1, #all do
        local one = members(all[i])
        if one.type == "url_citation" and word(one.url) then
            out[#out + 1] = { url = one.url, title = word(one.title), start = count(one.start_index),
                finish = count(one.end_index) }
        elseif object(all[i]) then
            out[#out + 1] = { title = word(one.filename), raw = all[i], origin = M.OWN }
        end
    end
    return out[1] and out or nil
end

local READ = {}

function READ.output_text(part)
    return { kind = "text", text = text_of(part.text) or "", citations = M.citations(part.annotations) }
end
READ.input_text, READ.text = READ.output_text, READ.output_text

function READ.refusal(part)
    return { kind = "refusal", text = text_of(part.refusal) or "" }
end

function READ.input_image(part)
    local detail, url = word(part.detail), word(part.image_url)
    if word(part.file_id) then return { kind = "image", file_id = part.file_id, origin = "openai", detail = detail } end
    if not url then return nil end
    local kind, data = inline(url)
    if data then return { kind = "image", data = data, media_type = kind, detail = detail } end
    return { kind = "image", url = url, detail = detail }
end

function READ.input_file(part)
    local title, said = word(part.filename), word(part.file_data)
    if said then
        local kind, data = inline(said)
        return { kind = "document", data = data or said, media_type = kind or "application/pdf", title = title }
    end
    if word(part.file_url) then return { kind = "document", url = part.file_url, title = title } end
    if word(part.file_id) then
        return { kind = "document", file_id = part.file_id, origin = "openai", title = title }
    end
end

function READ.input_audio(part)
    local audio = object(part.input_audio) or part
    return word(audio.data) and { kind = "audio", data = audio.data, format = word(audio.format) or "wav" } or nil
end

local KNOWN = { refusal = losses.set("type refusal"), input_image = losses.set("type detail image_url file_id"),
    input_file = losses.set("type filename file_data file_url file_id detail"),
    input_audio = losses.set("type input_audio data format") }
for _, kind in ipairs({ "output_text", "input_text", "text" }) do
    KNOWN[kind] = losses.set("type text logprobs")
end

-- Adds the parts of a content (a text or a list) to `out`. cx, at, name: of a request, the item's place and the member
-- of it.
function M.read(content, out, cx, at, name)
    if type(content) == "string" then
        if content ~= "" then out[#out + 1] = { kind = "text", text = content } end
        return
    end
    local all = list(content)
    for i = 1, #all do
        local part = object(all[i])
        local read = part and READ[part.type]
        local got = read and read(part)
        if got and at then losses.extra(part, KNOWN[part.type], cx, "input[%d]." .. name .. "[%d]", at, i - 1) end
        if got then
            out[#out + 1] = got
        elseif part then
            out[#out + 1] = { kind = "other", raw = part, origin = M.OWN, what = word(part.type) or "untyped" }
        elseif word(all[i]) then
            out[#out + 1] = { kind = "text", text = all[i] }
        end
    end
end

local function input_of(text, cx)
    if not text or not text:find("%S") or text:find("^%s*null%s*$") then return cx.parse("{}") end
    return cx.parse(text) or text
end

function M.read_call(item, cx)
    return { kind = "call", id = word(item.call_id) or word(item.id) or cx.id("call_"), name = word(item.name) or "",
        input = object(item.arguments) or input_of(text_of(item.arguments), cx) }
end

function M.custom_input(text)
    return json.encode({ input = text })
end

function M.read_custom_call(item, cx)
    return { kind = "call", id = word(item.call_id) or word(item.id) or cx.id("call_"), name = word(item.name) or "",
        input = cx.parse(M.custom_input(text_of(item.input) or "")), custom = true }
end

function M.read_result(item, cx, at)
    local out = { kind = "result", id = word(item.call_id) or cx.id("call_"), parts = {} }
    M.read(item.output, out.parts, cx, at, "output")
    return out
end

local function joined(all)
    local out, given = {}, list(all)
    for i = 1, #given do
        local text = word(members(given[i]).text)
        out[#out + 1] = text
    end
    return table.concat(out, "\n\n")
end

-- A reasoning item: thinking, redacted thinking, or nil when it says nothing. family: whose secret it may be.
function M.read_reasoning(item, family)
    local said, content = joined(item.summary), joined(item.content)
    local secret, origin, redacted = word(item.encrypted_content), nil, nil
    if secret then secret, origin, redacted = seal.open(secret, family or M.FAMILY) end
    local text = said ~= "" and said or content
    local own = secret and origin == (family or M.FAMILY)
    if redacted or own and text == "" then
        return { kind = "redacted", data = secret, origin = origin, id = own and word(item.id) or nil }
    end
    if text == "" and not secret then return nil end
    return { kind = "thinking", text = text, signature = secret, origin = origin, id = word(item.id),
        summary = said ~= "" or nil }
end

-- ---- writing: parts of a turn of a request

local function data_url(part, usual)
    return "data:" .. (part.media_type or usual) .. ";base64," .. part.data
end

local WRITE = {}

function WRITE.text(part, cx, assistant)
    if part.text == "" then return nil end
    if part.cache then cx.drop("cache_control", "hint", "OpenAI caches by itself") end
    if assistant then return { type = "output_text", text = part.text, annotations = json.array() } end
    return { type = "input_text", text = part.text }
end

function WRITE.refusal(part, _, assistant)
    if assistant then return { type = "refusal", refusal = part.text } end
    return { type = "input_text", text = part.text }
end

function WRITE.image(part, cx)
    if part.cache then cx.drop("cache_control", "hint", "OpenAI caches by itself") end
    local own = part.file_id and part.origin == "openai"
    if part.file_id and not own then
        return cx.drop("messages.content.image.file_id", "content", "files are the provider's own")
    end
    return { type = "input_image", detail = part.detail or "auto", file_id = part.file_id,
        image_url = part.data and data_url(part, "image/png") or part.url }
end

function WRITE.document(part, cx)
    if part.cache then cx.drop("cache_control", "hint", "OpenAI caches by itself") end
    if part.citations then cx.drop("messages.content.document.citations", "hint") end
    if part.text then
        local lines = { part.title }
        lines[#lines + 1] = part.context
        lines[#lines + 1] = part.text
        return { type = "input_text", text = table.concat(lines, "\n\n") }
    end
    if part.file_id and part.origin ~= "openai" then
        return cx.drop("messages.content.document.file_id", "content", "files are the provider's own")
    end
    if part.data then
        return { type = "input_file", filename = part.title or "document.pdf",
            file_data = data_url(part, "application/pdf") }
    end
    return { type = "input_file", file_id = part.file_id, file_url = part.url }
end

function WRITE.audio(part)
    return { type = "input_audio", input_audio = { data = part.data, format = part.format or "wav" } }
end

-- A part as a message's content, or nil.
function M.write(part, cx, assistant)
    local write = WRITE[part.kind]
    if write and not (assistant and part.kind ~= "text" and part.kind ~= "refusal") then
        return write(part, cx, assistant)
    elseif part.origin == M.OWN and part.raw and part.kind == "other" then
        return part.raw
    end
    cx.drop("messages.content." .. tostring(part.what or part.kind), "content")
end

function M.arguments(input)
    if type(input) == "table" then return fields.encoded(input) or "{}" end
    local text = input ~= nil and tostring(input) or ""
    return text:find("%S") and text or "{}"
end

-- The text in a custom call's input.
function M.custom_text(input, cx)
    local text = M.arguments(input)
    local decoded = cx.decode(text)
    return type(decoded) == "table" and text_of(decoded.input) or text
end

function M.summary(text)
    return text ~= "" and json.array({ { type = "summary_text", text = text } }) or json.array()
end

return M
