-- ollama_embeddings: Ollama's /api/embed.

local errors = require("claw.protocols.openai_chat.error")
local fields = require("claw.protocols.fields")
local floats = require("claw.protocols.floats")
local json = require("claw.json")
local vectors = require("claw.protocols.vectors")

local M = { vocabulary = "embeddings", read_error = errors.read }

local OWN = { truncate = true, keep_alive = true, options = true }

local KNOWN = { model = true, input = true, dimensions = true }

function M.read_request(body, cx)
    if not fields.object(body) then cx.refuse("the body must be a JSON object") end
    local all, inputs = fields.list(body.input), {}
    for i = 1, #all do
        inputs[i] = fields.text(all[i])
        if not inputs[i] then cx.refuse(("input[%d] must be a text"):format(i - 1), "input") end
    end
    if not inputs[1] then inputs[1] = fields.word(body.input) end
    if not inputs[1] then cx.refuse('"input" must be a text or a list of texts', "input") end
    local r = { dialect = "ollama_embeddings", model = fields.text(body.model), inputs = inputs, encoding = "float",
        dimensions = fields.count(body.dimensions), rest = {} }
    for name, v in cx.each(body) do
        if not KNOWN[name] and fields.says(v) then r.rest[name] = v end
    end
    return r
end

function M.write_request(r, cx)
    return vectors.rest(r, cx, { model = cx.model or r.model, input = vectors.texts(r, cx), dimensions = r.dimensions },
        OWN)
end

function M.read_answer(body)
    body = fields.object(body)
    local err = body and fields.says(body.error) and errors.find(body)
    if err then return { error = err } end
    return vectors.answer(vectors.read(body and body.embeddings), fields.count(body and body.prompt_eval_count),
        fields.word(body and body.model))
end

function M.write_error(err) return { error = err.message } end

function M.write_answer(answer, cx)
    if answer.error then return M.write_error(answer.error) end
    local embeddings = json.array()
    for i, vector in ipairs(answer.vectors) do embeddings[i] = floats.list(vector) or json.array() end
    return { model = answer.model or cx.model, embeddings = embeddings,
        prompt_eval_count = answer.usage and answer.usage.input or 0 }
end

return M
