-- services: the parts of `claw` that reach outside of a policy, without an outside.
--
-- Nothing waits here: claw.time.sleep moves openclaw.clock, claw.task.spawn runs its function to the end at once,
-- claw.task.background runs its behind the hook, and claw.http.fetch asks a function of the test. Where a hook may not
-- wait they say so as the proxy does.

local clock = require("openclaw.clock")
local document = require("openclaw.document")
local phases = require("claw.phases")
local store = require("openclaw.store")

local M = {}

local FETCH = { url = true, upstream = true, path = true, method = true, headers = true, body = true, timeout_ms = true,
    max_body_kb = true }

local function waiting_hooks()
    local out = {}
    for _, phase in ipairs(phases.list) do
        if phase.waits then out[#out + 1] = phase.hook end
    end
    return table.concat(out, ", ")
end

-- Raise unless the hook that runs may wait. A policy's background work may always.
local function check_waits(ctx, name)
    local phase = phases.by_name[ctx.hook or ""]
    if ctx.in_background or phase and phase.waits then return end
    error(("%s may not be called in %s (allowed in: %s)"):format(name, ctx.hook or "the file's own lines",
        waiting_hooks()), 3)
end

-- ---- claw.http

local function fetch_options(given, opts)
    local out = {}
    for key, value in pairs(type(given) == "table" and given or opts or {}) do
        if not FETCH[key] then error(("claw.http.fetch: unknown option %s"):format(tostring(key)), 3) end
        out[key] = value
    end
    if type(given) == "string" then out.url = given end
    if (out.url == nil) == (out.upstream == nil) then
        error("claw.http.fetch: wants url or upstream, one of them", 3)
    end
    if out.body ~= nil and type(out.body) ~= "string" then out.body = document.encode(out.body) end
    out.method = out.method or (out.body and "POST" or "GET")
    out.headers, out.timeout_ms = out.headers or {}, out.timeout_ms or 5000
    return out
end

-- A table of answers: by url, or by the upstream's name and path.
local function from_table(answers)
    return function(request)
        return answers[request.url or request.upstream .. (request.path or "")]
    end
end

local function answered(handler, request)
    local answer, message, code = handler(request)
    if answer == nil then
        if message then return nil, message, code or "ECONNECT" end
        error(("the test has no answer for claw.http.fetch of %s"):format(request.url or request.upstream
            .. (request.path or "")), 0)
    end
    if type(answer) == "string" then answer = { body = answer } end
    local body = answer.body or ""
    return { status = answer.status or 200, headers = answer.headers or {},
        body = type(body) == "string" and body or document.encode(body) }
end

local function http(ctx)
    return { fetch = function(given, opts)
        check_waits(ctx, "claw.http.fetch")
        local request = fetch_options(given, opts)
        local handler = ctx.fetch()
        if type(handler) == "table" then handler = from_table(handler) end
        ctx.calls[#ctx.calls + 1] = request
        return answered(handler or function() return nil end, request)
    end }
end

-- ---- claw.task

local handles = setmetatable({}, { __mode = "k" })

local function run(fn, ...)
    local results = { pcall(fn, ...) }
    if results[1] then return { unpack(results, 2, table.maxn(results)) } end
    return { nil, tostring(results[2]), "EPOLICY" }
end

local function task(ctx)
    local T = {}
    function T.spawn(fn, ...)
        check_waits(ctx, "claw.task.spawn")
        if type(fn) ~= "function" then error("claw.task.spawn: wants a function", 2) end
        local handle = newproxy(false)
        handles[handle] = run(fn, ...)
        return handle
    end
    function T.wait(...)
        check_waits(ctx, "claw.task.wait")
        local n = select("#", ...)
        for i = 1, n do
            if not handles[select(i, ...)] then error("claw.task.wait: wants handles of claw.task.spawn", 2) end
        end
        if n == 1 then
            local results = handles[...]
            return unpack(results, 1, table.maxn(results))
        end
        local out = {}
        for i = 1, n do out[i] = handles[select(i, ...)][1] end
        return unpack(out, 1, n)
    end
    function T.background(fn, ...)
        if type(fn) ~= "function" then error("claw.task.background: wants a function", 2) end
        ctx.queue[#ctx.queue + 1] = { fn, ... }
        return true
    end
    return T
end

-- Run what a hook left to be done behind it; a failure is logged.
function M.run_background(ctx)
    while ctx.queue[1] do
        local work = table.remove(ctx.queue, 1)
        ctx.in_background = true
        local ok, message = pcall(unpack(work, 1, table.maxn(work)))
        ctx.in_background = false
        if not ok then
            ctx.core.log("error", "a background task failed", { policy = ctx.policy, message = tostring(message) })
        end
    end
end

-- Put the fakes into a policy's `claw`. ctx: { core, policy, store, fetch() -> handler, calls, queue, hook }.
function M.install(claw, ctx)
    claw.http, claw.task, claw.store = http(ctx), task(ctx), store.functions(ctx.store, ctx.policy)
    claw.time = { now_ms = clock.now_ms, now = clock.now, sleep = function(ms)
        check_waits(ctx, "claw.time.sleep")
        if type(ms) ~= "number" or ms < 0 then error("claw.time.sleep: wants milliseconds", 2) end
        clock:advance(ms)
    end }
    return claw
end

return M
