-- gemini_embed_batch: Google's batchEmbedContents.

local embed = require("claw.protocols.gemini_embed")
local errors = require("claw.protocols.gemini.error")
local fields = require("claw.protocols.fields")
local floats = require("claw.protocols.floats")
local json = require("claw.json")

local M = { vocabulary = "embeddings", read_error = errors.read, write_error = errors.write,
    write_request = embed.write_request, read_answer = embed.read_answer }

function M.read_request(body, cx)
    local all = fields.list(fields.object(body) and body.requests)
    local r = { dialect = "gemini_embed_batch", encoding = "float", inputs = {} }
    for i = 1, #all do
        if not fields.object(all[i]) then cx.refuse(("requests[%d] must be an object"):format(i - 1), "requests") end
        r.inputs[i] = embed.read_one(all[i], r, cx)
    end
    if not r.inputs[1] then cx.refuse('"requests" must be a list of requests', "requests") end
    r.model = fields.word(all[1].model)
    return r
end

function M.write_answer(answer)
    if answer.error then return errors.write(answer.error) end
    local out = json.array()
    for i, vector in ipairs(answer.vectors) do out[i] = { values = floats.list(vector) or json.array() } end
    return { embeddings = out }
end

return M
