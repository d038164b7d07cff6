-- sandbox: what a policy file sees: this list and nothing else. Each file has an environment of its own. It is frozen,
-- and so is every table in it, which is a view: no policy can change what another one, or lua/claw, looks at.

local M = {}

local PLAIN = {
    "assert", "error", "ipairs", "next", "pairs", "select", "tonumber", "tostring", "type", "unpack",
}
local LIBRARIES = {
    string = { "byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "rep", "reverse", "sub",
        "upper" },
    table = { "concat", "insert", "maxn", "remove", "sort" },
    math = { "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod", "frexp",
        "huge", "ldexp", "log", "log10", "max", "min", "modf", "pi", "pow", "rad", "random", "sin", "sinh", "sqrt",
        "tan", "tanh" },
    os = { "time", "clock", "date" },
    coroutine = { "create", "running", "status" },
}
-- Pure modules a policy may require.
local REQUIRABLE = {
    ["claw.base64"] = true, ["claw.cidr"] = true, ["claw.glob"] = true, ["claw.json"] = true,
    ["claw.retry.classify"] = true,
}

local SORT_CHECK = 1000 -- comparisons
local LOADING = {}

-- A view of a table and of the tables inside of it: reads go through, writes raise refuse(key).
local function frozen(t, refuse)
    local inner = {}
    for key, value in pairs(t) do
        inner[key] = type(value) == "table" and frozen(value, refuse) or value
    end
    return setmetatable({}, { __index = inner, __newindex = function(_, key) refuse(key) end, __metatable = false })
end

local function read_only(name)
    return function(key)
        error(("%s.%s may not be written: it is read-only, use a local of your own"):format(name, tostring(key)), 3)
    end
end

-- What catches errors: a policy that is out of its budget is stopped anew behind each of these, so their nesting has
-- a bound (core.deeper raises).
local function catchers(deeper)
    local out = {}

    function out.pcall(f, ...)
        deeper()
        return pcall(f, ...)
    end

    local function handled(handler, ok, ...)
        if ok then return true, ... end
        return false, select(2, pcall(handler, ...))
    end

    -- LuaJIT runs an error's handler where no hook can stop it. This one is called once the stack is unwound: without
    -- debug.traceback nobody can tell.
    function out.xpcall(f, handler, ...)
        deeper()
        return handled(handler, pcall(f, ...))
    end

    function out.resume(co, ...)
        deeper()
        return coroutine.resume(co, ...)
    end

    function out.wrap(f)
        local resume = coroutine.wrap(f)
        return function(...)
            deeper()
            return resume(...)
        end
    end
    return out
end

-- A hook's own coroutine is not the policy's to yield: that would end as a hook that waits for nothing.
local function yield_for(hooked)
    return function(...)
        if hooked() then error("coroutine.yield: a hook may not be yielded, only a coroutine of one's own", 2) end
        return coroutine.yield(...)
    end
end

-- Comparisons of C functions, and of numbers and strings, run no code that can be stopped.
local function sort_for(check, deeper)
    return function(t, less)
        deeper()
        if type(t) ~= "table" or #t < SORT_CHECK then return table.sort(t, less) end
        local n = 0
        return table.sort(t, function(a, b)
            n = n + 1
            if n % SORT_CHECK == 0 then check() end
            if less then return less(a, b) end
            return a < b
        end)
    end
end

local function libraries(core)
    local out = {}
    for library, names in pairs(LIBRARIES) do
        out[library] = {}
        for _, name in ipairs(names) do out[library][name] = _G[library][name] end
    end
    for name, fn in pairs(core.pattern or {}) do out.string[name] = fn end
    out.table.sort = sort_for(core.check, core.deeper)
    return out
end

-- What policies/lib/ gives to one policy: each file is run once, with an environment of its own.
local function library_loader(core, claw, libs)
    local loaded, load = {}, nil
    function load(name)
        local lib = libs and libs[name]
        if not lib then error(("there is no policies/lib/%s.lua"):format(name), 3) end
        if loaded[name] == LOADING then error(("%s requires itself"):format(lib.file), 3) end
        if loaded[name] ~= nil then return loaded[name] end
        local chunk, message = core.load(lib.source, "@" .. lib.file)
        if not chunk then error(message, 0) end
        loaded[name] = LOADING
        core.setfenv(chunk, M.environment(claw, core, nil, load))
        local ok, result = pcall(chunk)
        if not ok then
            loaded[name] = nil
            error(result, 0)
        end
        loaded[name] = result == nil and true or result
        return loaded[name]
    end
    return load
end

-- A new environment. claw: the policy's services; core: C's functions; libs: name -> { file, source } of policies/lib.
-- load: for a file of policies/lib, its policy's own loader.
function M.environment(claw, core, libs, load)
    local catch, tables = catchers(core.deeper), libraries(core)
    local env = { _VERSION = _VERSION, pcall = catch.pcall, xpcall = catch.xpcall }
    tables.coroutine.resume, tables.coroutine.wrap = catch.resume, catch.wrap
    tables.coroutine.yield = yield_for(core.hooked)
    for _, name in ipairs(PLAIN) do env[name] = _G[name] end
    for name, library in pairs(tables) do env[name] = frozen(library, read_only(name)) end
    env.claw = frozen(claw, read_only("claw"))
    load = load or library_loader(core, claw, libs)
    function env.require(name)
        if name == "claw" then return env.claw end
        local lib = type(name) == "string" and name:match("^lib%.([a-z0-9_]+)$")
        if lib then return load(lib) end
        if not REQUIRABLE[name] then
            error(("a policy may require claw, its pure modules and lib.NAME, not %q"):format(tostring(name)), 2)
        end
        local module = {}
        for key, value in pairs(require(name)) do module[key] = value end
        local service = claw[name:match("^claw%.(%w+)$") or ""] -- the policy's own functions have what stops them
        for key, value in pairs(service or {}) do module[key] = value end
        return frozen(module, read_only(name))
    end
    local view = setmetatable({}, {
        __index = env, __metatable = false,
        __newindex = function(_, key)
            error(("global '%s' may not be written: use local, or claw.%s"):format(tostring(key), claw.store
                and "store for what outlives a request" or "state(req) for what the hooks of a request share"), 2)
        end,
    })
    env._G = view
    return view
end

return M
