-- keep_it_short: no answer is longer than the settings say, whatever the client asks for.
local P = { name = "keep_it_short", api = 1 }

local settings = { max_tokens = 500 }

function P.init(conf)
    local given = conf.policies and conf.policies.settings and conf.policies.settings.keep_it_short
    for key, value in pairs(given or {}) do settings[key] = value end
end

function P.request(_, body)
    if claw.doc.type(body) ~= "object" then return end
    local asked = type(body.max_tokens) == "number" and body.max_tokens or settings.max_tokens
    body.max_tokens = math.min(asked, settings.max_tokens)
end

return P
