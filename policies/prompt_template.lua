-- prompt_template: prompts live in the configuration, clients send a name and the values to fill in.
--
-- {"model": "gpt-4o", "template": "support", "variables": {"product": "Anvil", "question": "Is it heavy?"}} becomes
-- messages. In openclaw.yaml:
--
--     policies:
--       always: [prompt_template]
--       settings:
--         prompt_template:
--           templates:
--             support:
--               - { role: system, content: "You help users of {{product}}. Be brief." }
--               - { role: user, content: "{{question}}" }
--
-- Messages that the request has of its own follow the template's. An unknown template, or a value that is missing, is
-- the client's mistake: 400.
local P = { name = "prompt_template", api = 1 }

local settings = {
    templates = {}, -- name = { { role, content }, … }
}

function P.init(conf)
    local given = conf.policies and conf.policies.settings and conf.policies.settings.prompt_template
    for key, value in pairs(given or {}) do settings[key] = value end
end

local function wrong(message)
    return { deny = 400, code = "bad_template", message = message }
end

-- The filled messages; nil and what is wrong.
local function fill(name, values)
    local template = settings.templates[name]
    if not template then return nil, ('There is no template "%s"'):format(tostring(name)) end
    local out, missing = claw.json.array(), nil
    for i, message in ipairs(template) do
        local text = message.content:gsub("{{%s*([%w_]+)%s*}}", function(variable)
            local value = values[variable]
            if type(value) ~= "string" and type(value) ~= "number" then missing = missing or variable end
            return tostring(value)
        end)
        out[i] = { role = message.role, content = text }
    end
    if missing then return nil, ('The template "%s" wants a value for "%s"'):format(name, missing) end
    return out
end

local function values_of(body)
    return claw.doc.type(body.variables) == "object" and body.variables:table() or {}
end

function P.admit(req)
    if claw.doc.type(req.body) ~= "object" or req.body.template == nil then return nil end
    local _, message = fill(req.body.template, values_of(req.body))
    return message and wrong(message) or nil
end

function P.request(_, body)
    if claw.doc.type(body) ~= "object" or body.template == nil then return end
    local messages = assert(fill(body.template, values_of(body)))
    if claw.doc.type(body.messages) == "array" then
        for _, message in body.messages:each() do messages[#messages + 1] = message end
    end
    body.messages, body.template, body.variables = messages, nil, nil
end

return P
