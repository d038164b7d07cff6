-- watermark_header: answers say in their head that a model wrote them, and which.
--
-- In openclaw.yaml ({model}, {upstream} and {id} stand for what they say):
--
--     policies:
--       always: [watermark_header]
--       settings:
--         watermark_header: { header: x-ai-generated, value: "{model} by {upstream}" }
--
-- Errors carry none. A plain answer is held until it is whole.
local P = { name = "watermark_header", api = 1 }

local settings = {
    header = "x-ai-generated",
    value = "{model}",
}

function P.init(conf)
    local given = conf.policies and conf.policies.settings and conf.policies.settings.watermark_header
    for key, value in pairs(given or {}) do settings[key] = value end
end

local function mark(req)
    local known = { model = req.upstream.model or "model", upstream = req.upstream.name, id = req.id }
    local value = settings.value:gsub("{(%l+)}", known)
    req.answer.headers[settings.header] = value:gsub("[^\32-\126]", "?"):sub(1, 256) -- a client may name any model
end

function P.response(req) mark(req) end

-- A stream's head leaves with its first event.
function P.event(req)
    local state = claw.state(req)
    if state.marked then return end
    state.marked = true
    mark(req)
end

return P
