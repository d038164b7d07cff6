-- schema: Google's OpenAPI subset as JSON Schema. The other way needs nothing: parametersJsonSchema and
-- responseJsonSchema take JSON Schema as it is.

local spelling = require("claw.protocols.gemini.spelling")
local fields = require("claw.protocols.fields")

local M = {}

local COUNTS = { "minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties" }
local NAMED, LISTED = { "properties", "$defs" }, { "anyOf", "oneOf", "allOf", "prefixItems" } -- where others stand
local DEPTH = 64

-- Does the text say anything that JSON Schema says in another way?
local function is_foreign(text)
    return text:find('"type"%s*:%s*"%u') or text:find('"nullable"', 1, true) or text:find('"propertyOrdering"', 1, true)
        or text:find('"property_ordering"', 1, true) or text:find('"any_of"', 1, true)
        or text:find('"m[%a_]+"%s*:%s*"%d+"')
end

local rewrite

local function rewrite_all(list, cx, depth)
    for i = 1, #fields.list(list) do rewrite(list[i], cx, depth) end
end

function rewrite(node, cx, depth)
    if not fields.object(node) or depth > DEPTH then return end
    if type(node.type) == "string" then
        local kind = node.type:lower()
        if kind == "type_unspecified" then node.type = nil else node.type = kind end
    end
    if node.nullable ~= nil then
        if node.nullable == true and type(node.type) == "string" then node.type = { node.type, "null" } end
        node.nullable = nil
    end
    node.propertyOrdering, node.property_ordering = nil, nil
    if node.any_of ~= nil then
        if node.anyOf == nil then node.anyOf = node.any_of end
        node.any_of = nil
    end
    for _, name in ipairs(COUNTS) do
        local said = node[name] or spelling.get(node, name)
        if type(said) == "string" and tonumber(said) then node[name] = tonumber(said) end
    end
    for _, name in ipairs(NAMED) do
        local children = fields.object(node[name])
        if children then
            for _, child in cx.each(children) do rewrite(child, cx, depth + 1) end
        end
    end
    rewrite(node.items, cx, depth + 1)
    rewrite(node.additionalProperties, cx, depth + 1)
    for _, name in ipairs(LISTED) do rewrite_all(node[name], cx, depth + 1) end
end

-- A document in Google's words as one in JSON Schema's: the same when there is nothing to change. The given one is
-- never touched.
function M.read(schema, cx)
    if not fields.object(schema) then return nil end
    local text = tostring(schema)
    if not is_foreign(text) then return schema end
    local copy = cx.parse(text)
    if not copy then return schema end
    rewrite(copy, cx, 0)
    return copy
end

return M
