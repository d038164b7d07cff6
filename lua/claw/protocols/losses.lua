-- losses: fields of a request that a target has no word for, given up by name (cx.drop says what that means).

local M = {}

-- What is no hint when it gets lost: the client would get another answer than it asked for.
local CLASS = { n = "content", logprobs = "content", mcp_servers = "tool" }

local function says(name, v)
    if v == nil or v == false or v == 0 then return false end
    return name ~= "n" or v > 1
end

-- names: fields of the request that the target does not know.
function M.fields(r, names, cx)
    for _, name in ipairs(names) do
        if says(name, r[name]) then cx.drop(name, CLASS[name] or "hint") end
    end
end

-- The request's rest. into: takes those of `known` (a set) when the client's dialect is OpenAI's, whose clients may
-- add a provider's own fields; the others are lost.
function M.rest(r, cx, into, known)
    local names = {}
    for name in pairs(r.rest or {}) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
        if known and known[name] and r.dialect == "openai_chat" then
            into[name] = r.rest[name]
        else
            cx.drop(name, CLASS[name] or "hint")
        end
    end
end

-- At most `most` stop sequences go along.
function M.stops(r, most, cx)
    if not r.stop or #r.stop <= most then return r.stop end
    local out = {}
    for i = 1, most do out[i] = r.stop[i] end
    cx.drop("stop_sequences", "hint", ("only the first %d of %d are sent"):format(most, #r.stop))
    return out
end

-- A number that has bounds there: the nearest that it takes.
function M.bounded(v, least, most, field, cx)
    if not v or v >= least and v <= most then return v end
    local near = v < least and least or most
    cx.drop(field, "hint", ("%g is sent, the nearest there is"):format(near))
    return near
end

-- Tools as the target's `spell(tool)` has them, those that only another provider runs lost; nil when there are none.
-- A tool_choice that names one leaves only that when `only`.
function M.tools(r, cx, spell, only)
    local out, choice = {}, r.tool_choice
    local name = only and choice and choice.mode == "tool" and choice.name
    for _, tool in ipairs(r.tools or {}) do
        if tool.server then
            cx.drop("tools." .. tostring(tool.kind), "tool", "only its own provider runs it")
        elseif not name or tool.name == name then
            out[#out + 1] = spell(tool)
        end
    end
    return out[1] and out or nil
end

-- A schema for those who want an object's: a function without parameters has one without properties.
function M.schema(schema, cx)
    if schema and schema.type ~= nil then return schema end
    local out = { type = "object", properties = {} }
    if schema then
        for key, v in cx.each(schema) do out[key] = v end
    end
    return out
end

return M
