-- shadow_traffic: a part of the requests is sent to a second upstream too; its answer goes to the log and nowhere else.
--
-- In openclaw.yaml (`to` is an upstream; no route needs to name it):
--
--     policies:
--       always: [shadow_traffic]
--       settings:
--         shadow_traffic: { to: candidate, percent: 10, model: new-model }
--
-- The client does not wait for it, and does not notice when it fails. It costs what it costs.
local P = { name = "shadow_traffic", api = 1 }

local settings = {
    to = nil,                     -- an upstream's name; nothing happens without
    percent = 1,
    model = nil,                  -- another model than the request's
    path = "/chat/completions",   -- behind the upstream's base_url
    timeout_ms = 60000,
}

function P.init(conf)
    local given = conf.policies and conf.policies.settings and conf.policies.settings.shadow_traffic
    for key, value in pairs(given or {}) do settings[key] = value end
end

local function send(id, body)
    local began = claw.time.now_ms()
    local answer, message, code = claw.http.fetch({
        upstream = settings.to, path = settings.path, method = "POST", body = body, timeout_ms = settings.timeout_ms,
        headers = { ["content-type"] = "application/json" },
    })
    local usage = answer and (claw.json.decode(answer.body) or {}).usage or {}
    claw.log("info", "shadow", { request = id, to = settings.to, ms = claw.time.now_ms() - began,
        status = answer and answer.status, output_tokens = usage.completion_tokens, code = code, message = message })
end

function P.request(req, body)
    if not settings.to or claw.state(req).sent or claw.doc.type(body) ~= "object" then return end
    if claw.hash(req.id) % 10000 >= settings.percent * 100 then return end
    claw.state(req).sent = true -- a retry is no second request
    local copy = body:table() -- the body is gone when the background begins
    copy.model, copy.stream, copy.stream_options = settings.model or copy.model, nil, nil
    claw.task.background(send, req.id, claw.json.encode(copy))
end

return P
