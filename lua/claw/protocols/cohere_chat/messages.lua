-- messages: turns of the vocabulary as Cohere's messages, and what of them goes into its `documents`.
--
-- A result is a document of the tool's message, so that the answer can cite it. What an assistant says before its
-- calls is its tool_plan. Documents stand beside the messages: the model is told of them before all turns.

local base64 = require("claw.base64")
local json = require("claw.json")
local spelling = require("claw.protocols.openai_chat.spelling")

local M = {}

local TEXT = { ["application/json"] = true, ["application/xml"] = true, ["application/yaml"] = true }

local function document_text(part)
    if part.text then return part.text end
    local media_type = part.media_type or ""
    return part.data and (media_type:find("^text/") or TEXT[media_type]) and base64.decode(part.data) or nil
end

local function document_data(part, text)
    return { title = part.title, snippet = text, [part.found and "url" or "context"] = part.context }
end

local function write_document(part, state)
    local text = document_text(part)
    if not text then
        return state.cx.drop("messages.content.document", "content", "it takes documents that are text")
    end
    local n = #state.documents + 1
    state.documents[n] = { id = "doc_" .. n, data = document_data(part, text) }
end

-- A part of a user's or system's message, or nil.
local function write_part(part, state)
    local cx = state.cx
    if part.cache then cx.drop("cache_control", "hint", "the upstream caches by itself") end
    if part.kind == "text" or part.kind == "refusal" then return { type = "text", text = part.text } end
    if part.kind == "document" then return write_document(part, state) end
    if part.kind == "image" and not part.file_id then
        local url = part.url or ("data:%s;base64,%s"):format(part.media_type or "image/png", part.data)
        return { type = "image_url", image_url = { url = url, detail = part.detail } }
    end
    spelling.lose(part, cx)
end

-- Content as one text where it is one.
local function body_of(parts, state, joined)
    local out, texts = {}, {}
    for _, part in ipairs(parts) do out[#out + 1] = write_part(part, state) end
    for i, chunk in ipairs(out) do
        if chunk.type ~= "text" then return out end
        texts[i] = chunk.text
    end
    if #texts > 1 and not joined then return out end
    return table.concat(texts, joined or "")
end

local function result_data(text, cx)
    if text:find("^%s*{") then
        local given = cx.parse(text)
        if given then return given end
    end
    return { text = text }
end

local function write_result(part, messages, media, state)
    local cx, content = state.cx, {}
    for _, p in ipairs(part.parts) do
        local text = (p.kind == "text" or p.kind == "refusal") and p.text or p.kind == "document" and document_text(p)
        if text then
            local data = p.kind == "document" and (p.title or p.context) and document_data(p, text)
                or result_data(text, cx)
            content[#content + 1] = { type = "document", document = { data = data } }
        else
            media[#media + 1] = p
        end
    end
    if part.error then cx.drop("messages.content.is_error", "hint", "what the result says is kept") end
    messages[#messages + 1] = { role = "tool", tool_call_id = part.id, content = content[1] and content or "" }
end

local WRITE = {}

function WRITE.user(t, messages, state)
    local rest, media = {}, {}
    for _, part in ipairs(t.parts) do
        if part.kind == "result" then write_result(part, messages, media, state) else rest[#rest + 1] = part end
    end
    for i, part in ipairs(media) do table.insert(rest, i, part) end
    if not rest[1] and t.parts[1] then return end
    local content, before = body_of(rest, state), #state.documents
    if content == "" or type(content) == "table" and not content[1] then
        if rest[1] and before > 0 then return end -- it brought documents, and they stand elsewhere
        content = ""
    end
    messages[#messages + 1] = { role = "user", content = content }
end

function WRITE.system(t, messages, state)
    local content = body_of(t.parts, state, "\n\n")
    if content ~= "" then messages[#messages + 1] = { role = "system", content = content } end
end

-- Its own thinking it does not need back.
function WRITE.assistant(t, messages, state)
    local said, calls = {}, {}
    for _, part in ipairs(t.parts) do
        if part.kind == "text" or part.kind == "refusal" then
            said[#said + 1] = part.text
        elseif part.kind == "call" then
            calls[#calls + 1] = { id = part.id, type = "function",
                ["function"] = { name = part.name, arguments = spelling.arguments(part.input) } }
        elseif part.kind ~= "thinking" and part.kind ~= "redacted" then
            spelling.lose(part, state.cx)
        end
    end
    local message = { role = "assistant" }
    local text = table.concat(said)
    if calls[1] then
        message.tool_calls, message.tool_plan = calls, text ~= "" and text or nil
    else
        message.content = text
    end
    messages[#messages + 1] = message
end

-- messages, documents (nil: none).
function M.write(r, cx)
    local messages, state = json.array(), { cx = cx, documents = {} }
    if r.system and r.system[1] then WRITE.system({ parts = r.system }, messages, state) end
    for _, t in ipairs(r.turns) do
        WRITE[t.role](t, messages, state)
        if t.name then cx.drop("messages.name", "hint") end
    end
    local last = r.turns[#r.turns]
    if last and last.role == "assistant" then
        cx.drop("messages.prefill", "hint", "the answer begins anew, not where the last turn ends")
    end
    if not messages[1] then cx.refuse("there is no message with anything in it", "messages") end
    return messages, state.documents[1] and state.documents or nil
end

return M
