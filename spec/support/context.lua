-- A `cx` for protocols' specs: documents as the kit makes them, ids that are the same each time.

local context = require("claw.protocols.context")
local document = require("openclaw.document")
local json = require("claw.json")

local M = {}

function M.parse(text)
    local ok, doc, message = pcall(document.parse, text)
    if not ok then return nil, doc end
    if doc == nil then return nil, message end
    local kind = document.functions.type(doc)
    if kind ~= "object" and kind ~= "array" then return nil, "neither an object nor an array" end
    return doc
end

-- overrides: fields of context.new's spec, and `answering`.
function M.new(overrides)
    local spec = { parse = M.parse, decode = json.decode, model = "sent-model", asked = "asked-model", now = 1700000000,
        unique = "abcdefgh", provider = {} }
    for key, value in pairs(overrides or {}) do spec[key] = value end
    local cx = context.new(spec)
    cx.answering = spec.answering
    return cx
end

-- A Lua value as a document.
function M.doc(value)
    return (assert(M.parse(type(value) == "string" and value or json.encode(value))))
end

-- What was dropped, as one line.
function M.dropped(cx)
    return context.header(cx) or ""
end

return M
