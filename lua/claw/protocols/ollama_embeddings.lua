-- ollama_embeddings: Ollama's /api/embed. Upstreams only.

local errors = require("claw.protocols.openai_chat.error")
local fields = require("claw.protocols.fields")
local vectors = require("claw.protocols.vectors")

local M = { vocabulary = "embeddings", read_error = errors.read }

local OWN = { truncate = true, keep_alive = true, options = true }

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

return M
