-- bedrock_embeddings: models of embeddings behind Bedrock's InvokeModel, whose bodies are the model's own: Amazon's
-- Titan and Nova (one text a request), Cohere's. Upstreams only.

local cohere = require("claw.protocols.cohere_embeddings")
local errors = require("claw.protocols.bedrock_converse.error")
local fields = require("claw.protocols.fields")
local vectors = require("claw.protocols.vectors")

local M = { vocabulary = "embeddings", read_error = errors.read }

local NONE = {}

local function only(r, cx)
    local texts = vectors.texts(r, cx)
    if texts[2] then cx.refuse("this model embeds one text a request", "input") end
    return texts[1]
end

function M.write_request(r, cx)
    local model = cx.model or r.model or ""
    if model:find("cohere.", 1, true) then
        local out = cohere.write_request(r, cx)
        out.model = nil
        return out
    elseif model:find("nova", 1, true) then
        return vectors.rest(r, cx, { taskType = "SINGLE_EMBEDDING", singleEmbeddingParams = {
            embeddingPurpose = "GENERIC_INDEX", embeddingDimension = r.dimensions,
            text = { truncationMode = "END", value = only(r, cx) } } }, NONE)
    end
    return vectors.rest(r, cx, { inputText = only(r, cx), dimensions = r.dimensions }, { normalize = true })
end

function M.read_answer(body)
    body = fields.fields(body)
    local input = fields.count(body.inputTextTokenCount)
    if fields.array(body.embedding) then return vectors.answer({ body.embedding }, input) end
    local by_type = fields.fields(body.embeddings)
    local read = vectors.read(body.embeddings, "embedding") -- Nova's
        or vectors.read(body.embeddings) or vectors.read(by_type.float) or vectors.read(by_type.base64)
    local err = not read and errors.find(body)
    if err then return { error = err } end
    return vectors.answer(read, input)
end

return M
