-- transform: `transformations[]` compiled. Each has scripts, and a match that is split in two: what is known at boot
-- (upstream_name, route_id), and the rest, asked per request.

local match = require("claw.match")
local suggest = require("claw.suggest")

local M = {}

local SIDES = { request = { "request" }, response = { "response", "event" } }

-- "policies/x.lua", "x.lua" and "x" name the same policy.
function M.script_name(script)
    return (script:match("([^/]+)$") or script):gsub("%.lua$", "")
end

local function entries_of(policy, side)
    if policy.shadow then return { request = side == "request" and policy.shadow.request or nil } end
    if policy.fn then
        return { [side] = { policy = policy, fn = policy.fn } }
    end
    local out = {}
    for _, hook in ipairs(SIDES[side]) do
        if policy.hooks[hook] then out[hook] = { policy = policy, fn = policy.hooks[hook] } end
    end
    return out
end

local function script(t, node, side, where, policies, names, problems)
    local given = node[side] and node[side].script
    if type(given) ~= "string" then return nil end
    local policy = policies[M.script_name(given)]
    where = ("%s.%s.script"):format(where, side)
    if policy == nil then
        problems[#problems + 1] = { path = where,
            message = ('there is no policy "%s"%s'):format(given, suggest.hint(M.script_name(given), names)) }
        return nil
    elseif not policy then
        return nil -- it has problems of its own
    end
    local found = entries_of(policy, side)
    if next(found) == nil and not policy.shadow then
        problems[#problems + 1] = { path = where, message = ("%s has no %s hook"):format(policy.file, side) }
    end
    for hook, entry in pairs(found) do t.hooks[hook] = entry end
    return policy
end

-- policies: name -> policy, or false for one with problems; names: for suggestions.
function M.compile(list, core, policies, names, problems)
    local out = {}
    for i, node in ipairs(list or {}) do
        local where = ("transformations[%d]"):format(i - 1)
        local t = { id = node.id or ("transformation_%d"):format(i), hooks = {} }
        t.match = match.compile(node.match, core, where .. ".match", problems, { "upstream_name", "route_id" })
        local m = t.match
        t.dynamic = m.path ~= nil or m.methods ~= nil or #m.model > 0 or #m.tests > 0
        local policy = script(t, node, "request", where, policies, names, problems)
        if node.response then
            script(t, node, "response", where, policies, names, problems)
        elseif policy and not policy.fn then
            -- A conversion is a pair: what changes the request also changes the answer back.
            for hook, entry in pairs(entries_of(policy, "response")) do t.hooks[hook] = entry end
        end
        if not node.request and not node.response then
            problems[#problems + 1] = { path = where, message = "expected request.script or response.script" }
        end
        out[i] = t
    end
    return out
end

-- Can it ever apply to this route and upstream?
function M.concerns(t, route_id, upstream_name)
    local m = t.match
    return (not m.route or m.route(route_id)) and (not m.upstream or m.upstream(upstream_name))
end

-- Does the per-request half match?
function M.applies(t, r, method, path, model)
    local m = t.match
    return (not m.path or m.path(path)) and (not m.methods or m.methods[method] ~= nil)
        and match.all(m.model, r, model) and match.all(m.tests, r, model)
end

return M
