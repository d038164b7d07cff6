-- admit: who may go on, who is refused, and who is answered at once, by a chain of admit hooks.

local answer = require("claw.answer")
local hooks = require("claw.hooks")

local M = {}

-- An admit verdict in full: { policy, status, code, message } of a refusal, { policy, status, answered = true } else.
function M.read(verdict, name)
    if verdict.answer ~= nil or verdict.say ~= nil then
        return { policy = name, status = verdict.status or 200, answered = true }
    end
    return { policy = name, status = verdict.deny, code = verdict.code or verdict[1] or "denied",
        message = verdict.message or verdict[2] or "The request was refused" }
end

-- A verdict read, or nil, as a text.
function M.text(read)
    if not read then return "pass" end
    if read.answered then return ("answer %d"):format(read.status) end
    return ("deny %d %s"):format(read.status, read.code)
end

-- The answer a policy gave in an upstream's place, written; nil: it could not be, and the policy skips what fails.
local function written(core, entry, read, verdict, req)
    core.enter(false)
    local ok, body, kind = pcall(answer.of, verdict, req)
    core.leave()
    if ok then
        read.body, read.content_type = body, kind
        return read
    end
    return hooks.fail(core, entry.policy, hooks.wrong(entry.policy, "admit",
        "an answer that is JSON (" .. tostring(body) .. ")", verdict.answer))
end

-- Run a chain: what the first policy with a verdict said, read, with body and content_type of an answer; nil: go on.
function M.run(core, entries, req)
    local from = 1
    while from do
        local verdict, at = hooks.first(core, entries, "admit", req, from)
        if verdict == nil then return nil end
        local entry = entries[at]
        local read = M.read(verdict, entry.policy.name)
        if read.answered then read = written(core, entry, read, verdict, req) end
        if read then return read end
        from = at + 1
    end
end
jit.off(M.run) -- as hooks.first

return M
