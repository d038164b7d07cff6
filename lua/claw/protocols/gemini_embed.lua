-- gemini_embed: Google's embedContent, for one text; gemini_embed_batch has those for many, which upstreams are always
-- asked by.

local errors = require("claw.protocols.gemini.error")
local fields = require("claw.protocols.fields")
local floats = require("claw.protocols.floats")
local json = require("claw.json")
local vectors = require("claw.protocols.vectors")

local M = { vocabulary = "embeddings", read_error = errors.read, write_error = errors.write }

local word, list, object, members = fields.word, fields.list, fields.object, fields.fields

-- ---- clients

-- The text of an EmbedContentRequest, noting in r what it says besides.
function M.read_one(given, r, cx)
    local said, parts = {}, list(members(members(given).content).parts)
    for i = 1, #parts do
        local text = fields.text(members(parts[i]).text)
        said[#said + 1] = text
        if not text then cx.drop("content.parts", "content", "only text is embedded") end
    end
    if not said[1] then cx.refuse('"content" must have a text', "content") end
    r.dimensions = r.dimensions or fields.count(given.outputDimensionality)
    if word(given.taskType) then cx.drop("taskType", "hint") end
    if word(given.title) then cx.drop("title", "hint") end
    return table.concat(said, "\n")
end

function M.read_request(body, cx)
    if not object(body) then cx.refuse("the body must be a JSON object") end
    local r = { dialect = "gemini_embed", model = word(body.model), encoding = "float" }
    r.inputs = { M.read_one(body, r, cx) }
    return r
end

function M.write_answer(answer)
    if answer.error then return errors.write(answer.error) end
    return { embedding = { values = floats.list(answer.vectors[1]) or json.array() } }
end

-- ---- upstreams

local OWN = { taskType = true, title = true }

function M.write_request(r, cx)
    local model = cx.model or r.model or ""
    local name = model:find("^models/") and model or "models/" .. model
    local requests, own = {}, vectors.rest(r, cx, {}, OWN)
    for i, text in ipairs(vectors.texts(r, cx)) do
        requests[i] = { model = name, content = { parts = { { text = text } } }, outputDimensionality = r.dimensions,
            taskType = own.taskType, title = own.title }
    end
    return { requests = requests }, "gemini_embed_batch"
end

function M.read_answer(body)
    body = object(body)
    local err = body and fields.says(body.error) and errors.find(body)
    if err then return { error = err } end
    local one = body and fields.array(members(body.embedding).values)
    local read = one and { one } or vectors.read(body and body.embeddings, "values")
    return vectors.answer(read, fields.count(members(body and body.usageMetadata).promptTokenCount))
end

return M
