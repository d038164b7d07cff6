-- spelling: parts of the vocabulary as what an OpenAI chat message says.

local content = require("claw.protocols.openai_chat.content")
local json = require("claw.json")

local M = {}

local FORMAT = {}
for format, family in pairs(content.FAMILY) do FORMAT[family] = format end

local EXTENSION = { ["application/pdf"] = ".pdf", ["text/plain"] = ".txt", ["text/markdown"] = ".md",
    ["text/csv"] = ".csv", ["text/html"] = ".html", ["application/json"] = ".json" }

local function data_url(media_type, data)
    return ("data:%s;base64,%s"):format(media_type or "application/octet-stream", data)
end

local function marked(out, part, cx)
    if not part.cache then return out end
    if not cx.provider.cache_control then
        cx.drop("cache_control", "hint", "the upstream caches by itself")
        return out
    end
    out.cache_control = { type = "ephemeral", ttl = type(part.cache) == "string" and part.cache or nil }
    return out
end

local WRITE = {}

function WRITE.text(part) return { type = "text", text = part.text } end
function WRITE.refusal(part) return { type = "text", text = part.text } end

function WRITE.image(part, cx)
    if part.file_id then return cx.drop("messages.content.image.file_id", "content", "files are the provider's own") end
    return { type = "image_url",
        image_url = { url = part.url or data_url(part.media_type or "image/png", part.data), detail = part.detail } }
end

-- A document that is text goes as text, with its title and context in front: nothing of it is lost.
local function document_text(part)
    local lines = {}
    if part.title then lines[1] = part.title end
    if part.context then lines[#lines + 1] = part.context end
    lines[#lines + 1] = part.text
    return { type = "text", text = table.concat(lines, "\n\n") }
end

function WRITE.document(part, cx)
    if part.citations then cx.drop("messages.content.document.citations", "hint") end
    if part.text then return document_text(part) end
    if part.data then
        local name = part.title or "document" .. (EXTENSION[part.media_type] or "")
        return { type = "file", file = { filename = name, file_data = data_url(part.media_type, part.data) } }
    elseif part.url and cx.provider.document_url then
        return { type = "document_url", document_url = part.url, document_name = part.title }
    elseif part.file_id and part.origin == "openai" then
        return { type = "file", file = { file_id = part.file_id, filename = part.title } }
    end
    cx.drop("messages.content.document", "content", part.url and "documents go by content, not by URL"
        or "files are the provider's own")
end

function WRITE.audio(part)
    return { type = "input_audio", input_audio = { data = part.data, format = part.format or "wav" } }
end

function WRITE.video(part, cx)
    if not cx.provider.video_url then return cx.drop("messages.content.video", "content") end
    return { type = "video_url", video_url = { url = part.url or data_url(part.media_type or "video/mp4", part.data) } }
end

function WRITE.other(part, cx)
    if part.origin == "openai" then return part.raw end
    cx.drop("messages.content." .. tostring(part.what), "content")
end

local function server(part, cx)
    cx.drop("messages.content." .. part.kind, "content", "a provider's own tools")
end
WRITE.server_call, WRITE.server_result = server, server

-- A part of a user's or system's message; nil when it cannot be said.
function M.write(part, cx)
    local write = WRITE[part.kind]
    local out = write and write(part, cx)
    return out and marked(out, part, cx)
end

-- A part that has no place in an assistant's message.
function M.lose(part, cx)
    cx.drop("messages.content." .. tostring(part.what or part.kind), "content")
end

-- A call's arguments as the text they are here.
function M.arguments(input)
    if type(input) == "string" then return input:find("%S") and input or "{}" end
    if type(input) == "table" then return json.encode(input) end
    return input and tostring(input) or "{}"
end

-- OpenAI takes ids of 40 characters; `tool_id_length`: so many letters and digits, no more and no less (Mistral: 9). Of
-- a longer one its end tells it apart.
function M.id(id, cx)
    local length = cx.provider.tool_id_length
    if length then
        local plain = id:gsub("%W", "")
        return (("0"):rep(length) .. plain):sub(-length)
    end
    return #id > 40 and id:sub(-40) or id
end

-- For an answer's client ids stay as they are: then there is no `cx`.
function M.write_call(part, cx)
    local out = { id = cx and M.id(part.id, cx) or part.id }
    if part.custom and type(part.input) == "string" then -- of Responses it is an object: there the tool is a function
        out.type, out.custom = "custom", { name = part.name, input = part.input }
    else
        out.type, out["function"] = "function", { name = part.name, arguments = M.arguments(part.input) }
    end
    if part.signature and part.origin == "gemini" then
        out.extra_content = { google = { thought_signature = part.signature } }
    end
    return out
end

-- What a client hands back of a thinking part, or nil when it has no secret to carry.
function M.write_detail(part, index)
    local format = FORMAT[part.origin]
    if part.kind == "redacted" then
        return { type = "reasoning.encrypted", data = part.data, format = format, id = part.id, index = index }
    elseif part.signature then
        return { type = "reasoning.text", text = part.text, signature = part.signature, format = format, id = part.id,
            index = index }
    end
end

-- Sets a message's reasoning_content and reasoning_details.
function M.write_reasoning(message, parts)
    local said, details = {}, {}
    for _, part in ipairs(parts) do
        if part.kind == "thinking" and part.text ~= "" then said[#said + 1] = part.text end
        if part.kind == "thinking" or part.kind == "redacted" then
            details[#details + 1] = M.write_detail(part, #details)
        end
    end
    message.reasoning_content = said[1] and table.concat(said, "\n\n") or nil
    message.reasoning_details = details[1] and details
end

return M
