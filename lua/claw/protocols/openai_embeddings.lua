-- openai_embeddings: OpenAI's /v1/embeddings, and all who speak it.

local errors = require("claw.protocols.openai_chat.error")
local fields = require("claw.protocols.fields")
local floats = require("claw.protocols.floats")
local json = require("claw.json")
local vectors = require("claw.protocols.vectors")

local M = { vocabulary = "embeddings", read_error = errors.read, write_error = errors.write }

local KNOWN = { model = true, input = true, dimensions = true, encoding_format = true, user = true }
local ENCODING = { float = "float", base64 = "base64" }

-- A text, tokens, or a list of either.
local function read_inputs(input, cx)
    if fields.word(input) then return { input } end
    local all, out = fields.list(input), {}
    if type(all[1]) == "number" then return { input } end
    for i = 1, #all do
        out[i] = fields.text(all[i]) or fields.array(all[i])
        if not out[i] then cx.refuse(("input[%d] must be a text or a list of tokens"):format(i - 1), "input") end
    end
    if not out[1] then cx.refuse('"input" must be a text or a list of texts', "input") end
    return out
end

function M.read_request(body, cx)
    if not fields.object(body) then cx.refuse("the body must be a JSON object") end
    local encoding = fields.word(body.encoding_format) or "float"
    if not ENCODING[encoding] then cx.refuse('"encoding_format" must be float or base64', "encoding_format") end
    local r = { dialect = "openai_embeddings", model = fields.text(body.model), inputs = read_inputs(body.input, cx),
        dimensions = fields.count(body.dimensions), encoding = encoding, user = fields.word(body.user) }
    for name, v in cx.each(body) do
        if not KNOWN[name] and fields.says(v) then
            r.rest = r.rest or {}
            r.rest[name] = v
        end
    end
    return r
end

function M.write_request(r, cx)
    local inputs = r.inputs
    local out = { model = cx.model or r.model, input = not inputs[2] and inputs[1] or inputs, dimensions = r.dimensions,
        encoding_format = r.encoding, user = r.user }
    for name, v in pairs(r.rest or {}) do
        if r.dialect == "openai_embeddings" then out[name] = v else cx.drop(name, "hint") end
    end
    return out
end

-- By their index. nil: two have the same, or one is missing: nobody knows whose they are.
local function in_order(data, read)
    local out, told = {}, 0
    for i = 1, #read do
        local index = fields.count(data[i].index)
        if index then
            if index >= #read or out[index + 1] then return nil end
            out[index + 1], told = read[i], told + 1
        end
    end
    if told == 0 then return read end
    return told == #read and out or nil
end

function M.read_answer(body)
    body = fields.object(body)
    local err = body and fields.says(body.error) and errors.find(body)
    if err then return { error = err } end
    local read = vectors.read(body and body.data, "embedding")
    if not read then return vectors.answer(nil) end
    local ordered = in_order(body.data, read)
    if not ordered then return nil, "its embeddings' indexes are not those of the inputs" end
    return vectors.answer(ordered, fields.count(fields.fields(body.usage).prompt_tokens),
        fields.word(body.model))
end

function M.write_answer(answer, cx)
    if answer.error then return errors.write(answer.error) end
    local data, spell = json.array(), cx.request and cx.request.encoding == "base64" and floats.text or floats.list
    for i, vector in ipairs(answer.vectors) do
        data[i] = { object = "embedding", index = i - 1, embedding = spell(vector) or json.array() }
    end
    local n = answer.usage and answer.usage.input or 0
    return { object = "list", data = data, model = answer.model or cx.model,
        usage = { prompt_tokens = n, total_tokens = n } }
end

return M
