-- contents: turns and parts as Google's contents; parts of answers too.
--
-- Results stand together, in the order of their calls, in the turn behind them: that is how Google finds whose they
-- are.

local fields = require("claw.protocols.fields")
local json = require("claw.json")
local models = require("claw.protocols.gemini.models")
local parts = require("claw.protocols.gemini.parts")

local M = {}

local AUDIO = { mp3 = "audio/mp3", wav = "audio/wav", pcm16 = "audio/pcm" }
-- What Gemini 3 takes for a call that another model made.
local FOREIGN = "skip_thought_signature_validator"

-- A linked file's type must be told: by the end of its URL when nobody did.
local TYPE = { jpg = "image/jpeg", jpeg = "image/jpeg", png = "image/png", webp = "image/webp", gif = "image/gif",
    heic = "image/heic", pdf = "application/pdf", txt = "text/plain", csv = "text/csv", html = "text/html",
    mp4 = "video/mp4", webm = "video/webm", mov = "video/quicktime" }
local USUAL = { image = "image/jpeg", document = "application/pdf" }

local function type_of(part)
    local ending = part.url:gsub("[?#].*$", ""):lower():match("%.(%w+)$")
    return part.media_type or TYPE[ending] or USUAL[part.kind]
end

local function link(part, cx)
    local url = part.url
    local own = url:find("^gs://") or url:find("^https://generativelanguage%.googleapis%.com/")
        or part.kind == "video" and url:find("^https://[%w.]*youtu%.?be")
    if not own and not cx.provider.remote_files then
        return cx.drop("messages.content." .. part.kind .. ".url", "content", "Google does not fetch it")
    end
    return { fileData = { fileUri = url, mimeType = type_of(part) } }
end

local function inline(kind, data)
    return { inlineData = { mimeType = kind, data = data } }
end

local function media(part, cx)
    if part.cache then cx.drop("cache_control", "hint", "Gemini caches by itself") end
    if part.detail and part.detail ~= "auto" then cx.drop("messages.content.image.detail", "hint") end
    if part.data then return inline(part.media_type or "application/octet-stream", part.data) end
    if part.url then return link(part, cx) end
    if part.citations then cx.drop("messages.content.document.citations", "hint") end
    if part.text then
        local lines = { part.title }
        lines[#lines + 1] = part.context
        lines[#lines + 1] = part.text
        return { text = table.concat(lines, "\n\n") }
    end
    cx.drop("messages.content." .. part.kind .. ".file_id", "content", "files are the provider's own")
end

local WRITE = { image = media, document = media, video = media }

function WRITE.text(part, cx)
    if part.cache then cx.drop("cache_control", "hint", "Gemini caches by itself") end
    return part.text ~= "" and { text = part.text } or nil
end

function WRITE.refusal(part)
    return part.text ~= "" and { text = part.text } or nil
end

function WRITE.audio(part)
    return inline(AUDIO[part.format] or "audio/" .. (part.format or "wav"), part.data)
end

-- A call's input as the object that Google wants.
function M.arguments(input, cx)
    if type(input) == "string" then
        local parsed = input:find("%S") and cx.parse(input) or not input:find("%S") and cx.parse("{}")
        if not parsed then return { input = input } end
        input = parsed
    end
    if input == nil then return cx.parse("{}") end
    return fields.object(input) or { input = input }
end

local function call(part, id, cx)
    return { functionCall = { id = id, name = part.name, args = M.arguments(part.input, cx) } }
end

-- The object Google wants for what a function gave: its own when it is one, else { output } or { error }.
local function response(part, text, cx)
    if part.error then return { error = text } end
    local own = text:find("^%s*{") and cx.parse(text)
    if not own or not fields.object(own) then return { output = text } end
    if own.output ~= nil or own.error ~= nil then return { output = own } end
    return own
end

local function result(part, id, name, out, cx)
    local texts, more = {}, json.array()
    for _, p in ipairs(part.parts or {}) do
        if p.kind == "text" or p.kind == "refusal" or p.kind == "document" and p.text then
            texts[#texts + 1] = WRITE[p.kind](p, cx) and WRITE[p.kind](p, cx).text
        else
            local write = WRITE[p.kind]
            if write then
                more[#more + 1] = write(p, cx)
            else
                cx.drop("messages.content." .. tostring(p.what or p.kind), "content")
            end
        end
    end
    local given = { id = id, name = name, response = response(part, table.concat(texts, "\n"), cx) }
    local inside = models.third(cx.model)
    if inside and more[1] then given.parts = more end
    table.insert(out.results, { functionResponse = given })
    if not inside then
        for _, p in ipairs(more) do table.insert(out.parts, p) end
    end
end

-- Thinking is only of use to who made it: what it is not, is left out.
local function thinking(part, out)
    if part.origin ~= "gemini" or not part.signature then return end
    if part.text ~= "" then
        table.insert(out.parts, { text = part.text, thought = true, thoughtSignature = part.signature })
    else
        table.insert(out.parts, { text = "", thoughtSignature = part.signature })
    end
end

-- Fields of a body that stand among its parts, for other protocols to say that they cannot.
M.FIELD = { cachedContent = true, ["generationConfig.responseModalities"] = true }

-- Fields that a reader put among the parts, back where they were.
local function own(part, body)
    local field = part.what and part.what:match("^generationConfig%.(.+)$")
    if field then
        body.generationConfig = body.generationConfig or {}
        body.generationConfig[field] = part.raw
    else
        body.cachedContent = part.raw
    end
end

local function new_state(r, body, cx)
    local state = { body = body, names = {}, order = {}, calls = 0, cx = cx, third = models.third(cx.model) }
    state.with_ids = state.third and cx.provider.call_ids ~= false
    for _, turn in ipairs(r.turns) do
        for _, part in ipairs(turn.parts) do
            if part.kind == "call" and part.id then
                state.calls = state.calls + 1
                state.names[part.id], state.order[part.id] = part.name, state.calls
            end
        end
    end
    return state
end

local function write_call(part, out, state)
    local made = call(part, state.with_ids and part.id or nil, state.cx)
    local last = out.parts[#out.parts]
    if part.signature and part.origin == "gemini" then
        made.thoughtSignature = part.signature
    elseif last and last.text == "" and last.thoughtSignature then
        made.thoughtSignature = last.thoughtSignature -- dialects without the field carry it in front
        table.remove(out.parts)
    elseif state.third and not out.called then
        made.thoughtSignature = FOREIGN
    end
    out.called = true
    table.insert(out.parts, made)
end

local function write_part(part, out, state)
    local cx, write = state.cx, WRITE[part.kind]
    if part.cache and not write then cx.drop("cache_control", "hint", "Gemini caches by itself") end
    if write then
        table.insert(out.parts, (write(part, cx)))
    elseif part.kind == "call" then
        write_call(part, out, state)
    elseif part.kind == "result" then
        result(part, state.with_ids and part.id or nil, part.name or state.names[part.id] or part.id or "tool", out, cx)
        out.results[#out.results].order = state.order[part.id] or math.huge
    elseif part.kind == "thinking" then
        thinking(part, out)
    elseif part.kind == "redacted" then
        return
    elseif part.origin == "gemini" and M.FIELD[part.what] then
        own(part, state.body)
    elseif part.origin == "gemini" then
        table.insert(out.parts, part.raw)
    else
        cx.drop("messages.content." .. tostring(part.what or part.kind), "content")
    end
end

-- Results in the order of their calls, then everything else.
local function finish(out)
    local all, position = json.array(), {}
    for i, one in ipairs(out.results) do position[one] = i end
    table.sort(out.results, function(a, b)
        if a.order ~= b.order then return a.order < b.order end
        return position[a] < position[b]
    end)
    for _, one in ipairs(out.results) do
        one.order = nil
        all[#all + 1] = one
    end
    for _, one in ipairs(out.parts) do all[#all + 1] = one end
    return all
end

-- The turns of a request. body: gets what is not of a turn.
function M.write(r, body, cx)
    local state, all, open = new_state(r, body, cx), json.array(), nil
    for _, turn in ipairs(r.turns) do
        local role = turn.role == "assistant" and "model" or "user"
        if turn.name then cx.drop("messages.name", "hint") end
        if not open or open.role ~= role then
            open = { role = role, results = {}, parts = {} }
            all[#all + 1] = open
        end
        for _, part in ipairs(turn.parts) do write_part(part, open, state) end
    end
    local out = json.array()
    for _, turn in ipairs(all) do
        local made = finish(turn)
        if made[1] then out[#out + 1] = { role = turn.role, parts = made } end
    end
    return out
end

-- The system's parts: text is all it may be.
function M.system(r, cx)
    local out = json.array()
    for _, part in ipairs(r.system or {}) do
        if part.kind == "text" then
            out[#out + 1] = WRITE.text(part, cx)
        else
            cx.drop("system." .. tostring(part.what or part.kind), "content")
        end
    end
    return out
end

-- ---- answers

local ANSWERED = { call = true, thinking = true, redacted = true }

-- Does a part of an answer, which is no text, have a form here?
function M.has_form(part)
    return WRITE[part.kind] ~= nil or ANSWERED[part.kind] or part.origin == "gemini" and part.raw ~= nil
end

-- Parts of an answer, for a client.
function M.answer(given, cx)
    local out = json.array()
    for _, part in ipairs(given or {}) do
        local write = WRITE[part.kind]
        if write then
            out[#out + 1] = write(part, cx)
        elseif part.kind == "call" then
            local made = call(part, part.id, cx)
            made.thoughtSignature = part.signature and parts.seal(part.signature, part.origin) or nil
            out[#out + 1] = made
        elseif part.kind == "thinking" then
            out[#out + 1] = { text = part.text, thought = true,
                thoughtSignature = part.signature and parts.seal(part.signature, part.origin) or nil }
        elseif part.kind == "redacted" then
            out[#out + 1] = { text = "", thought = true, thoughtSignature = parts.seal(part.data, part.origin, true) }
        elseif part.origin == "gemini" and part.raw then
            out[#out + 1] = part.raw
        else
            cx.drop("parts." .. tostring(part.what or part.kind), "content")
        end
    end
    return out
end

return M
