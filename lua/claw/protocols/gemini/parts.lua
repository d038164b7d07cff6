-- parts: Google's parts as the vocabulary's, of requests, answers and (as plain tables) stream events.
--
-- A part that is text may have a signature of its own. The vocabulary keeps it as thinking without text behind the
-- text; `contents` writes it as the empty part that it is in streams anyway.

local base64 = require("claw.base64")
local fields = require("claw.protocols.fields")
local json = require("claw.json")
local seal = require("claw.protocols.seal")
local spelling = require("claw.protocols.gemini.spelling")

local M = {}

local word, text_of, object = fields.word, fields.text, fields.object
local get = spelling.get
local null = json.null

-- ---- signatures

-- Google's clients decode a signature as base64: another family's is sealed inside.
local HEAD = 24 -- letters that hold the longest family's name and its colon

function M.seal(secret, origin, redacted)
    if origin == "gemini" then return secret end
    return base64.encode(seal.seal(secret, origin, "gemini", redacted))
end

-- The secret, its family, and whether it is redacted thinking.
function M.open(signature)
    local head = base64.decode(signature:sub(1, HEAD))
    if head and head:find("^%l+:") then
        local secret, family, redacted = seal.open(base64.decode(signature) or "", "gemini")
        if family ~= "gemini" then return secret, family, redacted end
    end
    return signature, "gemini", false
end

-- ---- ids: calls had none before Gemini 3. A result then belongs to the first call of its name that has none yet.

function M.ids(cx)
    return { waiting = {}, cx = cx }
end

local function call_id(ids, name, id)
    id = id or ids.cx.id("call_")
    local queue = ids.waiting[name] or { first = 1, answered = {} }
    ids.waiting[name] = queue
    queue[#queue + 1] = id
    return id
end

local function result_id(ids, name, id)
    local queue = ids.waiting[name]
    if not queue then return id or ids.cx.id("call_") end
    while queue.answered[queue[queue.first]] do queue.first = queue.first + 1 end
    id = id or queue[queue.first] or ids.cx.id("call_")
    queue.answered[id] = true
    return id
end

-- ---- media

local AUDIO = { ["audio/mpeg"] = "mp3", ["audio/mp3"] = "mp3", ["audio/x-wav"] = "wav", ["audio/wave"] = "wav" }

local function inline(blob)
    local data, kind = word(get(blob, "data")), (word(get(blob, "mimeType")) or ""):lower()
    if not data then return nil end
    if kind:find("^image/") then return { kind = "image", data = data, media_type = kind } end
    if kind:find("^video/") then return { kind = "video", data = data, media_type = kind } end
    if kind:find("^audio/") then
        return { kind = "audio", data = data, format = AUDIO[kind] or kind:match("^audio/([%w.+-]+)") or "wav" }
    end
    return { kind = "document", data = data, media_type = kind ~= "" and kind or "application/octet-stream",
        title = word(get(blob, "displayName")) }
end

local function file(blob, part, origin)
    local url, kind = word(get(blob, "fileUri")), word(get(blob, "mimeType"))
    if not url then return nil end
    local class = (kind or ""):match("^(%a+)/")
    if class == "image" then return { kind = "image", url = url, media_type = kind } end
    if class == "video" or not kind and url:find("youtu", 1, true) then
        return { kind = "video", url = url, media_type = kind }
    end
    if class == "audio" then return { kind = "other", raw = part, origin = origin, what = "fileData" } end
    return { kind = "document", url = url, media_type = kind }
end

-- ---- calls and results

local function arguments(args, cx)
    if fields.array(args) or not object(args) then return cx.parse("{}") end
    return type(args) == "userdata" and args or cx.parse(json.encode(args))
end

local ONLY = { output = true, result = true, error = true }

-- What a function gave, as text: of { output = … }, { result = … } and { error = … } what is in it, else all of it.
local function response(given, cx)
    if not object(given) then return text_of(given) or given ~= nil and tostring(given) or "", false end
    local key, value, n = nil, nil, 0
    for name, v in (type(given) == "userdata" and cx.each or pairs)(given) do
        key, value, n = name, v, n + 1
    end
    if n ~= 1 or not ONLY[key] then return tostring(given), false end
    return value == null and "null" or tostring(value), key == "error"
end

local function result(given, ids, cx)
    local name = word(get(given, "name")) or ""
    local said, is_error = response(get(given, "response"), cx)
    local parts = { { kind = "text", text = said } }
    local more = fields.list(get(given, "parts"))
    for i = 1, #more do
        local blob = object(more[i]) and object(get(more[i], "inlineData"))
        local linked = object(more[i]) and object(get(more[i], "fileData"))
        parts[#parts + 1] = blob and inline(blob) or linked and file(linked, more[i], "gemini") or nil
    end
    return { kind = "result", id = result_id(ids, name, word(get(given, "id"))), name = name, parts = parts,
        error = is_error or nil }
end

local SERVER = { executableCode = "server_call", toolCall = "server_call", codeExecutionResult = "server_result",
    toolResponse = "server_result" }

-- Fields of a part that are known: one of another type is no field, and no part that is not understood either.
local KNOWN = { text = true, thought = true, thoughtSignature = true, functionCall = true, functionResponse = true,
    inlineData = true, fileData = true, videoMetadata = true, mediaResolution = true, partMetadata = true }
for name in pairs(SERVER) do KNOWN[name] = true end

-- Adds what one part says to `out`. ids: of this request or answer.
function M.read(part, ids, out, cx)
    if not object(part) then return end
    local signature, origin, redacted = word(get(part, "thoughtSignature")), nil, nil
    if signature then signature, origin, redacted = M.open(signature) end
    local text, call = text_of(get(part, "text")), object(get(part, "functionCall"))
    if redacted then
        out[#out + 1] = { kind = "redacted", data = signature, origin = origin }
        return
    elseif text and get(part, "thought") == true then
        out[#out + 1] = { kind = "thinking", text = text, signature = signature, origin = origin }
        return
    elseif call then
        local name = word(get(call, "name")) or ""
        out[#out + 1] = { kind = "call", id = call_id(ids, name, word(get(call, "id"))), name = name,
            input = arguments(get(call, "args"), cx), signature = signature, origin = origin }
        return
    end
    local answered, blob = object(get(part, "functionResponse")), object(get(part, "inlineData"))
    local linked = object(get(part, "fileData"))
    if text then
        if text ~= "" then out[#out + 1] = { kind = "text", text = text } end
    elseif answered then
        out[#out + 1] = result(answered, ids, cx)
    elseif blob or linked then
        out[#out + 1] = blob and inline(blob) or linked and file(linked, part, "gemini") or nil
        for _, name in ipairs({ "videoMetadata", "mediaResolution" }) do
            if get(part, name) ~= nil then cx.drop("contents.parts." .. name, "hint") end
        end
    else
        for name, kind in pairs(SERVER) do
            if object(get(part, name)) then
                out[#out + 1] = { kind = kind, raw = part, origin = "gemini" }
                return
            end
        end
        for name in (type(part) == "userdata" and cx.each or pairs)(part) do
            if type(name) == "string" and not KNOWN[spelling.camel(name)] then
                out[#out + 1] = { kind = "other", raw = part, origin = "gemini", what = name }
                break
            end
        end
    end
    if signature then out[#out + 1] = { kind = "thinking", text = "", signature = signature, origin = origin } end
end

return M
