-- A core made of Lua tables: a request is a table { headers, query, body, ip, tokens }, its own `req` and handle.

local core_of = require("openclaw.core")
local document = require("openclaw.document")
local json = require("claw.json")

local M = {}

M.hash, M.random = core_of.hash, core_of.random

-- overrides: functions that replace the fake's; `logged` collects log calls; `live` is index -> { outstanding, ms, … }.
function M.new(overrides)
    local core = { null = json.null, logged = {}, failures = {}, live = {}, setfenv = setfenv, hash = M.hash, random = M.random() }
    function core.header(r, name) return r.headers and r.headers[name] end
    function core.query(r, name) return r.query and r.query[name] end
    function core.json(r, path)
        if not r.body then return nil end
        return core_of.values(r.body, path)
    end
    function core.client_ip(r) return r.ip or "127.0.0.1" end
    function core.estimate(r) return r.tokens or 10 end
    function core.facts(index)
        local live = core.live[index] or {}
        return live.outstanding or 0, live.ms, live.age, live.mean
    end
    function core.cooling(index)
        local live = core.live[index] or {}
        return live.state or "closed", live.cooling
    end
    function core.now_ms() return 1000 end
    function core.now_us() return 1000000 end
    function core.aside(r, ctx)
        local saved = { headers = r.set_headers, path = r.set_path, ctx = r.ctx }
        r.ctx = ctx
        return saved
    end
    function core.back(r, saved)
        local changed = {}
        if r.set_headers ~= saved.headers then changed[1] = "header " .. r.set_headers[1] end
        if r.set_path ~= saved.path then changed[#changed + 1] = "path" end
        r.set_headers, r.set_path, r.ctx = saved.headers, saved.path, saved.ctx
        return changed
    end
    function core.twin(_, doc) return document.new(doc:table()) end
    core.counted = {}
    function core.count_shadow(policy, hook, differs)
        core.counted[#core.counted + 1] = table.concat({ policy, hook, differs }, " ")
    end
    function core.outgoing(r) return r.set_headers or {}, r.set_path end
    function core.request(r) return r end
    function core.body(r) return r.body and document.new(r.body) end
    function core.response_body(r) return type(r.answer) == "table" and document.new(r.answer) or r.answer end
    function core.parse(_, text)
        local decoded = json.decode(text)
        return type(decoded) == "table" and document.new(decoded) or nil
    end
    function core.json_error(text)
        local value, message = json.decode(text)
        return value == nil and message or nil
    end
    function core.rewritten(r) return r.set_path ~= nil or r.upstream ~= nil and r.upstream.path ~= nil end
    function core.used(r, ...) r.used = { ... } end
    function core.request_id(r) return r.id or ("%032x"):format(1) end
    function core.is_doc(v) return document.is(v) end
    function core.changed(doc) return document.changed(doc) end
    function core.log(level, message, fields)
        core.logged[#core.logged + 1] = { level = level, message = message, fields = fields }
    end
    -- What waits is a yield: the spec resumes. Spawned functions run at once, to their first wait.
    core.tasks = {}
    function core.sleep(ms) coroutine.yield("sleep", ms) end
    function core.join(ms) coroutine.yield("join", ms) end
    function core.fetch(...) return coroutine.yield("fetch", ...) end
    function core.redis(...) return coroutine.yield("redis", ...) end
    core.variables = {}
    function core.env(name) return core.variables[name] end
    -- Regular expressions that Lua's patterns can stand for.
    function core.re_compile(pattern)
        if pattern:find("^%(") then return nil, "no closing", 1 end
        return { pattern }
    end
    function core.re_exec(compiled, text, init, no_empty)
        local found = { text:find((no_empty and "^" or "") .. compiled[1], init) }
        if no_empty and found[1] and found[2] < found[1] then return nil end
        return unpack(found)
    end
    function core.series() return true end
    function core.sha1(text) return ("%040x"):format(#text) end
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
    -- Without ends and bounds: what specs of policies need.
    local kept = {}
    function core.store(policy)
        local function place(key, options) return (options and options.shared and "" or policy) .. "\0" .. key end
        local store = {}
        function store.get(key, options) return kept[place(key, options)] end
        function store.set(key, value, options)
            kept[place(key, options)] = value
            return true
        end
        function store.add(key, value, options)
            if kept[place(key, options)] ~= nil then return false end
            return store.set(key, value, options)
        end
        function store.incr(key, by, options)
            local sum = (kept[place(key, options)] or 0) + (by or 1)
            kept[place(key, options)] = sum
            return sum
        end
        function store.cas(key, old, new, options)
            if kept[place(key, options)] ~= old then return false end
            return store.set(key, new, options)
        end
        function store.delete(key, options)
            local was = kept[place(key, options)] ~= nil
            kept[place(key, options)] = nil
            return was
        end
        return store
    end
    function core.load(source, chunkname) return loadstring(source, chunkname) end
    function core.enter() end
    function core.leave() return false end
    function core.check() end
    function core.deeper() end
    function core.hooked() return false end
    function core.failed(policy, hook) core.failures[#core.failures + 1] = policy .. "." .. hook end
    for name, fn in pairs(overrides or {}) do core[name] = fn end
    return core
end

return M
