-- claw: the services a policy sees as its global `claw`. lua/README.md is their reference.

local base64 = require("claw.base64")
local cost = require("claw.cost")
local facts = require("claw.facts")
local json = require("claw.json")
local re = require("claw.re")
local redis = require("claw.redis")
local route = require("claw.route")
local waiting = require("claw.waiting")

local M = { VERSION = "1" }

local FIELDS = 64 -- that are looked at; a line has fewer
local LEVELS = { debug = true, info = true, warn = true, error = true }

local function log_for(core, policy)
    return function(level, message, fields)
        if not LEVELS[level] then error("claw.log: the level must be debug, info, warn or error", 2) end
        if fields ~= nil and type(fields) ~= "table" then error("claw.log: fields must be a table", 2) end
        local out, n = { policy = policy }, 0
        for key, value in pairs(fields or {}) do
            out[key], n = value, n + 1
            if n == FIELDS then break end
        end
        core.log(level, tostring(message), out)
    end
end

local NAME_MAX = 48

-- A policy's own series in /metrics: counters (n >= 0 is added, 1 when not given), gauges (n is set).
local function series_for(core, policy, service, gauge)
    return function(name, n, label)
        if type(name) ~= "string" or #name > NAME_MAX or not name:find("^[a-z][a-z0-9_]*$") then
            error(service .. ": a name has a-z, 0-9 and _, a letter first, at most 48 of them", 2)
        end
        if n == nil and not gauge then n = 1 end
        if type(n) ~= "number" or n ~= n or math.abs(n) == math.huge or (n < 0 and not gauge) then
            error(service .. (gauge and ": wants a finite number" or ": wants a finite number from 0 up"), 2)
        end
        if label ~= nil and type(label) ~= "string" and type(label) ~= "number" then
            error(service .. ": the label is one text", 2)
        end
        local done, message, code = core.series(gauge, name, policy, n, label and tostring(label) or "")
        if code == "EINVAL" then error(("%s: %s: %s"):format(service, name, message), 2) end
        return done, message, code
    end
end

-- The strategies as functions a policy calls in `choose` (with its facts) or in `route` (with its req).
local function routes_for(core, links)
    local out = {}
    for name, new in pairs(route.strategies) do
        local choose = new({ on = "client" })
        out[name] = function(candidates, given, rng)
            local link = links[given]
            if link then
                local bind
                given, bind = facts.new(core)
                bind(link.r, link.model, link.stream)
            elseif type(given) ~= "table" or not given.outstanding then
                error(("claw.route.%s: wants (candidates, facts) or (candidates, req)"):format(name), 2)
            end
            if #candidates == 0 then return {} end
            local list = choose(candidates, given, rng or core.random)
            return { unpack(list) }
        end
    end
    return out
end

local function copy(t)
    local out = {}
    for key, value in pairs(t or {}) do out[key] = value end
    return out
end

local function charge(candidate, usage)
    if type(candidate) ~= "table" or type(usage) ~= "table" then
        error("claw.cost: wants (candidate, usage)", 2)
    end
    return cost.charge(candidate.price, usage.input, usage.cached, usage.output, usage.cache_write)
end

-- A maker of `claw` tables, one for each policy, so that none can change another's. links: req -> { r, model, stream };
-- upstreams: name -> { index }.
function M.services(core, links, upstreams)
    local expressions = re.new(core)
    return function(policy)
        local states = setmetatable({}, { __mode = "k" })
        local waits = waiting.services(core, policy, upstreams or {})
        return {
            version = M.VERSION,
            log = log_for(core, policy),
            json = {
                encode = function(v) return json.encode(v, core.check) end,
                decode = function(text) return json.decode(text, core.check) end,
                null = json.null, array = json.array,
            },
            base64 = {
                encode = function(text) return base64.encode(text, core.check) end,
                decode = function(text) return base64.decode(text, core.check) end,
            },
            time = { now_ms = core.now_ms, now = os.time, sleep = waits.sleep },
            http = { fetch = waits.fetch },
            re = copy(expressions),
            redis = redis.services(core),
            task = { spawn = waits.spawn, wait = waits.wait, background = waits.background },
            env = function(name)
                if type(name) ~= "string" then error("claw.env: wants a variable's name", 2) end
                return core.env(name)
            end,
            metrics = { count = series_for(core, policy, "claw.metrics.count", false),
                gauge = series_for(core, policy, "claw.metrics.gauge", true) },
            hash = core.hash,
            doc = copy(core.doc),
            route = routes_for(core, links),
            cost = charge,
            store = core.store(policy),
            -- A table of this policy for this request: what one hook leaves there the next one finds.
            state = function(req)
                if type(req) ~= "userdata" and type(req) ~= "table" then error("claw.state: wants a req", 2) end
                local state = states[req]
                if not state then
                    state = {}
                    states[req] = state
                end
                return state
            end,
        }
    end
end

return M
