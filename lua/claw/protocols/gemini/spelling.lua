-- spelling: Google's JSON takes every field in two spellings, and its clients send both.

local json = require("claw.json")

local null = json.null

local function snake_of(name)
    return (name:gsub("%u", function(c) return "_" .. c:lower() end))
end

local SNAKE = setmetatable({}, { __index = function(t, name)
    local snake = snake_of(name)
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

-- A camelCase name in snake_case. It may be a client's own: nothing is kept of it.
function M.snake(name)
    return snake_of(name)
end

-- A name in camelCase.
function M.camel(name)
    return (name:gsub("_(%l)", string.upper))
end

return M
