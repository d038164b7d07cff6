-- losses: fields of a request that a target has no word for, given up by name (cx.drop says what that means).

local fields = require("claw.protocols.fields")

local M = {}

-- What is no hint when it gets lost: the client would get another answer than it asked for.
local CLASS = { n = "content", logprobs = "content", modalities = "content", documents = "content",
    mcp_servers = "tool", web_search_options = "tool", plugins = "tool", container = "tool",
    grammar = "schema", json_schema = "schema", guided_json = "schema", guided_regex = "schema",
    guided_choice = "schema", guided_grammar = "schema", structured_outputs = "schema" }

-- The class of a field of a request.
function M.class(name)
    return CLASS[name] or "hint"
end

local function says(name, v)
    if v == nil or v == false or v == 0 then return false end
    return name ~= "n" or v > 1
end

-- names: fields of the request that the target does not know.
function M.fields(r, names, cx)
    for _, name in ipairs(names) do
        if says(name, r[name]) then cx.drop(name, M.class(name)) end
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
            cx.drop(name, M.class(name))
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

-- A tool that a provider runs, where the target has none of its kind.
function M.server(tool, cx)
    cx.drop("tools." .. tostring(tool.spelt or tool.kind), "tool", "only its own provider runs it")
end

-- Tools as the target's `spell(tool)` has them, those that only another provider runs lost; nil when there are none.
-- A tool_choice that names one leaves only that when `only`.
function M.tools(r, cx, spell, only)
    local out, choice = {}, r.tool_choice
    local name = only and choice and choice.mode == "tool" and choice.name
    for _, tool in ipairs(r.tools or {}) do
        if tool.server then
            M.server(tool, cx)
        elseif not name or tool.name == name then
            out[#out + 1] = spell(tool)
        end
    end
    return out[1] and out or nil
end

-- Members of a message or a tool, or of a part of one, that the vocabulary has no name for: given up by their path.
-- given: an object; known: a set; path: a pattern for the numbers behind it ("messages[%d].content[%d]").
function M.extra(given, known, cx, path, ...)
    if type(given) ~= "userdata" then return end
    for name, v in cx.each(given) do
        if not known[name] and v ~= false and fields.says(v) then cx.drop(path:format(...) .. "." .. name, "hint") end
    end
end

-- Who asks, for a target that has one name for that.
function M.user(r, cx)
    if r.user and r.safety_identifier then cx.drop("safety_identifier", "hint", "user is sent") end
    return r.user or r.safety_identifier
end

-- A set of the words of a text.
function M.set(words)
    local out = {}
    for word in words:gmatch("%S+") do out[word] = true end
    return out
end

-- What narrows a search: without it the tool would find what it must not.
local NARROWS = { allowed_domains = true, blocked_domains = true, filters = true, excludeDomains = true }

-- Settings of a tool that providers run, given up by name when the target has a tool of that kind with other settings.
-- known: a set of those it takes.
function M.settings(tool, known, cx)
    local given = tool.server
    if tool.origin == "gemini" then
        for _, inner in cx.each(given) do given = inner end
    end
    if type(given) ~= "userdata" then return end
    for name, v in cx.each(given) do
        if name == "container" then -- a sandbox of its own says nothing: every request has that
            v = type(v) == "string" and v or fields.fields(v).file_ids
        end
        if name ~= "type" and name ~= "name" and not known[name] and fields.says(v) then
            local class = NARROWS[name] and "tool" or "hint"
            cx.drop(("tools.%s.%s"):format(tool.spelt or tool.kind or "server", name), class)
        end
    end
end

-- System turns behind other turns, where the target knows only the ones in front.
function M.system(r, cx, why)
    for _, turn in ipairs(r.turns) do
        if turn.role == "system" then return cx.drop("messages.system", "hint", why) end
    end
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
