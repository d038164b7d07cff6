-- request: a client's generateContent body as a request of the vocabulary.

local config = require("claw.protocols.gemini.config")
local fields = require("claw.protocols.fields")
local losses = require("claw.protocols.losses")
local parts = require("claw.protocols.gemini.parts")
local spelling = require("claw.protocols.gemini.spelling")
local tools = require("claw.protocols.gemini.tools")

local M = {}

local word, object, list, get = fields.word, fields.object, fields.list, spelling.get

local KNOWN = { contents = true, systemInstruction = true, tools = true, toolConfig = true, generationConfig = true,
    cachedContent = true, model = true }

local TURN = losses.set("role parts")
-- Settings of media are named by `parts`; what is of none of these kinds is told as a part that is not understood.
local SAYS = losses.set("text functionCall functionResponse inlineData fileData")
local PART = losses.set([[text thought thoughtSignature functionCall functionResponse inlineData fileData videoMetadata
    mediaResolution]])
local INNER = { functionCall = losses.set("id name args"), functionResponse = losses.set("id name response parts"),
    inlineData = losses.set("data mimeType displayName"), fileData = losses.set("fileUri mimeType displayName") }

-- What a turn's part says that no part of the vocabulary does. at, i: the places of the turn and of the part.
local function lose(part, cx, at, i)
    if type(part) ~= "userdata" or not object(part) then return end
    local says
    for name in cx.each(part) do says = says or SAYS[spelling.camel(name)] end
    if not says then return end
    for name, v in cx.each(part) do
        local camel = spelling.camel(name)
        if not PART[camel] and v ~= false and fields.says(v) then
            cx.drop(("contents[%d].parts[%d].%s"):format(at, i, camel), "hint")
        elseif INNER[camel] and object(v) then
            for inner, said in cx.each(v) do
                inner = spelling.camel(inner)
                if not INNER[camel][inner] and said ~= false and fields.says(said) then
                    cx.drop(("contents[%d].parts[%d].%s.%s"):format(at, i, camel, inner), "hint")
                end
            end
        end
    end
end

local function read_parts(content, ids, out, cx, at)
    if word(content) then
        out[#out + 1] = { kind = "text", text = content }
        return
    end
    local given = object(content) and get(content, "parts")
    if object(given) then given = { given } end
    local all = list(given)
    for i = 1, #all do
        parts.read(all[i], ids, out, cx)
        if at then lose(all[i], cx, at, i - 1) end
    end
end

-- What an answer depends on and only Google has: other writers say that they cannot.
local function read_state(body, out)
    local cached = word(get(body, "cachedContent"))
    if cached then out[#out + 1] = { kind = "other", raw = cached, origin = "gemini", what = "cachedContent" } end
end

function M.read(body, cx)
    local contents = object(body) and get(body, "contents")
    if object(contents) then contents = { contents } end
    if word(contents) then contents = { { role = "user", parts = { { text = contents } } } } end
    if not fields.array(contents) then cx.refuse('"contents" must be a list of turns', "contents") end
    local ids = parts.ids(cx)
    local r = { dialect = "gemini", system = {}, turns = {}, rest = {}, model = cx.asked }
    read_parts(get(body, "systemInstruction"), ids, r.system, cx)
    local special = {}
    read_state(body, special)
    config.read(get(body, "generationConfig"), r, special, cx)
    for i = 1, #contents do
        local content = object(contents[i])
        if not content and not word(contents[i]) then
            cx.refuse(("contents[%d] is no turn"):format(i - 1), "contents")
        end
        local role = content and get(content, "role") == "model" and "assistant"
            or content and get(content, "role") == "system" and "system" or "user"
        local turn = { role = role, parts = {} }
        if role == "user" and special then
            for _, part in ipairs(special) do table.insert(turn.parts, part) end
            special = nil
        end
        if content then losses.extra(content, TURN, cx, "contents[%d]", i - 1) end
        read_parts(content or contents[i], ids, turn.parts, cx, i - 1)
        r.turns[#r.turns + 1] = turn
    end
    if special and special[1] then table.insert(r.turns, { role = "user", parts = special }) end
    tools.read(body, r, cx)
    for name, value in cx.each(body) do
        local camel = spelling.camel(name)
        if not KNOWN[camel] then r.rest[camel] = value end
    end
    return r
end

return M
