-- Policies written inside of a spec, for openclaw.testing.

local testing = require("openclaw.testing")

local M = {}

-- The policy x, whose hooks are these lines.
function M.load(source, opts)
    opts = opts or {}
    opts.source = "local P = { name = 'x', api = 1 }\n" .. source .. "\nreturn P"
    return testing.load("policies/x.lua", opts)
end

-- What a call raises.
function M.message_of(fn, ...)
    local ok, message = pcall(fn, ...)
    if ok then error("nothing was raised", 2) end
    return message
end

return M
