-- tier_routing: who pays for it gets the fast upstream first; who does not, does not get it at all.
--
-- In openclaw.yaml:
--
--     routes:
--       - match: { path: "/v1/chat/completions" }
--         strategy: { type: failover, upstreams: [fast, standard] }
--         policies: [tier_routing]
--     policies:
--       settings:
--         tier_routing:
--           tiers: { premium: [fast, standard], free: [standard] }
--           default: free
--
-- The tier is the client's own (clients[].tier). Where whoever stands in front of the proxy knows better, it says so in
-- the header below: set it there for every request, or clients will set it themselves.
local P = { name = "tier_routing", api = 1 }

local settings = {
    header = "x-client-tier",
    default = "free", -- of a request without a tier, or with one that is not listed
    tiers = {},       -- tier = { upstreams in order }
}

function P.init(conf)
    local given = conf.policies and conf.policies.settings and conf.policies.settings.tier_routing
    for key, value in pairs(given or {}) do settings[key] = value end
end

function P.route(req, candidates)
    local tier = req.client.tier or req.client.headers[settings.header]
    local names = settings.tiers[tier or settings.default] or settings.tiers[settings.default]
    if not names then return nil end
    local by_name, list = {}, {}
    for _, c in ipairs(candidates) do by_name[c.name] = c end
    for _, name in ipairs(names) do list[#list + 1] = by_name[name] end
    return list -- an empty one: no_upstream, 503
end

function P.log(req)
    return { tier = req.client.tier or req.client.headers[settings.header] or settings.default }
end

return P
