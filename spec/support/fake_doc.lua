-- A document as policies see one: fields are read and set, :table() gives a plain copy. (A userdata in the proxy; here
-- newproxy, so that type() says userdata too.)

local json = require("claw.json")

local M = {}

local docs = setmetatable({}, { __mode = "k" })

function M.new(value)
    local doc = newproxy(true)
    local inner = { value = json.decode(json.encode(value)), changed = false }
    docs[doc] = inner
    local meta = getmetatable(doc)
    function meta.__index(_, key)
        if key == "table" then return function() return json.decode(json.encode(inner.value)) end end
        return inner.value[key]
    end
    function meta.__newindex(_, key, v)
        inner.value[key], inner.changed = v, true
    end
    function meta.__tostring() return json.encode(inner.value) end
    function meta.__len() return #inner.value end
    return doc
end

function M.is(v)
    return docs[v] ~= nil
end

function M.changed(doc)
    return docs[doc].changed
end

return M
