-- content: Anthropic's content blocks as parts of the vocabulary and back.
--
-- A secret of another family (a signature, redacted thinking) is carried with the family's name and a colon in front,
-- so that a client hands it back and it finds its owner. A call's signature rides on an empty thinking block before it.

local fields = require("claw.protocols.fields")
local json = require("claw.json")
local losses = require("claw.protocols.losses")

local M = {}

local word, text_of, count = fields.word, fields.text, fields.count
local list, object, members = fields.list, fields.object, fields.fields

-- ---- secrets

local FAMILY = { openai = true, gemini = true, bedrock = true, other = true } -- base64 has no colon

-- secret, origin of what a client hands back.
function M.unseal(sealed)
    local family, secret = sealed:match("^(%l+):(.*)$")
    if family and FAMILY[family] then return secret, family end
    return sealed, "anthropic"
end

function M.seal(secret, origin)
    if origin == "anthropic" then return secret end
    return (FAMILY[origin] and origin or "other") .. ":" .. secret
end

-- ---- reading

local function mark(block)
    local control = object(block.cache_control)
    return control and (word(control.ttl) or true) or nil
end
M.mark = mark

-- { type: "web_search_result_location" | "char_location" | "page_location" | …, cited_text, … }
function M.read_citation(c)
    return { text = text_of(c.cited_text), url = word(c.url), title = word(c.title) or word(c.document_title), raw = c,
        origin = "anthropic" }
end

local function citations(block)
    local out, all = {}, list(block.citations)
    for i = 1, #all do
        if object(all[i]) then out[#out + 1] = M.read_citation(all[i]) end
    end
    return out[1] and out or nil
end

local function source_of(block, part)
    local source = members(block.source)
    if source.type == "base64" and text_of(source.data) then
        part.data, part.media_type = source.data, word(source.media_type)
    elseif source.type == "url" and text_of(source.url) then
        part.url = source.url
    elseif source.type == "file" and text_of(source.file_id) then
        part.file_id, part.origin = source.file_id, "anthropic"
    elseif source.type == "text" and text_of(source.data) then
        part.text = source.data
    else
        return nil
    end
    return part
end

local READ = {}

function READ.text(block)
    return { kind = "text", text = text_of(block.text) or "", cache = mark(block), citations = citations(block) }
end

function READ.image(block)
    return source_of(block, { kind = "image", cache = mark(block) })
end

-- { type: "content", content: "…" or blocks }: its text, when it is nothing but text.
local function custom_content(source)
    if text_of(source.content) then return source.content end
    local said, blocks = {}, list(source.content)
    for i = 1, #blocks do
        said[i] = members(blocks[i]).type == "text" and text_of(blocks[i].text)
        if not said[i] then return nil end
    end
    return said[1] and table.concat(said, "\n\n")
end

function READ.document(block)
    local part = { kind = "document", title = word(block.title), context = word(block.context), cache = mark(block),
        citations = members(block.citations).enabled == true or nil }
    local source = members(block.source)
    if source.type == "content" then
        part.text, part.raw = custom_content(source), source
        return part.text and part
    end
    return source_of(block, part)
end

-- What a client's own search found is a document: its source and title stand in front of its text where the target has
-- no such block.
function READ.search_result(block)
    local text = custom_content(block)
    if not text or text == "" then return nil end
    return { kind = "document", text = text, title = word(block.title), context = word(block.source),
        cache = mark(block),
        citations = members(block.citations).enabled == true or nil, found = block }
end

function READ.tool_use(block, cx)
    return { kind = "call", id = word(block.id) or cx.id("toolu_"), name = text_of(block.name) or "",
        input = object(block.input) or cx.parse("{}"), cache = mark(block) }
end

function READ.tool_result(block, cx, at, i)
    local part = { kind = "result", id = word(block.tool_use_id) or cx.id("toolu_"), parts = {}, cache = mark(block),
        error = block.is_error == true or nil }
    M.read(block.content, part.parts, cx, at, i)
    return part
end

function READ.thinking(block)
    local part = { kind = "thinking", text = text_of(block.thinking) or "" }
    if word(block.signature) then part.signature, part.origin = M.unseal(block.signature) end
    return part
end

function READ.redacted_thinking(block)
    if not word(block.data) then return nil end
    local data, origin = M.unseal(block.data)
    return { kind = "redacted", data = data, origin = origin }
end

-- The kind of a block that only Anthropic understands.
function M.foreign(kind)
    if kind:find("_tool_use$") then return "server_call" end
    return kind:find("_tool_result$") and "server_result" or "other"
end

local KNOWN = {}
for kind, words in pairs({ text = "text", image = "source", document = "source title context citations",
    search_result = "source title content citations", tool_use = "id name input",
        tool_result = "tool_use_id content is_error",
    thinking = "thinking signature", redacted_thinking = "data" }) do
    KNOWN[kind] = losses.set("type cache_control " .. words)
end

-- What a block says that no part of the vocabulary does. at, i, j: the places of its message, and of blocks.
local function lose(block, kind, cx, at, i, j)
    if j then return losses.extra(block, KNOWN[kind], cx, "messages[%d].content[%d].content[%d]", at, i, j) end
    if at < 0 then return losses.extra(block, KNOWN[kind], cx, "system[%d]", i) end
    losses.extra(block, KNOWN[kind], cx, "messages[%d].content[%d]", at, i)
end

-- A block as a part. at, i, j: as for lose(), of a request.
function M.read_block(block, cx, at, i, j)
    local kind = text_of(block.type) or "untyped"
    local read = READ[kind]
    local part = read and read(block, cx, at, i)
    if part and at then lose(block, kind, cx, at, i, j) end
    return part or { kind = read and "other" or M.foreign(kind), raw = block, origin = "anthropic", what = kind }
end

-- Adds the parts of a message's content to `parts`. at: of a request, the message's place (from 0; system: -1); inside:
-- the place of the result whose content it is.
function M.read(content, parts, cx, at, inside)
    if text_of(content) then
        parts[#parts + 1] = { kind = "text", text = content }
        return
    end
    local blocks = list(content)
    for i = 1, #blocks do
        local block = object(blocks[i])
        local part = block and M.read_block(block, cx, at, inside or i - 1, inside and i - 1)
        local before = parts[#parts]
        if part and part.kind == "call" and before and before.kind == "thinking" and before.text == ""
            and before.origin ~= "anthropic" and before.signature then
            part.signature, part.origin = before.signature, before.origin
            parts[#parts] = nil
        end
        parts[#parts + 1] = part
    end
end

-- ---- usage: input_tokens is what was neither read from the cache nor written to it.

function M.read_usage(u)
    local input = count(u.input_tokens)
    if not input and not count(u.output_tokens) then return nil end
    local read, written = count(u.cache_read_input_tokens), count(u.cache_creation_input_tokens)
    return { input = (input or 0) + (read or 0) + (written or 0), output = count(u.output_tokens) or 0, cached = read,
        cache_write = written, cache_write_1h = count(members(u.cache_creation).ephemeral_1h_input_tokens),
        reasoning = count(members(u.output_tokens_details).thinking_tokens) }
end

function M.write_usage(u)
    local read, written = u.cached or 0, u.cache_write or 0
    local out = { input_tokens = math.max((u.input or 0) - read - written, 0), cache_read_input_tokens = read,
        cache_creation_input_tokens = written, output_tokens = u.output or 0 }
    if u.cache_write_1h then
        out.cache_creation = { ephemeral_1h_input_tokens = u.cache_write_1h,
            ephemeral_5m_input_tokens = math.max(written - u.cache_write_1h, 0) }
    end
    if u.reasoning then out.output_tokens_details = { thinking_tokens = u.reasoning } end
    return out
end

-- ---- stop reasons

local STOP = { end_turn = "end", max_tokens = "length", stop_sequence = "stop_sequence", tool_use = "call",
    refusal = "refusal", pause_turn = "pause", model_context_window_exceeded = "context" }
local REASON = { filter = "refusal", error = "end_turn" }
for reason, stop in pairs(STOP) do REASON[stop] = reason end

function M.read_stop(reason)
    return word(reason) and (STOP[reason] or "end")
end

function M.write_stop(stop)
    return REASON[stop] or "end_turn"
end

-- ---- writing what requests and answers share

function M.marked(out, cache)
    if cache then out.cache_control = { type = "ephemeral", ttl = type(cache) == "string" and cache or nil } end
    return out
end

function M.write_citation(c)
    if c.origin == "anthropic" and c.raw then return c.raw end
    if not c.url then return nil end
    return { type = "web_search_result_location", url = c.url, title = c.title or json.null, cited_text = c.text or "",
        encrypted_index = "" }
end

-- A call's input must be an object. Text that is none is wrapped as Anthropic's page on fine-grained tool streaming
-- says to hand back invalid JSON.
function M.input(input, cx)
    if type(input) == "userdata" or type(input) == "table" then return input end
    if not input or not input:find("%S") then return {} end
    return object(cx.parse(input)) or { INVALID_JSON = input }
end

return M
