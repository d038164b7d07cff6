-- cost_cap: each client may spend so much a day; then it gets 429 until the next day (UTC) begins.
--
-- Upstreams need prices (cost_per_million_input_tokens …), for what has none costs nothing. In openclaw.yaml:
--
--     policies:
--       always: [cost_cap]
--       settings:
--         cost_cap: { usd_per_day: 5, clients: { batch: 50 } }
--
-- Counted is what was answered: requests that run at the same moment may go over the cap together.
local P = { name = "cost_cap", api = 1 }

local settings = {
    usd_per_day = 10,
    clients = {},   -- client = another cap
    header = nil,   -- who the client is, where neither its name nor its address says it
}
local DAY = 86400

function P.init(conf)
    local given = conf.policies and conf.policies.settings and conf.policies.settings.cost_cap
    for key, value in pairs(given or {}) do settings[key] = value end
end

local function client_of(req)
    return settings.header and req.client.headers[settings.header] or req.client.name or req.client.ip
end

-- The day is in the key: a new one begins with nothing, and the old ones fade.
local function key_of(client)
    return ("spent:%d:%s"):format(math.floor(claw.time.now() / DAY), client)
end

function P.admit(req)
    local client = client_of(req)
    local cap = settings.clients[client] or settings.usd_per_day
    if (claw.store.get(key_of(client)) or 0) < cap * 1e6 then return nil end
    return { deny = 429, code = "budget_exceeded", message = ("The budget of %g USD a day is used up"):format(cap) }
end

function P.cost(req, usage)
    if not usage.cost_micros or usage.cost_micros == 0 then return nil end
    local sum, message = claw.store.incr(key_of(client_of(req)), usage.cost_micros, { ttl_ms = 2 * DAY * 1000 })
    if not sum then claw.log("error", "what a client spent was not counted", { message = message }) end
    return nil -- what it costs stays as it is
end

return P
