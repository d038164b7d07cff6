-- canary_rollback: a new upstream gets a part of the requests, and loses them by itself when too many fail.
--
-- In openclaw.yaml (canary is one of the route's upstreams; the others are what it is tried against):
--
--     routes:
--       - match: { path: "/v1/chat/completions" }
--         strategy: { type: failover, upstreams: [stable, new] }
--         policies: [canary_rollback]
--     policies:
--       settings:
--         canary_rollback: { canary: new, percent: 5, max_error_rate: 0.1 }
--
-- All workers count together, in windows of a minute. Rolled back, the canary stays out of the list for `pause_ms`, and
-- is tried again then.
local P = { name = "canary_rollback", api = 1 }

local settings = {
    canary = nil,         -- an upstream's name; nothing happens without
    percent = 5,          -- of the requests begin there
    max_error_rate = 0.1, -- of its attempts in one window
    min_attempts = 20,    -- in a window, before the rate means anything
    pause_ms = 600000,
}
local WINDOW = 60 -- seconds

function P.init(conf)
    local given = conf.policies and conf.policies.settings and conf.policies.settings.canary_rollback
    for key, value in pairs(given or {}) do settings[key] = value end
end

function P.route(req, candidates)
    local out = claw.store.get("rolled_back:" .. tostring(settings.canary))
    local first = not out and claw.hash(req.id) % 10000 < settings.percent * 100
    local list, canary = {}, nil
    for _, c in ipairs(candidates) do
        if c.name == settings.canary then canary = c else list[#list + 1] = c end
    end
    if not canary or #list == 0 then return nil end
    if first then table.insert(list, 1, canary) end
    return list
end

local function count(what)
    local key = ("%s:%s:%d"):format(what, settings.canary, math.floor(claw.time.now() / WINDOW))
    return claw.store.incr(key, 1, { ttl_ms = 2000 * WINDOW }) or 0
end

-- The client's own mistakes (4xx but for 429) do not speak against who answers.
local function has_failed(attempt)
    local status = attempt.status or 0
    return status >= 500 or status == 429 or status < 200
end

function P.log(req)
    local failed
    for _, attempt in ipairs(req.attempts) do
        if attempt.upstream == settings.canary and attempt.kind ~= "outrun" then failed = has_failed(attempt) end
    end
    if failed == nil then return nil end
    local attempts = count("attempts")
    local failures = failed and count("failed") or 0
    if failures > 0 and attempts >= settings.min_attempts and failures / attempts > settings.max_error_rate then
        if claw.store.add("rolled_back:" .. settings.canary, true, { ttl_ms = settings.pause_ms }) then
            claw.log("warn", "canary rolled back", { canary = settings.canary, failed = failures, of = attempts })
        end
    end
    return { canary = failed and "failed" or "ok" }
end

return P
