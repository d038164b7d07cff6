-- spelling: Google's JSON takes every field in two spellings, and its clients send both.

local json = require("claw.json")

local null = json.null

local SNAKE = setmetatable({}, { __index = function(t, name)
    local snake = name:gsub("%u", function(c) return "_" .. c:lower() end)
    t[name] = snake
    return snake
end })

local M = {}

-- The field of an object (a document or a table) by its camelCase name; null is nil.
function M.get(o, name)
    local v = o[name]
    if v == nil then
        local snake = SNAKE[name]
        if snake ~= name then v = o[snake] end
    end
    if v == null then return nil end
    return v
end

-- A name in camelCase.
function M.camel(name)
    return (name:gsub("_(%l)", string.upper))
end

return M
