-- messages: turns of the vocabulary as Ollama's messages: content is one text, images are base64 beside it, a result
-- names its tool.

local base64 = require("claw.base64")
local fields = require("claw.protocols.fields")
local json = require("claw.json")
local spelling = require("claw.protocols.openai_chat.spelling")

local M = {}

local TEXT = { ["application/json"] = true, ["application/xml"] = true, ["application/yaml"] = true }

local function document_text(part)
    local text, media_type = part.text, part.media_type or ""
    if part.data and (media_type:find("^text/") or TEXT[media_type]) then text = base64.decode(part.data) end
    if not text then return nil end
    local lines = { part.title }
    lines[#lines + 1] = part.context
    lines[#lines + 1] = text
    return table.concat(lines, "\n\n")
end

-- Adds what a part says to texts and images.
local function add(part, texts, images, cx)
    if part.cache then cx.drop("cache_control", "hint", "the upstream caches by itself") end
    if part.kind == "text" or part.kind == "refusal" then
        texts[#texts + 1] = part.text
    elseif part.kind == "image" then
        if not part.data then
            return cx.drop("messages.content.image", "content", "images go by content, not by URL")
        end
        images[#images + 1] = part.data
    elseif part.kind == "document" and document_text(part) then
        texts[#texts + 1] = document_text(part)
    else
        spelling.lose(part, cx)
    end
end

local function message_of(role, parts, cx)
    local texts, images = {}, {}
    for _, part in ipairs(parts) do add(part, texts, images, cx) end
    return { role = role, content = table.concat(texts, "\n"), images = images[1] and images or nil }
end

local WRITE = {}

function WRITE.user(t, messages, cx, names)
    local rest = {}
    for _, part in ipairs(t.parts) do
        if part.kind == "result" then
            local message = message_of("tool", part.parts, cx)
            message.tool_name, message.tool_call_id = part.name or names[part.id], part.id
            if part.error then cx.drop("messages.content.is_error", "hint", "what the result says is kept") end
            messages[#messages + 1] = message
        else
            rest[#rest + 1] = part
        end
    end
    if rest[1] or not t.parts[1] then messages[#messages + 1] = message_of("user", rest, cx) end
end

function WRITE.system(t, messages, cx)
    messages[#messages + 1] = message_of("system", t.parts, cx)
end

-- A call's arguments must be an object: text that is none is kept in one.
local function input_of(input, cx)
    local said = type(input) == "string" and input:find("%S") and input
    if said then input = cx.parse(said) end
    return fields.object(input) or said and { input = said } or {}
end

-- Thinking that another provider signed was not this model's.
function WRITE.assistant(t, messages, cx, names)
    local said, thought, calls = {}, {}, {}
    for _, part in ipairs(t.parts) do
        if part.kind == "thinking" then
            if not part.signature then thought[#thought + 1] = part.text end
        elseif part.kind == "call" then
            names[part.id] = part.name
            calls[#calls + 1] = { id = part.id,
                ["function"] = { index = #calls, name = part.name, arguments = input_of(part.input, cx) } }
        elseif part.kind ~= "redacted" then
            said[#said + 1] = part
        end
    end
    local message = message_of("assistant", said, cx)
    local thinking = table.concat(thought, "\n\n")
    message.thinking, message.tool_calls = thinking ~= "" and thinking or nil, calls[1] and calls
    messages[#messages + 1] = message
end

function M.write(r, cx)
    local messages, names = json.array(), {}
    if r.system and r.system[1] then WRITE.system({ parts = r.system }, messages, cx) end
    for _, t in ipairs(r.turns) do
        WRITE[t.role](t, messages, cx, names)
        if t.name then cx.drop("messages.name", "hint") end
    end
    return messages
end

return M
