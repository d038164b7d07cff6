-- wording: a field of the vocabulary by its path in the client's own request, for what is told to the client.
--
-- A protocol that is read has `wording`, a table of the names that it spells otherwise:
--   [name] = path                  "messages.content.image" = "messages.content.image_url"
--   [name] = { path, … }           the first one that the body has; the first, when it has none
--   [name] = function(body, more)  gives the path; more: what stands behind the name, with its dot, or ""
-- A name stands for what begins with it and a dot, too. What is in no table is spelt as the vocabulary has it.

local fields = require("claw.protocols.fields")

local M = {}

-- Whether a body has what a path without places names.
local function has(body, path)
    local at = body
    for name in path:gmatch("[^.]+") do
        at = fields.object(at)
        at = at and at[name]
        if not fields.says(at) then return false end
    end
    return true
end

local function pick(entry, body, more)
    if type(entry) == "function" then return entry(body, more) end
    if type(entry) == "string" then return entry .. more, has(body, entry) end
    for _, path in ipairs(entry) do
        if has(body, path) then return path .. more, true end
    end
    return entry[1] .. more, false
end

-- The path of a name that the vocabulary, or the client, gave a field of this body.
function M.path(wording, body, name)
    local head = name
    while head do
        local entry = wording[head]
        if entry then
            local path, there = pick(entry, body, name:sub(#head + 1))
            if there == false and has(body, name) then return name end -- the client's own, of the same name
            return path
        end
        head = head:match("^(.*)%.[^.]*$")
    end
    return name
end

-- For `wording`: the last element of a list, which an upstream does not go on from.
function M.last(list)
    return function(body)
        local all = fields.list(body[list])
        return #all > 0 and ("%s[%d]"):format(list, #all - 1) or list
    end
end

-- For `wording`: the first system turn of a list that stands behind another turn.
function M.late_system(list)
    return function(body)
        local all, begun = fields.list(body[list]), false
        for i = 1, #all do
            local role = fields.fields(all[i]).role
            if role ~= "system" and role ~= "developer" then
                begun = true
            elseif begun then
                return ("%s[%d]"):format(list, i - 1)
            end
        end
        return list
    end
end

return M
