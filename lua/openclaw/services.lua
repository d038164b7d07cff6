-- services: claw.time.sleep, claw.task and claw.http where the proxy has none of its own yet, over the core of
-- openclaw.outside.

local clock = require("openclaw.clock")
local document = require("openclaw.document")
local phases = require("claw.phases")

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
    if ctx.hook == "background" or phase and phase.waits then return end
    error(("%s may not be called %s (allowed in: %s)"):format(name,
        ctx.hook and "in " .. ctx.hook or "outside of hooks", waiting_hooks()), 3)
end

-- ---- claw.http

local function options(given, opts)
    local out = {}
    for key, value in pairs(type(given) == "table" and given or opts or {}) do
        if not FETCH[key] then error(("claw.http.fetch: there is no option %s"):format(tostring(key)), 3) end
        out[key] = value
    end
    if type(given) == "string" then out.url = given end
    if (out.url == nil) == (out.upstream == nil) then error("claw.http.fetch: wants a url or an upstream", 3) end
    return out
end

local function fetch_for(core, ctx)
    return function(given, opts)
        check_waits(ctx, "claw.http.fetch")
        local o, headers, body = options(given, opts), {}, nil
        for name, value in pairs(o.headers or {}) do
            headers[#headers + 1], headers[#headers + 2] = name, tostring(value)
        end
        if o.body ~= nil then
            body = type(o.body) == "string" and o.body or document.encode(o.body)
            if type(o.body) ~= "string" and not (o.headers or {})["content-type"] then
                headers[#headers + 1], headers[#headers + 2] = "content-type", "application/json"
            end
        end
        return core.fetch(o.url, o.upstream, o.path or "", o.method or (body and "POST" or "GET"), headers, body,
            o.timeout_ms or 5000, (o.max_body_kb or 1024) * 1024)
    end
end

-- ---- claw.task

local handles = setmetatable({}, { __mode = "k" })

-- fn, protected, in a hook's name; its results are left in `results`, a failure is logged.
local function protected(core, ctx, hook, fn, results)
    return function(...)
        local outer = ctx.hook
        ctx.hook = hook
        local all = { pcall(fn, ...) }
        ctx.hook = outer
        if all[1] then
            for i = 2, table.maxn(all) do results[i - 1] = all[i] end
            return
        end
        results[2], results[3] = tostring(all[2]), "EPOLICY"
        core.log("error", "a task of a policy failed", { policy = ctx.policy, hook = hook, message = tostring(all[2]) })
    end
end

local function task(core, ctx)
    local T = {}
    function T.spawn(fn, ...)
        check_waits(ctx, "claw.task.spawn")
        if type(fn) ~= "function" then error("claw.task.spawn: wants a function and its arguments", 2) end
        local handle = newproxy(false)
        handles[handle] = {}
        core.spawn(protected(core, ctx, ctx.hook, fn, handles[handle]), ...)
        return handle
    end
    function T.wait(...)
        check_waits(ctx, "claw.task.wait")
        local n = select("#", ...)
        for i = 1, math.max(n, 1) do
            if not handles[select(i, ...)] then error("claw.task.wait: wants handles of claw.task.spawn", 2) end
        end
        if n == 1 then return unpack(handles[...], 1, table.maxn(handles[...])) end
        local out = {}
        for i = 1, n do out[i] = handles[select(i, ...)][1] end
        return unpack(out, 1, n)
    end
    function T.background(fn, ...)
        if type(fn) ~= "function" then error("claw.task.background: wants a function and its arguments", 2) end
        return core.background(protected(core, ctx, "background", fn, {}), ...)
    end
    return T
end

-- Complete a policy's `claw`. ctx: { policy, hook } and what openclaw.outside wants of it.
function M.install(claw, core, ctx)
    claw.http = claw.http or { fetch = fetch_for(core, ctx) }
    claw.task = claw.task or task(core, ctx)
    claw.time.sleep = claw.time.sleep or function(ms)
        check_waits(ctx, "claw.time.sleep")
        if type(ms) ~= "number" or not (ms >= 0 and ms <= 600000) then
            error("claw.time.sleep: wants milliseconds from 0 to 600000", 2)
        end
        core.sleep(ms)
    end
    claw.time.now = clock.now
    return claw
end

return M
