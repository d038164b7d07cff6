-- cohere_embeddings: Cohere's /v2/embed. Upstreams only.

local errors = require("claw.protocols.cohere_chat.error")
local fields = require("claw.protocols.fields")
local vectors = require("claw.protocols.vectors")

local M = { vocabulary = "embeddings", read_error = errors.read }

local OWN = { input_type = true, truncate = true, max_tokens = true, priority = true }

-- What the embeddings are for must be said there; OpenAI's clients have no word for it but may add the field.
function M.write_request(r, cx)
    local out = { model = cx.model or r.model, texts = vectors.texts(r, cx), input_type = "search_document",
        embedding_types = { r.encoding or "float" }, output_dimension = r.dimensions }
    return vectors.rest(r, cx, out, OWN)
end

function M.read_answer(body)
    local given = fields.fields(body).embeddings
    local by_type = fields.fields(given)
    local read = vectors.read(given) or vectors.read(by_type.float) or vectors.read(by_type.base64)
    local err = not read and errors.find(body)
    if err then return { error = err } end
    local billed = fields.fields(fields.fields(fields.fields(body).meta).billed_units)
    return vectors.answer(read, fields.count(billed.input_tokens))
end

return M
