-- plan: which hooks run for a route and an upstream, and the masks that tell C so. Made at boot, one per route and set
-- of matching per-request transformations; shared by all requests they fit.

local phases = require("claw.phases")
local shadows = require("claw.shadow")
local transform = require("claw.transform")
local translate = require("claw.translate")

local M = {}

local CHAINS = { "request", "response", "event", "retry" }

-- The hooks of one kind; of policies in shadow only request's, which has its place among the others.
local function collect(policies, hook)
    local out = {}
    for _, policy in ipairs(policies) do
        local shadow = policy.shadow
        if shadow then
            if hook == "request" then out[#out + 1] = shadow.request end
        elseif policy.hooks[hook] then
            out[#out + 1] = { policy = policy, fn = policy.hooks[hook] }
        end
    end
    return out
end

M.collect = collect

-- What a translated attempt has C call, whatever hooks there are.
local TRANSLATED = { request = true, response = true, event = true }

-- The chains of one upstream: policies in their order, then transformations in the file's.
local function for_upstream(route, upstream, active, dialect)
    local name = upstream.name
    local chains = { mask = 0 }
    chains.translate = translate.pair(dialect, upstream.head, route.lossy or upstream.lossy, upstream.models)
    local usual = upstream.head and upstream.head.table.fields
    chains.fields = upstream.head and upstream.head.fields[dialect] or usual
    chains.differs = chains.fields ~= usual
    chains.unspoken = translate.unspoken(dialect, upstream.head)
    for _, hook in ipairs(CHAINS) do
        local chain = collect(route.policies, hook)
        for _, t in ipairs(route.transformations) do
            if t.hooks[hook] and (not t.dynamic or active[t]) and transform.concerns(t, route.id, name) then
                chain[#chain + 1] = t.hooks[hook]
            end
        end
        chains[hook] = chain
        if hook == "retry" then chains.shadow_retry = shadows.collect(route.policies, hook) end
        if #chain > 0 or (chains.translate and TRANSLATED[hook])
            or ((chains.unspoken or chains.fields) and hook == "request")
            or (hook == "retry" and chains.shadow_retry) then
            chains.mask = chains.mask + phases.by_name[hook].bit
        end
    end
    return chains
end

-- route: { id, policies, transformations, entries }; active: set of the per-request transformations that match.
-- dialect: the client's (nil: none). A plan is { route, mask, cost, log, translates (it is for that dialect alone),
-- [upstream index] = { mask, request, response, event, retry, shadow_retry, translate, fields, unspoken (or nil) } }.
function M.new(route, active, dialect)
    local plan = { route = route, cost = collect(route.policies, "cost"), log = collect(route.policies, "log") }
    plan.mask = (#plan.cost > 0 or #plan.log > 0) and phases.ACCOUNT_BIT or 0
    for _, entry in ipairs(route.entries) do
        local chains = for_upstream(route, entry.upstream, active, dialect)
        plan[entry.upstream.index] = chains
        plan.translates = plan.translates or chains.translate ~= nil or chains.unspoken ~= nil or chains.differs
    end
    return plan
end

return M
