-- A core made of Lua tables: a request is a table { headers, query, body, ip, tokens }, its own `req` and handle.

local json = require("claw.json")
local fake_doc = require("support.fake_doc")

local M = {}

local function texts_of(value)
    local out = {}
    for _, part in ipairs(value) do
        if type(part) == "table" and part.type == "text" then out[#out + 1] = part.text end
    end
    return #out > 0 and out or {}
end

local function collect(value, steps, i, out)
    if value == nil then return out end
    local step = steps[i]
    if not step then
        out = out or {}
        if type(value) ~= "table" then
            out[#out + 1] = value
        else
            for _, text in ipairs(texts_of(value)) do out[#out + 1] = text end
        end
        return out
    end
    if type(value) ~= "table" then return out end
    if step == "*" then
        for _, element in ipairs(value) do out = collect(element, steps, i + 1, out) end
        return out
    end
    if type(step) == "number" then step = step < 0 and #value + 1 + step or step + 1 end
    return collect(value[step], steps, i + 1, out)
end

local function steps_of(path)
    local steps = {}
    for name, rest in (path .. "."):gmatch("([^.%[]+)([^.]*)%.") do
        steps[#steps + 1] = name
        for index in rest:gmatch("%[([^%]]+)%]") do steps[#steps + 1] = tonumber(index) or index end
    end
    return steps
end

-- FNV-1a, 32 bits: as weak in its last bytes as a real core's may be.
function M.hash(text)
    local h = 2166136261
    for i = 1, #text do
        h = require("bit").bxor(h, text:byte(i)) % 4294967296
        h = (h * 403 + h % 256 * 16777216) % 4294967296
    end
    return h
end

-- A random source that is the same in every run.
function M.random(seed)
    local x = seed or 42
    return function()
        x = (x * 16807) % 2147483647
        return (x - 1) / 2147483646
    end
end

-- overrides: functions that replace the fake's; `logged` collects log calls; `live` is index -> { outstanding, ms, … }.
function M.new(overrides)
    local core = { null = json.null, logged = {}, live = {}, setfenv = setfenv, hash = M.hash, random = M.random() }
    function core.header(r, name) return r.headers and r.headers[name] end
    function core.query(r, name) return r.query and r.query[name] end
    function core.json(r, path)
        if not r.body then return nil end
        return collect(r.body, steps_of(path), 1, nil)
    end
    function core.client_ip(r) return r.ip or "127.0.0.1" end
    function core.estimate(r) return r.tokens or 10 end
    function core.facts(index)
        local live = core.live[index] or {}
        return live.outstanding or 0, live.ms, live.age, live.mean
    end
    function core.now_ms() return 1000 end
    function core.request(r) return r end
    function core.body(r) return r.body and fake_doc.new(r.body) end
    function core.response_body(r) return type(r.answer) == "table" and fake_doc.new(r.answer) or r.answer end
    function core.is_doc(v) return fake_doc.is(v) end
    function core.changed(doc) return fake_doc.changed(doc) end
    function core.log(level, message, fields)
        core.logged[#core.logged + 1] = { level = level, message = message, fields = fields }
    end
    -- What waits is a yield: the spec resumes. Spawned functions run at once, to their first wait.
    core.tasks = {}
    function core.sleep(ms) coroutine.yield("sleep", ms) end
    function core.join(ms) coroutine.yield("join", ms) end
    function core.fetch(...) return coroutine.yield("fetch", ...) end
    function core.spawn(fn, ...)
        local task = coroutine.create(fn)
        core.tasks[#core.tasks + 1] = task
        local id = #core.tasks
        assert(coroutine.resume(task, ...))
        return id
    end
    function core.alive(id)
        local task = core.tasks[id]
        return task ~= nil and coroutine.status(task) ~= "dead", task == coroutine.running()
    end
    function core.background(fn, ...) return core.spawn(fn, ...) ~= nil end
    function core.load(source, chunkname) return loadstring(source, chunkname) end
    for name, fn in pairs(overrides or {}) do core[name] = fn end
    return core
end

return M
