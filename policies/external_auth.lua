-- external_auth: another service says who may ask.
--
-- It gets `authorization`, method and path of the request, and answers 2xx (yes), 401 or 403 (no). What it said holds
-- for a while, so that not every request asks. In openclaw.yaml:
--
--     policies:
--       always: [external_auth]
--       settings:
--         external_auth: { endpoint: "https://auth.example.org/check", keep_ms: 30000 }
local P = { name = "external_auth", api = 1 }

local settings = {
    endpoint = nil,     -- where to ask; without one the generation is refused
    header = "authorization",
    keep_ms = 30000,    -- for how long an answer holds
    timeout_ms = 2000,
    fail_open = false,  -- let everybody in while the service cannot be reached?
}

function P.init(conf)
    local given = conf.policies and conf.policies.settings and conf.policies.settings.external_auth
    for key, value in pairs(given or {}) do settings[key] = value end
    if type(settings.endpoint) ~= "string" then error("policies.settings.external_auth wants an endpoint", 0) end
end

local DENIED = { deny = 401, code = "unauthorized", message = "The credentials were refused" }

-- "yes" or "no"; nil and a message when nobody could be asked.
local function ask(req, credentials)
    local answer, message = claw.http.fetch(settings.endpoint, {
        headers = { [settings.header] = credentials, ["x-original-method"] = req.method,
            ["x-original-path"] = req.path },
        timeout_ms = settings.timeout_ms,
    })
    if not answer then return nil, message end
    if answer.status >= 200 and answer.status < 300 then return "yes" end
    if answer.status == 401 or answer.status == 403 then return "no" end
    return nil, "status " .. answer.status
end

function P.admit(req)
    local credentials = req.client.headers[settings.header]
    if not credentials then return DENIED end
    -- Two hashes, and the length, in place of credentials: the store holds nobody's key.
    local key = ("%s %s %d %d %d"):format(req.method, req.path, #credentials, claw.hash(credentials),
        claw.hash(credentials:reverse()))
    local said = claw.store.get(key)
    if not said then
        local message
        said, message = ask(req, credentials)
        if not said then
            claw.log("warn", "the auth service does not answer", { message = message })
            if settings.fail_open then return nil end
            return { deny = 503, code = "auth_unavailable", message = "Credentials cannot be checked now" }
        end
        claw.store.set(key, said, { ttl_ms = settings.keep_ms })
    end
    return said == "no" and DENIED or nil
end

return P
