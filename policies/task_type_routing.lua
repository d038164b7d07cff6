-- task_type_routing: the request says what it is for, and gets the upstream and model that are best at it.
--
-- Clients send {"task_type": "blog_post", "messages": […]}, or the same inside of "metadata". In openclaw.yaml:
--
--     routes:
--       - match: { path: "/v1/chat/completions" }
--         strategy: { type: lowest_cost, upstreams: [quality, fast] }
--         policies: [task_type_routing]
--     policies:
--       settings:
--         task_type_routing:
--           tasks:
--             blog_post: { to: quality, model: gpt-4o }
--             social_media_caption: { to: fast }
--
-- A task that is not listed, or none, leaves the strategy's order. The field does not leave for the provider.
local P = { name = "task_type_routing", api = 1 }

local settings = {
    field = "task_type",
    tasks = {}, -- task = { to = upstream, model = another than was asked for }
}

function P.init(conf)
    local given = conf.policies and conf.policies.settings and conf.policies.settings.task_type_routing
    for key, value in pairs(given or {}) do settings[key] = value end
end

local function task_of(req)
    if claw.doc.type(req.body) ~= "object" then return nil end
    local task = req.body[settings.field] or claw.doc.get(req.body, "metadata." .. settings.field)
    return type(task) == "string" and task or nil
end

function P.route(req, candidates)
    local rule = settings.tasks[task_of(req)]
    if not rule then return nil end
    local list = {}
    for _, c in ipairs(candidates) do
        if c.name == rule.to then
            c.model = rule.model or c.model -- candidates are copies: what is set here holds for this request
            table.insert(list, 1, c)
        else
            list[#list + 1] = c
        end
    end
    return list
end

function P.request(_, body)
    if claw.doc.type(body) == "object" and body[settings.field] ~= nil then body[settings.field] = nil end
end

function P.log(req)
    return { task_type = task_of(req) }
end

return P
