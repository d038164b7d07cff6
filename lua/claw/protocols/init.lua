-- protocols: the chat protocols by name. A module is loaded when it is first asked for.
--
-- README.md beside this file says what a module gives, and the vocabulary all of them share.

local M = {}

local loaded = {}

-- The module of a protocol, or nil when there is none of that name.
function M.get(name)
    name = tostring(name)
    local found = loaded[name]
    if found == nil then
        local path = "claw.protocols." .. name
        local ok, module = pcall(require, path)
        if not ok and not tostring(module):find("module '" .. path .. "' not found", 1, true) then error(module, 0) end
        found = ok and module or false
        loaded[name] = found
    end
    return found or nil
end

return M
