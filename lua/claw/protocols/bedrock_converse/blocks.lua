-- blocks: parts of the vocabulary as Bedrock's content blocks.

local base64 = require("claw.base64")
local content = require("claw.protocols.anthropic_messages.content")
local json = require("claw.json")
local models = require("claw.protocols.bedrock_converse.models")

local M = {}

local IMAGE = { ["image/png"] = "png", ["image/jpeg"] = "jpeg", ["image/jpg"] = "jpeg", ["image/gif"] = "gif",
    ["image/webp"] = "webp" }
local VIDEO = { ["video/mp4"] = "mp4", ["video/quicktime"] = "mov", ["video/x-matroska"] = "mkv",
    ["video/webm"] = "webm", ["video/x-flv"] = "flv", ["video/mpeg"] = "mpeg", ["video/x-ms-wmv"] = "wmv",
    ["video/3gpp"] = "three_gp" }
local DOCUMENT = { ["application/pdf"] = "pdf", ["text/csv"] = "csv", ["application/msword"] = "doc",
    ["application/vnd.openxmlformats-officedocument.wordprocessingml.document"] = "docx",
    ["application/vnd.ms-excel"] = "xls",
    ["application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"] = "xlsx", ["text/html"] = "html",
    ["text/plain"] = "txt", ["text/markdown"] = "md" }

-- Bytes by content, or where S3 has them.
local function source_of(part)
    if part.data then return { bytes = part.data } end
    if part.url and part.url:find("^s3://") then return { s3Location = { uri = part.url } } end
end

-- ^[a-zA-Z0-9_-]{1,64}$: others are made so, the same for a call and its result.
function M.id(id)
    id = tostring(id):gsub("[^%w_-]", "_"):sub(-64)
    return id ~= "" and id or "_"
end

-- A document's name: letters, digits, single spaces, hyphens, parentheses and brackets.
local function name_of(title)
    local name = (title or ""):gsub("%.%w+$", ""):gsub("[^%w%s%-%(%)%[%]]", "-"):gsub("%s+", " "):sub(1, 200)
    return name:find("%w") and name or "document"
end

local WRITE = {}

function WRITE.text(part)
    return part.text:find("%S") and { text = part.text } or nil
end
WRITE.refusal = WRITE.text

function WRITE.image(part, cx)
    local source, format = source_of(part), IMAGE[part.media_type or "image/png"]
    if not source or not format then
        return cx.drop("messages.content.image", "content", "images go by content, as PNG, JPEG, GIF or WebP")
    end
    if part.detail and part.detail ~= "auto" then cx.drop("messages.content.image_url.detail", "hint") end
    return { image = { format = format, source = source } }
end

function WRITE.document(part, cx)
    if part.found then -- a client's own search: Converse has a block for it
        return { searchResult = { source = part.context or "", title = part.title or "",
            content = { { text = part.text } },
            citations = { enabled = part.citations == true } } }
    end
    local source, media_type = source_of(part), part.media_type or "application/pdf"
    if part.text then source, media_type = { bytes = base64.encode(part.text) }, "text/plain" end
    local format = DOCUMENT[media_type] or media_type:find("^text/") and "txt"
    if not source or not format then
        return cx.drop("messages.content.document", "content", "documents go by content")
    end
    return { document = { format = format, name = name_of(part.title), source = source, context = part.context,
        citations = part.citations and { enabled = true } or nil } }
end

function WRITE.video(part, cx)
    local source, format = source_of(part), VIDEO[part.media_type or "video/mp4"]
    if not source or not format then return cx.drop("messages.content.video", "content", "videos go by content") end
    return { video = { format = format, source = source } }
end

function WRITE.audio(part)
    return { audio = { format = part.format or "wav", source = { bytes = part.data } } }
end

function WRITE.call(part, cx)
    return { toolUse = { toolUseId = M.id(part.id), name = part.name, input = content.input(part.input, cx) } }
end

-- Only a model's own family takes its secrets back; other thinking the model did not think.
function WRITE.thinking(part, cx)
    if not part.signature or part.origin ~= models.family(cx.model) then return nil end
    return { reasoningContent = { reasoningText = { text = part.text, signature = part.signature } } }
end

function WRITE.redacted(part, cx)
    if part.origin ~= models.family(cx.model) then return nil end
    return { reasoningContent = { redactedContent = part.data } }
end

-- Behind what is to be cached stands a point.
function M.point(cache, out, cx)
    if not cache then return end
    if not models.caches(cx.model) then
        return cx.drop("cache_control", "hint", "this model caches nothing")
    end
    out[#out + 1] = { cachePoint = { type = "default", ttl = cache == "1h" and "1h" or nil } }
end

-- Adds a part's block to `out`.
function M.add(part, out, cx)
    local write = WRITE[part.kind]
    if not write then return cx.drop("messages.content." .. tostring(part.what or part.kind), "content") end
    local block = write(part, cx)
    out[#out + 1] = block
    if block then M.point(part.cache, out, cx) end
end

function M.add_result(part, out, cx)
    local said, cache = json.array(), part.cache
    for _, p in ipairs(part.parts) do
        cache = cache or p.cache -- a point within a result there is none: it stands behind the result
        if WRITE[p.kind] and p.kind ~= "audio" then
            said[#said + 1] = WRITE[p.kind](p, cx)
        else
            cx.drop("messages.content." .. tostring(p.what or p.kind), "content")
        end
    end
    out[#out + 1] = { toolResult = { toolUseId = M.id(part.id), content = said,
        status = part.error and "error" or nil } }
    M.point(cache, out, cx)
end

return M
