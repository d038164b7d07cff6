-- routes: `routes[]` compiled, with their strategies, policies and transformations. Fills problems, never raises.

local candidates = require("claw.candidates")
local facts = require("claw.facts")
local match = require("claw.match")
local plans = require("claw.plan")
local retry = require("claw.retry")
local shadow = require("claw.shadow")
local strategies = require("claw.route")
local suggest = require("claw.suggest")
local transform = require("claw.transform")

local M = {}

local function problem(env, path, message)
    env.problems[#env.problems + 1] = { path = path, message = message }
end

-- strategy.upstreams: names, or { name, weight, percentage }.
local function entries(env, strategy, where)
    local list = strategy.upstreams or { strategy.upstream }
    local out, total, seen = {}, 0, {}
    for i, given in ipairs(list) do
        local item = type(given) == "table" and given or { name = given }
        local path = ("%s.upstreams[%d]"):format(where, i - 1)
        local upstream = env.by_name[item.name]
        if not upstream then
            problem(env, path, ('there is no upstream "%s"%s'):format(tostring(item.name),
                suggest.hint(item.name, env.upstream_names)))
        elseif seen[item.name] then
            problem(env, path, ('upstream "%s" is listed twice'):format(item.name))
        else
            seen[item.name] = true
            out[#out + 1] = { upstream = upstream, weight = item.weight, percentage = item.percentage }
        end
        total = total + (item.percentage or 0)
    end
    if #list == 0 then problem(env, where .. ".upstreams", "expected at least one upstream") end
    if strategy.type == "canary" and total > 100 then
        problem(env, where .. ".upstreams", ("the percentages add up to %g, more than 100"):format(total))
    end
    return out
end

-- The strategy's function: built in, or a policy's `choose`.
local function chooser(env, route, strategy, where)
    local kind = strategy.type or "first_available"
    route.strategy = kind
    route.keep_unlisted = kind == "failover"
    for _, key in ipairs({ "on", "sticky_by" }) do
        local wrong = strategy[key] ~= nil and facts.key_problem(strategy[key])
        if wrong then problem(env, where .. "." .. key, wrong) end
    end
    local new = strategies.strategies[kind]
    if new then
        route.choose = new({ on = strategy.on, sticky_by = strategy.sticky_by, salt = route.id })
        return
    end
    local policy = env.policies.by_name[kind]
    if policy and policy.shadow then
        problem(env, where .. ".type", ("%s is in policies.shadow, so it cannot be the strategy: list it in policies, "
            .. "and its choose runs beside the strategy"):format(policy.file))
    elseif policy and policy.hooks.choose then
        route.chooser = { policy = policy, fn = policy.hooks.choose }
    elseif policy then
        problem(env, where .. ".type", ("%s has no choose hook, so it is no strategy"):format(policy.file))
    elseif policy == nil then
        local names = { unpack(strategies.NAMES) }
        for _, name in ipairs(env.policies.names) do names[#names + 1] = name end
        problem(env, where .. ".type", ('there is no strategy or policy "%s"%s'):format(tostring(kind),
            suggest.hint(kind, names)))
    end
end

-- The route's policies: those of every request, then its own.
local function policies(env, route, where)
    local out, own, seen = {}, {}, {}
    for _, p in ipairs(env.policies.always) do
        seen[p] = true
        out[#out + 1] = p
    end
    for i, name in ipairs(route.node.policies or {}) do
        local p = env.policies.by_name[name]
        local path = ("%s.policies[%d]"):format(where, i - 1)
        if p == nil then
            problem(env, path, ('there is no policy "%s"%s'):format(tostring(name),
                suggest.hint(name, env.policies.names)))
        elseif p and p.fn then
            problem(env, path, p.file .. " returns a function: only a transformation can run it")
        elseif p and not seen[p] then
            seen[p] = true
            out[#out + 1], own[#own + 1] = p, p
        end
    end
    return out, own
end

local function concerned(env, route)
    local out, dynamic = {}, false
    for _, t in ipairs(env.transformations) do
        for _, entry in ipairs(route.entries) do
            if transform.concerns(t, route.id, entry.upstream.name) then
                out[#out + 1], dynamic = t, dynamic or t.dynamic
                break
            end
        end
    end
    return out, dynamic
end

-- What runs in shadow at the route step: { admit, choose, route } (each may be nil), or nil.
local function in_shadow(own, all)
    local out = { admit = shadow.collect(own, "admit"), choose = shadow.collect(all, "choose"),
        route = shadow.collect(all, "route") }
    return next(out) ~= nil and out or nil
end

-- What is kept of a route for clients of one dialect: plans, and who serves a model.
local function view(plan, dialect)
    return { plan = plan, plans = {}, plan_count = 0, dialect = dialect, eligible = {}, eligible_count = 0 }
end

-- The view of a dialect (false: none). Where nothing is translated all share one.
function M.view_of(route, dialect)
    local found = route.views[dialect]
    if not found then
        local plan = dialect and plans.new(route, {}, dialect)
        found = plan and plan.translates and view(plan, dialect) or route.view
        route.views[dialect] = found
    end
    return found
end

local function compile(env, given, index)
    local node, where = given.node, ("routes[%d]"):format(index - 1)
    local strategy = type(node.strategy) == "table" and node.strategy or {}
    local route = { id = given.id, index = index, node = node, priority = node.priority or 0 }
    route.match = match.compile(node.match, env.core, where .. ".match", env.problems)
    chooser(env, route, strategy, where .. ".strategy")
    route.entries = entries(env, strategy, where .. ".strategy")
    route.only_first = strategy.fallback == false
    route.filters = candidates.filters(strategy)
    local own
    route.policies, own = policies(env, route, where)
    route.admit, route.reorder = plans.collect(own, "admit"), plans.collect(route.policies, "route")
    local dynamic
    route.transformations, dynamic = concerned(env, route)
    local server = env.conf.server or {}
    local seconds = node.timeout_seconds or server.timeout_seconds or 60
    route.retry = retry.compile(env.conf.retry, node.retry, seconds * 1000, where, env.problems)
    route.lossy = node.lossy
    route.plan = plans.new(route, {})
    route.view = view(route.plan, nil)
    route.views = {}
    route.shadow = in_shadow(own, route.policies)
    route.waits = #route.admit > 0 or #route.reorder > 0 or route.shadow ~= nil -- has hooks that may
    -- Nothing is decided per request but the order: the router's short way.
    route.simple = route.choose ~= nil and not route.filters.dynamic and not dynamic and not route.waits
    return route
end

-- env: { core, conf, routes (spec's), by_name and upstream_names (upstreams), policies, transformations, problems }.
function M.compile(env)
    local out = {}
    for i, given in ipairs(env.routes) do out[i] = compile(env, given, i) end
    return out
end

return M
