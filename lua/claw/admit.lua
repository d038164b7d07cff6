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

-- Run a chain: what the first policy with a verdict said, read, with body and content_type of an answer; nil: go on.
function M.run(core, entries, req)
    for i = 1, #entries do
        local entry = entries[i]
        local verdict = hooks.call(core, entry, "admit", nil, req)
        local read = verdict and M.read(verdict, entry.policy.name)
        if read and read.answered then
            core.enter(false)
            local ok, body, kind = pcall(answer.of, verdict, req)
            core.leave()
            if ok then
                read.body, read.content_type = body, kind
            else
                read = hooks.fail(core, entry.policy, hooks.wrong(entry.policy, "admit",
                    "an answer that is JSON (" .. tostring(body) .. ")", verdict.answer))
            end
        end
        if read then return read end
    end
    return nil
end

return M
