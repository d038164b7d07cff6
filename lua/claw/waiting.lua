-- waiting: the services that let a hook wait, or that start what waits: claw.time.sleep, claw.task.*, claw.http.fetch.
--
-- core.sleep, join, spawn and fetch suspend the coroutine that calls them, whatever protected calls lie in between. By
-- the time they return other hooks have run: phases.now is set again before anything else.

local json = require("claw.json")
local phases = require("claw.phases")
local suggest = require("claw.suggest")

local M = {}

local LIMIT_MS = 600000
local FETCH_MS, FETCH_KB, FETCH_KB_MAX = 5000, 1024, 65536
local HEADERS_MAX = 100
local METHODS = { GET = true, HEAD = true, POST = true, PUT = true, PATCH = true, DELETE = true }

local function is_whole(v, low, high)
    return type(v) == "number" and v == math.floor(v) and v >= low and v <= high
end

local function sleep_for(core)
    return function(ms)
        local phase = phases.check("claw.time.sleep", 2)
        if type(ms) ~= "number" or not (ms >= 0 and ms <= LIMIT_MS) then
            error("claw.time.sleep: wants milliseconds from 0 to 600000", 2)
        end
        core.sleep(ms)
        phases.now = phase
    end
end

-- ---- tasks

local Task = { __metatable = "claw.task" }

local function pack(...)
    return { n = select("#", ...), ... }
end

-- A function that runs fn in a phase, protected; what became of it is left in task.
local function body_of(core, policy, task, phase, fn)
    local function on_error(err)
        local message = type(err) == "table" and err.message or err
        core.log("error", "a task of a policy failed", { policy = policy, hook = phase, message = tostring(message),
            traceback = debug.traceback(tostring(message), 2) })
        return tostring(message)
    end
    return function(...)
        phases.now = phase
        task.results = pack(xpcall(fn, on_error, ...))
        phases.now = nil
    end
end

local function spawn_for(core, policy)
    return function(fn, ...)
        local phase = phases.check("claw.task.spawn", 2)
        if type(fn) ~= "function" then error("claw.task.spawn: wants a function and its arguments", 2) end
        local task = setmetatable({}, Task)
        local id, message, code = core.spawn(body_of(core, policy, task, phase, fn), ...)
        phases.now = phase
        if not id then return nil, message, code end
        task.id = id
        return task
    end
end

-- Wait until the task is over. nil, or why it has no results.
local function join(core, phase, task, due)
    while not task.results do
        local alive, itself = core.alive(task.id)
        if itself then return "the task waits for itself", "EINVAL" end
        if not alive then return "the task failed", "EPOLICY" end
        local left = due - core.now_ms()
        if left <= 0 then return "the task took too long", "ETIMEOUT" end
        core.join(left)
        phases.now = phase
    end
    if not task.results[1] then return task.results[2], "EPOLICY" end
    return nil
end

local function wait_for(core)
    return function(...)
        local phase, n = phases.check("claw.task.wait", 2), select("#", ...)
        local tasks = { ... }
        for i = 1, math.max(n, 1) do
            if type(tasks[i]) ~= "table" or not rawget(tasks[i], "id") then
                error("claw.task.wait: wants handles of claw.task.spawn", 2)
            end
        end
        local due = core.now_ms() + LIMIT_MS
        if n == 1 then
            local message, code = join(core, phase, tasks[1], due)
            if message then return nil, message, code end
            return unpack(tasks[1].results, 2, tasks[1].results.n)
        end
        local out = {}
        for i = 1, n do
            if not join(core, phase, tasks[i], due) then out[i] = tasks[i].results[2] end
        end
        return unpack(out, 1, n)
    end
end

local function background_for(core, policy)
    return function(fn, ...)
        phases.check("claw.task.background", 2)
        if type(fn) ~= "function" then error("claw.task.background: wants a function and its arguments", 2) end
        return core.background(body_of(core, policy, {}, phases.BACKGROUND, fn), ...)
    end
end

-- ---- fetch

local FIELDS = { "url", "upstream", "path", "method", "headers", "body", "timeout_ms", "max_body_kb" }
local KNOWN = {}
for _, name in ipairs(FIELDS) do KNOWN[name] = true end

local function options(url, opts)
    if type(url) == "table" then url, opts = nil, url end
    if opts ~= nil and type(opts) ~= "table" then return nil, "wants a URL, or a table of options" end
    local out = { url = url }
    for key, value in pairs(opts or {}) do
        if not KNOWN[key] then
            return nil, ("there is no option %s%s"):format(tostring(key), suggest.hint(tostring(key), FIELDS))
        end
        out[key] = value
    end
    return out
end

-- Header fields as a flat list: name, value, name, value.
local function flat(headers)
    local out = {}
    for name, value in pairs(headers) do
        if #out >= 2 * HEADERS_MAX then return nil, "headers: more than 100 of them" end
        if type(name) ~= "string" or (type(value) ~= "string" and type(value) ~= "number") then
            return nil, "headers: wants names and texts"
        end
        out[#out + 1], out[#out + 2] = name, tostring(value)
    end
    return out
end

local function has(headers, wanted)
    for i = 1, #headers, 2 do
        if headers[i]:lower() == wanted then return true end
    end
    return false
end

-- The body's text; the second value says what is wrong.
local function text_of(core, body, headers)
    if body == nil or type(body) == "string" then return body end
    local text
    if core.is_doc(body) then
        text = tostring(body)
    elseif type(body) == "table" then
        local ok, encoded = pcall(json.encode, body, core.check)
        if not ok then return nil, "body: " .. tostring(encoded) end
        text = encoded
    else
        return nil, "body: wants a text, a table or a document"
    end
    if not has(headers, "content-type") then
        headers[#headers + 1], headers[#headers + 2] = "content-type", "application/json"
    end
    return text
end

-- What core.fetch gets, or nil and what is wrong.
local function question(core, upstreams, o)
    if (o.url == nil) == (o.upstream == nil) then return nil, "wants a url or an upstream" end
    local q = { url = o.url, path = o.path or "" }
    if o.upstream ~= nil then
        local u = upstreams[o.upstream]
        if not u then return nil, ("there is no upstream %s"):format(tostring(o.upstream)) end
        if type(q.path) ~= "string" or (q.path ~= "" and q.path:sub(1, 1) ~= "/") then
            return nil, "path: wants a text that begins with /"
        end
        q.index = u.index
    elseif type(o.url) ~= "string" then
        return nil, "url: wants a text"
    elseif o.path ~= nil then
        return nil, "path: goes with upstream, not with url"
    end
    if o.headers ~= nil and type(o.headers) ~= "table" then return nil, "headers: wants a table" end
    local wrong
    q.headers, wrong = flat(o.headers or {})
    if wrong then return nil, wrong end
    q.body, wrong = text_of(core, o.body, q.headers)
    if wrong then return nil, wrong end
    q.method = o.method or (q.body and "POST" or "GET")
    if not METHODS[q.method] then return nil, "method: wants GET, HEAD, POST, PUT, PATCH or DELETE" end
    q.timeout_ms, q.max_kb = o.timeout_ms or FETCH_MS, o.max_body_kb or FETCH_KB
    if not is_whole(q.timeout_ms, 1, LIMIT_MS) then return nil, "timeout_ms: wants a whole number from 1 to 600000" end
    if not is_whole(q.max_kb, 0, FETCH_KB_MAX) then return nil, "max_body_kb: wants a whole number from 0 to 65536" end
    return q
end

local function fetch_for(core, upstreams)
    return function(url, opts)
        local phase = phases.check("claw.http.fetch", 2)
        local o, wrong = options(url, opts)
        local q
        if o then q, wrong = question(core, upstreams, o) end
        if not q then error("claw.http.fetch: " .. wrong, 2) end
        local answer, message, code = core.fetch(q.url, q.index, q.path, q.method, q.headers, q.body, q.timeout_ms,
            q.max_kb * 1024)
        phases.now = phase
        if code == "EINVAL" then error("claw.http.fetch: " .. message, 2) end
        if not answer then return nil, message, code end
        return answer
    end
end

-- The services of one policy. upstreams: name -> { index }.
function M.services(core, policy, upstreams)
    return {
        sleep = sleep_for(core), spawn = spawn_for(core, policy), wait = wait_for(core),
        background = background_for(core, policy), fetch = fetch_for(core, upstreams),
    }
end

return M
