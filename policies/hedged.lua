-- hedged: who must not wait gets a second upstream when the first is silent for longer than it usually is.
--
-- Who speaks first answers, the other is canceled. `routes[].hedge` does this for all requests of a route; this policy
-- chooses which. In openclaw.yaml:
--
--     routes:
--       - match: { path: "/v1/chat/completions" }
--         strategy: { type: failover, upstreams: [near, far] }
--         hedge: { after: p99, budget: 0.1 }   # for the others, and at most one request in ten
--         policies: [hedged]
--     policies:
--       settings:
--         hedged: { after: p95, header: x-priority, is: high, max_tokens: 2000 }
local P = { name = "hedged", api = 1 }

local settings = {
    after = "p95",     -- of the first upstream's usual time to the first byte, or milliseconds
    header = nil,      -- only requests whose field of this name
    is = nil,          -- has this value (any value when not given)
    max_tokens = nil,  -- and that do not ask for more: a long answer is dear to pay for twice
    others = nil,      -- false: the rest is not hedged, whatever the route says
}

function P.init(conf)
    local given = conf.policies and conf.policies.settings and conf.policies.settings.hedged
    for key, value in pairs(given or {}) do settings[key] = value end
end

local function is_meant(req)
    local value = settings.header and req.client.headers[settings.header]
    if settings.header and (not value or settings.is and value ~= settings.is) then return false end
    local wanted = claw.doc.type(req.body) == "object" and req.body.max_tokens
    return not settings.max_tokens or type(wanted) == "number" and wanted <= settings.max_tokens
end

function P.route(req, candidates)
    if #candidates < 2 then return nil end
    if is_meant(req) then candidates.hedge = settings.after else candidates.hedge = settings.others end
    return candidates
end

return P
