-- vectors: what protocols of embeddings share. README.md has their vocabulary.

local fields = require("claw.protocols.fields")

local M = {}

-- The inputs, all of them texts.
function M.texts(r, cx)
    for _, input in ipairs(r.inputs) do
        if type(input) ~= "string" then cx.refuse("inputs of tokens cannot go to another provider", "input") end
    end
    return r.inputs
end

-- An array of arrays (or of base64) as vectors: nil when one is neither. member: they are objects, which have it there.
function M.read(all, member)
    all = fields.array(all)
    if not all or #all == 0 then return nil end
    local out = {}
    for i = 1, #all do
        local one = all[i]
        if member then one = fields.fields(one)[member] end
        local vector = fields.array(one) or fields.word(one)
        if not vector then return nil end
        out[i] = vector
    end
    return out
end

-- An answer, or nil and a message.
function M.answer(vectors, input, model)
    if not vectors then return nil, "no embeddings in the upstream's answer" end
    return { model = model, vectors = vectors, usage = input and { input = input, output = 0 } or nil }
end

-- A request's rest: of OpenAI's clients what is `known` goes along.
function M.rest(r, cx, out, known)
    local names = {}
    for name in pairs(r.rest or {}) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
        if known[name] then out[name] = r.rest[name] else cx.drop(name, "hint") end
    end
    if r.user then cx.drop("user", "hint") end
    return out
end

return M
