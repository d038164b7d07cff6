-- outside: what lies outside of a policy, for the fake core: the store, time to sleep through, tasks, background work,
-- HTTP.
--
-- Nothing waits here: sleeping moves openclaw.clock, a task runs to its end at once, background work runs behind the
-- hook, and HTTP asks a function of the test.

local clock = require("openclaw.clock")
local document = require("openclaw.document")
local store = require("openclaw.store")

local M = {}

local function place(request)
    return request.url or request.upstream .. (request.path or "")
end

-- A table of answers: by url, or by the upstream's name and path.
local function from_table(answers)
    return function(request) return answers[place(request)] end
end

local function answered(handler, request)
    local answer, message, code = handler(request)
    if answer == nil then
        if message then return nil, message, code or "ECONNECT" end
        error(("the test has no answer for claw.http.fetch of %s"):format(place(request)), 0)
    end
    if type(answer) == "string" then answer = { body = answer } end
    local body = answer.body or ""
    return { status = answer.status or 200, headers = answer.headers or {},
        body = type(body) == "string" and body or document.encode(body) }
end

-- ctx: { store, fetch() -> who answers, calls (what was asked), queue (background work) }. index is
-- the upstream's name.
function M.add(core, ctx)
    function core.store(policy) return store.functions(ctx.store, policy) end
    function core.sleep(ms) clock:advance(ms) end
    function core.join(ms) clock:advance(ms) end
    function core.alive() return false, false end
    function core.spawn(fn, ...)
        fn(...)
        return 1
    end
    function core.background(fn, ...)
        ctx.queue[#ctx.queue + 1] = { fn, ... }
        return true
    end
    -- No variable is listed, every series has room, and there is no Redis.
    function core.env() return nil end
    function core.series() return true end
    function core.redis() return nil, "Redis is down: the test has none", "EDOWN" end
    function core.sha1(text) return ("%040x"):format(#text) end
    function core.fetch(url, index, path, method, headers, body, timeout_ms)
        local request = { url = url, upstream = index, path = path ~= "" and path or nil, method = method, headers = {},
            body = body, timeout_ms = timeout_ms }
        for i = 1, #headers, 2 do request.headers[headers[i]] = headers[i + 1] end
        ctx.calls[#ctx.calls + 1] = request
        local handler = ctx.fetch()
        if type(handler) == "table" then handler = from_table(handler) end
        return answered(handler or function() return nil end, request)
    end
end

-- Run what a hook left to be done behind it.
function M.run_background(ctx)
    while ctx.queue[1] do
        local work = table.remove(ctx.queue, 1)
        work[1](unpack(work, 2, table.maxn(work)))
    end
end

return M
