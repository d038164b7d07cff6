-- messages: turns of the vocabulary as Anthropic's messages.
--
-- What the API insists on: turns alternate (it merges neighbours, so this does too); a call's results stand first in
-- the turn behind it; text says something; a last assistant turn, which the answer goes on from, ends with no white
-- space.

local base64 = require("claw.base64")
local content = require("claw.protocols.anthropic_messages.content")
local json = require("claw.json")

local M = {}

M.marked = content.marked

-- ^[a-zA-Z0-9_-]+$: others are made so, the same for a call and its result.
local function id_of(id)
    id = tostring(id):gsub("[^%w_-]", "_")
    return id ~= "" and id or "_"
end

-- ---- parts as blocks

local function source_of(part)
    if part.data then return { type = "base64", media_type = part.media_type, data = part.data } end
    if part.url then return { type = "url", url = part.url } end
    if part.file_id and part.origin == "anthropic" then return { type = "file", file_id = part.file_id } end
end

local WRITE = {}

function WRITE.text(part)
    if not part.text:find("%S") then return nil end
    local cited = {}
    for _, c in ipairs(part.citations or {}) do
        if c.origin == "anthropic" and c.raw then cited[#cited + 1] = c.raw end
    end
    return { type = "text", text = part.text, citations = cited[1] and cited or nil }
end
WRITE.refusal = WRITE.text

function WRITE.image(part, cx)
    if part.detail and part.detail ~= "auto" then cx.drop("messages.content.image_url.detail", "hint") end
    local source = source_of(part)
    if not source then return cx.drop("messages.content.image.file_id", "content", "files are the provider's own") end
    if part.data then source.media_type = part.media_type or "image/png" end
    return { type = "image", source = source }
end

local TEXT = { ["application/json"] = true, ["application/xml"] = true, ["application/yaml"] = true }

-- Only PDF goes as base64; what is text goes as text.
local function document_source(part)
    if part.raw then return part.raw end
    if part.text then return { type = "text", media_type = "text/plain", data = part.text } end
    local media_type = part.media_type or ""
    if part.data and (media_type:find("^text/") or TEXT[media_type]) then
        local text = base64.decode(part.data)
        return text and { type = "text", media_type = "text/plain", data = text }
    elseif part.data and media_type ~= "" and media_type ~= "application/pdf" then
        return nil
    end
    if part.data then return { type = "base64", media_type = "application/pdf", data = part.data } end
    return source_of(part)
end

function WRITE.document(part, cx)
    if part.found then return part.found end
    local source = document_source(part)
    if not source then
        return cx.drop("messages.content.document", "content", part.file_id and "files are the provider's own"
            or "it takes PDF and text")
    end
    return { type = "document", source = source, title = part.title, context = part.context,
        citations = part.citations and { enabled = true } or nil }
end

function WRITE.call(part, cx)
    return { type = "tool_use", id = id_of(part.id), name = part.name, input = content.input(part.input, cx) }
end

-- Only what Anthropic signed is taken back; other thinking the model did not think.
function WRITE.thinking(part)
    if part.origin ~= "anthropic" or not part.signature then return nil end
    return { type = "thinking", thinking = part.text, signature = part.signature }
end

function WRITE.redacted(part)
    return part.origin == "anthropic" and { type = "redacted_thinking", data = part.data } or nil
end

local function write_part(part, cx)
    local write = WRITE[part.kind]
    local block
    if write then
        block = write(part, cx)
    elseif part.origin == "anthropic" and part.raw then
        return part.raw
    else
        cx.drop("messages.content." .. tostring(part.what or part.kind), "content")
    end
    if block == part.found then return block end
    return block and content.marked(block, part.cache)
end

local function write_parts(parts, cx)
    local out = {}
    for _, part in ipairs(parts) do out[#out + 1] = write_part(part, cx) end
    return out
end

local function plain(blocks)
    local only = blocks[1]
    if blocks[2] or not only or only.type ~= "text" or type(only) == "userdata" then return nil end
    return not only.cache_control and not only.citations and only.text or nil
end

local function write_result(part, cx)
    local blocks = write_parts(part.parts, cx)
    return content.marked({ type = "tool_result", tool_use_id = id_of(part.id), is_error = part.error,
        content = plain(blocks) or blocks[1] and blocks or nil }, part.cache)
end

-- ---- turns

-- Turns of one role in a row as one; what a system turn says goes to the system prompt, in order.
local function merged(r)
    local out, system = {}, {}
    for _, part in ipairs(r.system or {}) do system[#system + 1] = part end
    for _, turn in ipairs(r.turns) do
        local last = out[#out]
        if turn.role == "system" then
            for _, part in ipairs(turn.parts) do system[#system + 1] = part end
        elseif last and last.role == turn.role then
            for _, part in ipairs(turn.parts) do table.insert(last.parts, part) end
        else
            local parts = {}
            for i, part in ipairs(turn.parts) do parts[i] = part end
            out[#out + 1] = { role = turn.role, parts = parts }
        end
    end
    if not out[1] and system[1] then -- nothing but instructions: they are what is asked
        return { { role = "user", parts = system } }, {}
    end
    return out, system
end

local function calls_of(turn)
    local ids = {}
    for _, part in ipairs(turn and turn.parts or {}) do
        if part.kind == "call" then ids[id_of(part.id)] = true end
    end
    return ids
end

-- A user's turn: results of the calls before it, then all else. A result that answers none of them (its call was cut
-- from the conversation) stays as what it says.
local function write_user(turn, before, cx)
    local asked, results, rest = calls_of(before), {}, {}
    for _, part in ipairs(turn.parts) do
        if part.kind ~= "result" then
            rest[#rest + 1] = write_part(part, cx)
        elseif asked[id_of(part.id)] then
            asked[id_of(part.id)] = nil
            results[#results + 1] = write_result(part, cx)
        else
            cx.drop("messages.tool_call_id", "hint", "a result without its call goes as the user's text")
            for _, block in ipairs(write_parts(part.parts, cx)) do rest[#rest + 1] = block end
        end
    end
    for _, block in ipairs(rest) do results[#results + 1] = block end
    return results
end

local WHITE = { [9] = true, [10] = true, [11] = true, [12] = true, [13] = true, [32] = true }

-- The turn that the answer goes on from. What is left of its text says something: write() left out what does not.
local function trim_last(blocks)
    local last = blocks[#blocks]
    if not last or last.type ~= "text" or type(last) == "userdata" then return end
    local text = last.text
    local stop = #text
    while WHITE[text:byte(stop)] do stop = stop - 1 end -- a pattern would take the square of a long run
    last.text = text:sub(1, stop)
end

-- Text of a single block as the text it is.
local function short(blocks)
    return plain(blocks) or blocks
end

-- system (nil: none), messages.
function M.write(r, cx)
    local turns, system = merged(r)
    local out = json.array()
    for i, turn in ipairs(turns) do
        local blocks = turn.role == "user" and write_user(turn, turns[i - 1], cx) or write_parts(turn.parts, cx)
        if turn.role == "assistant" and i == #turns then trim_last(blocks) end
        local last = out[#out]
        if blocks[1] and last and last.role == turn.role then -- the turn between them said nothing
            local all = type(last.content) == "string" and { { type = "text", text = last.content } } or last.content
            for _, block in ipairs(blocks) do all[#all + 1] = block end
            last.content = all
        elseif blocks[1] then
            out[#out + 1] = { role = turn.role, content = short(blocks) }
        end
    end
    for _, turn in ipairs(r.turns) do
        if turn.name then cx.drop("messages.name", "hint") end
    end
    local said = write_parts(system, cx)
    return said[1] and short(said) or nil, out
end

-- Does the assistant's turn that results answer begin without thinking? Then thinking with a budget is refused.
function M.lacks_thinking(r)
    local turns = merged(r)
    local last, before = turns[#turns], turns[#turns - 1]
    if not last or last.role ~= "user" or not before then return false end
    local answers = false
    for _, part in ipairs(last.parts) do answers = answers or part.kind == "result" end
    if not answers then return false end
    for _, part in ipairs(before.parts) do
        if (part.kind == "thinking" or part.kind == "redacted") and WRITE[part.kind](part) then return false end
    end
    return true
end

return M
