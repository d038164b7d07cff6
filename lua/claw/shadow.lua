-- shadow: policies that decide and change nothing (policies.shadow). What one would have decided is compared with
-- what was: counted, and logged where they differ. Bodies, fields of the head and req.ctx are copies of its own.
--
-- admit, route, choose and retry hooks run behind the real ones of their step, request hooks in their place of the
-- chain; response, event, cost and log hooks do not run.

local admit = require("claw.admit")
local diff = require("claw.diff")
local glob = require("claw.glob")
local hooks = require("claw.hooks")
local json = require("claw.json")
local phases = require("claw.phases")
local suggest = require("claw.suggest")

local M = {}

local UNCHANGED = "unchanged"

-- ---- one hook

local function failed(core, policy, hook, req, failure)
    core.count_shadow(policy.name, hook, "error")
    core.log("error", "a policy failed in shadow", { request_id = req.id, policy = policy.name, hook = hook,
        error = failure.message, traceback = failure.traceback })
end

local function compare(core, policy, hook, req, real, verdict)
    core.count_shadow(policy.name, hook, real ~= verdict and "true" or "false")
    if real == verdict then return end
    core.log("info", "shadow decision", { request_id = req.id, policy = policy.name, hook = hook, real = real,
        shadow = verdict })
end

-- Run fn with req.ctx and the upstream's head of its own. ok, answer (or the failure), what it set of the head.
local function aside(core, policy, hook, req, fn, ...)
    local outer, kept = phases.now, policy.shadow.ctx
    kept[req] = kept[req] or {}
    local saved = core.aside(req, kept[req])
    phases.now = hook
    local ok, answer = hooks.protect(core, false, fn, ...)
    phases.now = outer
    return ok, answer, core.back(req, saved)
end

-- A verdict that was checked, nil for none; false when there is nothing to compare.
local function verdict_of(core, policy, hook, req, fn, ...)
    local ok, answer = aside(core, policy, hook, req, fn, ...)
    local check = phases.by_name[hook].check
    local expected = ok and answer ~= nil and check and check(answer)
    if ok and not expected then return true, answer end
    failed(core, policy, hook, req, ok and hooks.wrong(policy, hook, expected, answer) or answer)
    return false
end

-- ---- request hooks: in their place

-- What it answers costs it, too: the text is made within a call's time.
local function text_of(core, body)
    if type(body) ~= "table" then return true, body ~= nil and tostring(body) or nil end
    core.enter(false)
    local ok, text = pcall(json.encode, body, core.check)
    core.leave()
    return ok, text
end

-- Paths and names without values: bodies hold what users wrote.
local function changes(before, after, head)
    local out = diff.texts(before, after, true)
    for _, name in ipairs(head) do out[#out + 1] = name end
    return #out > 0 and "changes " .. diff.cut(table.concat(out, ", "), 512) or UNCHANGED
end

local function request_entry(core, policy, fn)
    local function run(req, body)
        local twin = core.is_doc(body) and core.twin(req, body) or body
        local _, before = text_of(core, body)
        local ok, answer, head = aside(core, policy, "request", req, fn, req, twin)
        if ok then
            if answer == nil then answer = twin end
            ok, answer = text_of(core, answer)
            if not ok then answer = { message = tostring(answer) } end
        end
        if not ok then return failed(core, policy, "request", req, answer) end
        compare(core, policy, "request", req, UNCHANGED, changes(before, answer, head))
    end
    return { policy = policy, fn = run }
end

-- ---- the others: behind the real ones

-- said: the real verdict, read (claw.admit), nil: none. entries as of claw.plan.
function M.admit(core, entries, req, said)
    local real = admit.text(said)
    for _, entry in ipairs(entries) do
        local ok, v = verdict_of(core, entry.policy, "admit", req, entry.fn, req)
        if ok then
            compare(core, entry.policy, "admit", req, real, admit.text(v and admit.read(v, entry.policy.name)))
        end
    end
end

-- A list of candidates as text.
function M.order_text(list)
    local out = {}
    for i, c in ipairs(list) do out[i] = c.name .. (c.model and " as " .. c.model or "") end
    return #out > 0 and table.concat(out, ", ") or "nobody"
end

-- hook: "route" or "choose"; real: the order decided, as text; list: what the hook starts from; resolve(answer, list):
-- its order, or nil and what was expected; arguments: a function that makes the hook's, anew for each.
function M.order(core, entries, hook, req, real, list, resolve, arguments)
    for _, entry in ipairs(entries) do
        local policy = entry.policy
        local ok, answer = verdict_of(core, policy, hook, req, entry.fn, arguments())
        local order, expected = list, nil
        if ok and (answer ~= nil or hook == "choose") then order, expected = resolve(answer, list) end
        if ok and not order then
            failed(core, policy, hook, req, hooks.wrong(policy, hook, expected, answer))
        elseif ok then
            compare(core, policy, hook, req, real, answer == nil and hook == "route" and real or M.order_text(order))
        end
    end
end

local function action_text(action, after)
    return action == "same" and ("same after %d ms"):format(after) or action
end

-- action, after: decided; settle(verdict): the same of a hook's verdict.
function M.retry(core, entries, req, attempt, action, after, settle)
    for _, entry in ipairs(entries) do
        local given = { action = action, after_ms = after }
        for key, value in pairs(attempt) do given[key] = value end
        local ok, v = verdict_of(core, entry.policy, "retry", req, entry.fn, req, given)
        local real = action_text(action, after)
        if ok then compare(core, entry.policy, "retry", req, real, v and action_text(settle(v)) or real) end
    end
end

-- ---- at boot

-- Mark the policies that policies.shadow names. all: { by_name, names }; returns the marked ones' names in order.
function M.mark(core, all, list, problems)
    local out = {}
    local function mark(name)
        local p = all.by_name[name]
        if not p or p.shadow then return end
        p.shadow = { ctx = setmetatable({}, { __mode = "k" }) }
        local fn = p.fn or p.hooks.request
        if fn then p.shadow.request = request_entry(core, p, fn) end
        out[#out + 1] = name
    end
    for i, word in ipairs(list or {}) do
        local test = glob.is(word) and glob.compile(word)
        if not test and all.by_name[word] == nil then
            problems[#problems + 1] = { path = ("policies.shadow[%d]"):format(i - 1),
                message = ('there is no policy "%s"%s'):format(word, suggest.hint(word, all.names)) }
        end
        for _, name in ipairs(all.names) do
            if name == word or (test and test(name)) then mark(name) end
        end
    end
    return out
end

-- The hooks of those in shadow, nil when there are none.
function M.collect(policies, hook)
    local out
    for _, p in ipairs(policies) do
        if p.shadow and p.hooks[hook] then
            out = out or {}
            out[#out + 1] = { policy = p, fn = p.hooks[hook] }
        end
    end
    return out
end

return M
