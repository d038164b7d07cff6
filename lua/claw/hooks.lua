-- hooks: one protected call of one hook, and the check of what it answers.
--
-- A policy that fails, or answers what is no verdict, raises { policy, hook, message, traceback } for the request it
-- was called for; with on_error = "skip" that is logged, and the request goes on as if the hook had answered nil.

local phases = require("claw.phases")

local M = {}

local xpcall = xpcall

-- Who looks on (claw.witness); nil: nobody.
M.witness = nil

-- What a policy raised may be anything: only texts are told as they are.
local function on_error(err)
    local message = type(err) == "string" and err or type(err) == "number" and tostring(err)
        or ("an error that is a %s value"):format(type(err))
    return { message = message, traceback = debug.traceback("", 2) }
end

-- Memory that runs out leaves none for the handler.
local function failure_of(answer, stopped)
    if type(answer) ~= "table" then answer = { message = tostring(answer), traceback = "" } end
    answer.stopped = stopped
    return answer
end

-- Run a policy's function within its budget: true and what it answers, or false and { message, traceback, stopped }.
function M.protect(core, booting, fn, a, b, c)
    core.enter(booting)
    local ok, answer = xpcall(fn, on_error, a, b, c)
    local stopped = core.leave()
    if ok then return true, answer end
    return false, failure_of(answer, stopped)
end

local function show(v)
    if type(v) == "string" then return ("%q"):format(#v > 60 and v:sub(1, 60) .. "…" or v) end
    if type(v) == "table" or type(v) == "function" or type(v) == "userdata" then return "a " .. type(v) end
    return tostring(v)
end

-- What is raised for a verdict of the wrong kind.
function M.wrong(policy, hook, expected, got)
    return {
        policy = policy.name, hook = hook,
        message = ("%s: %s: expected %s, got %s"):format(policy.file, hook, expected, show(got)),
    }
end

-- Raise a failure, or for a policy that skips: log it and return nil.
function M.fail(core, policy, failure)
    if M.witness then M.witness.failed(policy, failure) end
    if not policy.skip then error(failure, 0) end
    core.failed(failure.policy, failure.hook, failure.stopped)
    core.log("error", "a policy failed and was skipped",
        { policy = failure.policy, hook = failure.hook, message = failure.message })
    return nil
end

-- What became of a call: the hook's answer, nil when there is none to go by; or raises.
local function answered(core, entry, hook, check, ok, answer)
    local policy = entry.policy
    if not ok then
        answer.policy, answer.hook = policy.name, hook
        if not (answer.message .. answer.traceback):find(policy.file, 1, true) then -- behind a tail call, or no memory
            answer.message = policy.file .. ": " .. answer.message
        end
        return M.fail(core, policy, answer)
    end
    if answer == nil then return nil end
    check = check or phases.by_name[hook].check
    local expected = check and check(answer)
    if expected then
        return M.fail(core, policy, M.wrong(policy, hook, expected, answer))
    end
    return answer
end

-- entry: { policy, fn }. Returns the hook's answer, nil when it failed and is to be skipped.
-- check(v, extra): nil, or what was expected; by default the phase's own.
function M.call(core, entry, hook, check, a, b, c)
    local policy, outer, witness = entry.policy, phases.now, M.witness
    local note = witness and witness.begin(policy, hook, a, b)
    phases.now = hook
    local ok, answer = M.protect(core, false, entry.fn, a, b, c)
    phases.now = outer
    if note then witness.ended(note, ok, answer) end
    return answered(core, entry, hook, check, ok, answer)
end

-- Call one entry after the other, from place `from` (1) on, until one answers: its answer and its place, or nil. As
-- call does it, which is too dear for what most entries are: a look at the request that finds nothing. Entering the
-- next one's budget leaves the last one's.
function M.first(core, entries, hook, a, from)
    if M.witness then return M.first_watched(core, entries, hook, a, from) end
    local enter, outer = core.enter, phases.now
    for i = from or 1, #entries do
        phases.now = hook
        enter()
        local ok, answer = xpcall(entries[i].fn, on_error, a)
        if not ok or answer ~= nil then
            local stopped = core.leave()
            phases.now = outer
            if not ok then answer = failure_of(answer, stopped) end
            answer = answered(core, entries[i], hook, nil, ok, answer)
            if answer ~= nil then return answer, i end
        end
    end
    core.leave()
    phases.now = outer
    return nil
end
jit.off(M.first) -- policies are never compiled: a trace would end at each call

function M.first_watched(core, entries, hook, a, from)
    for i = from or 1, #entries do
        local answer = M.call(core, entries[i], hook, nil, a)
        if answer ~= nil then return answer, i end
    end
    return nil
end

return M
