-- match: a `match` block becomes tests, and a measure of how specific it is.
--
-- A compiled block is split by what it needs, so that the hot path asks only what it must:
--   m.path(path), m.methods[method]   known from the request line: decided once per path and method
--   m.model                           tests over the requested model: decided once per model
--   m.tests                           the rest, asked for every request
--   m.upstream(name), m.route(id)     for transformations: decided at boot
-- Every test is { what, want, run = function(r, model) -> boolean }.

local cidr = require("claw.cidr")
local glob = require("claw.glob")
local suggest = require("claw.suggest")
local value = require("claw.value")

local M = {}

local KEYS = { "path", "method", "headers", "query", "json_body", "client", "model" }
local CLIENT_KEYS = { "name", "tier", "ip" }
local RANKS = { exact = "exact", list = "lists", operator = "operators", glob = "globs" }

-- Reused for single values, so that a test allocates nothing. Tests never yield between set and use.
local one = {}

local function wrap(v)
    if v == nil then return nil end
    one[1] = v
    return one
end

-- State of one compilation: m, problems, where (key path), core.
local function problem(c, key, message)
    c.problems[#c.problems + 1] = { path = key and c.where .. "." .. key or c.where, message = message }
end

local function compile_value(c, key, node, opts)
    local v, message, inner = value.compile(node, opts)
    if not v then
        problem(c, inner and key .. "." .. inner or key, message)
        return nil
    end
    local m = c.m
    m.count = m.count + 1
    m[RANKS[v.rank]] = m[RANKS[v.rank]] + 1
    m.literal = m.literal + v.literal
    return v.test, v.words
end

local function add(c, list, key, node, opts, run)
    local test, words = compile_value(c, key, node, opts)
    if not test then return nil end
    local made = { what = key, want = value.describe(node), words = words,
        run = function(r, model) return test(run(r, model)) end }
    list[#list + 1] = made
    return made
end

local compilers = {}

function compilers.path(c, node)
    if type(node) == "string" and not glob.is(node) then c.m.exact_path = node end
    local test = compile_value(c, "path", node, { glob = true })
    if test then
        c.m.path = function(path) return test(wrap(path)) end
        c.m.path_want = value.describe(node)
    end
end

function compilers.method(c, node)
    local names = type(node) == "table" and node or { node }
    local set, any = {}, false
    for _, name in ipairs(names) do
        if type(name) ~= "string" or not name:match("^[%a*-]+$") then
            return problem(c, "method", "expected a method such as POST, or a list of them")
        end
        if name == "*" then any = true end
        set[name:upper()] = true
    end
    if next(set) == nil or type(node) == "table" and node[1] == nil then
        return problem(c, "method", "expected a method such as POST, or a list of them")
    end
    if any then return nil end
    c.m.methods, c.m.method_want = set, value.describe(node):upper()
    c.m.count = c.m.count + 1
    local rank = type(node) == "table" and "lists" or "exact"
    c.m[rank] = c.m[rank] + 1
end

local function each_key(c, key, node, fn)
    if type(node) ~= "table" or node[1] ~= nil then return problem(c, key, "expected a map") end
    for _, name in ipairs(suggest.keys(node)) do
        fn(name, node[name] == nil and node[tonumber(name)] or node[name])
    end
end

function compilers.headers(c, node)
    local core = c.core
    each_key(c, "headers", node, function(name, spec)
        local header = name:lower()
        add(c, c.m.tests, "headers." .. name, spec, { text = true },
            function(r) return wrap(core.header(r, header)) end)
    end)
end

function compilers.query(c, node)
    local core = c.core
    each_key(c, "query", node, function(name, spec)
        add(c, c.m.tests, "query." .. name, spec, { text = true },
            function(r) return wrap(core.query(r, name)) end)
    end)
end

function compilers.json_body(c, node)
    local core = c.core
    each_key(c, "json_body", node, function(path, spec)
        local key = "json_body." .. path
        if path == "model" then
            -- The model is known before the body is looked at (it may also stand in the URL).
            add(c, c.m.model, key, spec, nil, function(r, model)
                return model and wrap(model) or core.json(r, "model")
            end)
        else
            local last = add(c, c.m.tests, key, spec, nil, function(r) return core.json(r, path) end)
            local words = last and last.words
            -- Words are looked for where the body lies: its texts may be too large to become strings here.
            if words and core.mentions then
                last.run = function(r) return core.mentions(r, path, words) end
            end
        end
    end)
end

function compilers.model(c, node)
    add(c, c.m.model, "model", node, { glob = true }, function(_, model) return wrap(model) end)
end

local function blocks(c, node)
    local out = {}
    for i, text in ipairs(type(node) == "table" and node or { node }) do
        local block, message = cidr.block(text)
        if not block then return nil, problem(c, "client.ip", message) end
        out[i] = block
    end
    return out
end

local function client_ip(c, node)
    local list, negate = node, false
    if type(node) == "table" and node[1] == nil then
        list, negate = node["in"] or node["not"] or node.equals, node["not"] ~= nil
    end
    if list == nil then return problem(c, "client.ip", "expected an address, a CIDR block or a list of them") end
    local inside = blocks(c, list)
    if not inside then return nil end
    local core, m = c.core, c.m
    m.count = m.count + 1
    local rank = type(list) == "table" and "lists" or "exact"
    m[rank] = m[rank] + 1
    m.tests[#m.tests + 1] = {
        what = "client.ip", want = (negate and "not " or "in ") .. value.describe(list),
        run = function(r)
            local ip = core.client_ip(r)
            for i = 1, #inside do
                if cidr.inside(inside[i], ip) then return not negate end
            end
            return negate
        end,
    }
end

function compilers.client(c, node)
    local core = c.core
    if type(node) ~= "table" or node[1] ~= nil then node = { name = node } end -- `client: acme` is its name
    each_key(c, "client", node, function(name, spec)
        if name == "ip" then
            client_ip(c, spec)
        elseif name == "name" or name == "tier" then
            -- A core without clients has no core.client: then nobody has a name or a tier.
            add(c, c.m.tests, "client." .. name, spec, nil, function(r)
                return core.client and wrap(core.client(r, name)) or nil
            end)
        else
            problem(c, "client." .. name, "unknown key" .. suggest.hint(name, CLIENT_KEYS))
        end
    end)
end

local function static_name(field)
    return function(c, node, key)
        local test = compile_value(c, key, node, { glob = true })
        if test then c.m[field] = function(name) return test(wrap(name)) end end
    end
end
compilers.upstream_name = static_name("upstream")
compilers.route_id = static_name("route")

-- node: the block or nil; where: its key path; problems: filled; extra: further keys ("upstream_name", "route_id").
function M.compile(node, core, where, problems, extra)
    local m = { tests = {}, model = {}, count = 0, exact = 0, lists = 0, operators = 0, globs = 0, literal = 0 }
    if node == nil then return m end
    local c = { m = m, core = core, where = where, problems = problems }
    if type(node) ~= "table" or node[1] ~= nil then
        problem(c, nil, "expected a map")
        return m
    end
    local known = {}
    for _, key in ipairs(KEYS) do known[#known + 1] = key end
    for _, key in ipairs(extra or {}) do known[#known + 1] = key end
    for _, key in ipairs(known) do
        if node[key] ~= nil then compilers[key](c, node[key], key) end
    end
    for _, key in ipairs(suggest.keys(node)) do
        local found = false
        for _, name in ipairs(known) do found = found or name == key end
        if not found then problem(c, key, "unknown key" .. suggest.hint(key, known)) end
    end
    return m
end

-- Is a more specific than b? true, false, or nil when they are equal (file order decides then).
function M.before(a, b)
    for _, key in ipairs({ "count", "exact", "lists", "operators", "literal" }) do
        if a[key] ~= b[key] then return a[key] > b[key] end
    end
    return nil
end

-- Do all tests of a list pass?
function M.all(tests, r, model)
    for i = 1, #tests do
        if not tests[i].run(r, model) then return false end
    end
    return true
end

-- Why a block does not match: an array of sentences, empty when it does.
function M.reasons(m, r, method, path, model)
    local out = {}
    if m.path and not m.path(path) then out[#out + 1] = ("path is not %s"):format(m.path_want) end
    if m.methods and not m.methods[method] then out[#out + 1] = ("method is not %s"):format(m.method_want) end
    for _, list in ipairs({ m.model, m.tests }) do
        for _, test in ipairs(list) do
            if not test.run(r, model) then out[#out + 1] = ("%s is not %s"):format(test.what, test.want) end
        end
    end
    return out
end

return M
