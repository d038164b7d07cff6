-- caching: which of `caching.strategies` a request is one of, and an answer that was kept in the one way (whole, or as
-- a stream) written in the other.

local context = require("claw.protocols.context")
local json = require("claw.json")
local match = require("claw.match")
local protocols = require("claw.protocols")
local whole = require("claw.protocols.whole")

local M = {}

-- The strategies, most specific first. Fills problems.
function M.compile(conf, core, problems)
    local out = {}
    for i, node in ipairs(conf.caching and conf.caching.strategies or {}) do
        local where = ("caching.strategies[%d].match"):format(i - 1)
        out[i] = { place = i, match = match.compile(node.match, core, where, problems, { "route_id" }) }
    end
    table.sort(out, function(a, b)
        local first = match.before(a.match, b.match)
        if first == nil then return a.place < b.place end
        return first
    end)
    return out
end

-- The place in the file of the first that matches; 0: none does.
function M.pick(strategies, r, route, method, path, model)
    for _, one in ipairs(strategies) do
        local m = one.match
        if (not m.path or m.path(path)) and (not m.methods or m.methods[method]) and (not m.route or m.route(route))
            and match.all(m.model, r, model) and match.all(m.tests, r, model) then
            return one.place
        end
    end
    return 0
end

local function first(...)
    for i = 1, select("#", ...) do
        local value = select(i, ...)
        if value ~= nil then return value end
    end
    return nil
end

-- A line for -explain; nil: nothing is said of caching. As core/base/conf.c (cache_of) reads it.
function M.told(conf, strategies, r, route, q)
    local all, node = conf.caching or {}, route.node.cache
    if not conf.caching and node == nil then return nil end
    local own = type(node) == "table" and node or {}
    local never = node == false or own.enabled == false
    local kept = not never and all.enabled ~= false and (node ~= nil or all.enabled == true)
    if never or not (kept or first(own.coalesce, all.coalesce)) then return "cache: not for this route" end
    local place = #strategies > 0 and M.pick(strategies, r, route.id, q.method, q.path, q.model) or nil
    if place == 0 then return "cache: no, none of caching.strategies matches" end
    local strategy = place and all.strategies[place] or {}
    local scope = first(own.scope, all.scope, conf.clients and #conf.clients > 0 and "client" or "shared")
    local shares = first(own.coalesce, all.coalesce, kept)
    local bits = {}
    if kept then
        local ttl = first(strategy.ttl_seconds, own.ttl_seconds, all.default_ttl_seconds, 3600)
        bits[#bits + 1] = ("kept for %g s"):format(ttl)
    end
    if place then bits[#bits + 1] = "by strategy " .. (strategy.id or tostring(place)) end
    if shares then bits[#bits + 1] = "shared while under way" end
    bits[#bits + 1] = scope == "client" and "for this client only" or "for all clients"
    return "cache: " .. table.concat(bits, ", ")
end

local serial = 0

local function context_of(core, r, from)
    local req = core.request(r)
    serial = (serial + 1) % 65536
    local cx = context.new({
        lossy = "allow", decode = json.decode, model = req.model, asked = req.model, now = os.time(),
        parse = function(text) return core.parse(r, text) end,
        unique = ("%s%04x"):format(core.request_id(r):sub(1, 16), serial),
    })
    local request = from.read_request(core.body(r), cx)
    cx.request, cx.wants_usage, cx.answering = request, request.include_usage, true
    return cx
end

local function joined(from, cx, events)
    local reader, gathered = from.reader(cx), whole.gather(cx)
    for i = 1, #events + 1 do
        for _, one in ipairs(reader(events[i]) or {}) do
            if one.on == "error" then return nil end
            gathered:add(one)
        end
    end
    return from.write_answer(gathered:answer(), cx)
end

local function spread(from, cx, body)
    local answer = from.read_answer(body, cx)
    if not answer or answer.error then return nil end
    local writer, out = from.writer(cx), {}
    for _, one in ipairs(whole.events(answer)) do
        for _, made in ipairs(writer(one) or {}) do out[#out + 1] = made end
    end
    return out
end

-- given: a list of events { type, data }, or a whole answer's text, in `dialect`, the client's. Returns a whole
-- answer as a table, or a list of events; nil, message: it cannot be made.
function M.recast(core, r, dialect, given)
    local from = protocols.get(dialect)
    local ok, made = xpcall(function()
        local cx = context_of(core, r, from)
        if type(given) == "table" then return joined(from, cx, given) end
        return spread(from, cx, core.parse(r, given))
    end, function(err)
        return type(err) == "table" and tostring(err.message) or debug.traceback(tostring(err), 2)
    end)
    if ok then return made end
    core.log("error", "a cached answer could not be written in the other way",
        { request_id = core.request_id(r), error = made })
    return nil
end

return M
