-- An engine from a configuration written as Lua tables, the way C hands it over.

local engine = require("claw.engine")
local fake_core = require("support.fake_core")

local M = {}

-- Upstreams of a configuration in a fixed order: `order`, else by name.
local function upstreams_of(conf, order)
    local names = order or {}
    if not order then
        for name in pairs(conf.upstreams) do names[#names + 1] = name end
        table.sort(names)
    end
    local out = {}
    for i, name in ipairs(names) do
        local node = conf.upstreams[name]
        local function pico(key)
            return node[key] and math.floor(node[key] * 1e6 + 0.5)
        end
        out[i] = { name = name, type = node.type or "openai", node = node, has_key = true, price = {
            input = pico("cost_per_million_input_tokens"), output = pico("cost_per_million_output_tokens"),
            cached_input = pico("cost_per_million_cached_input_tokens"), request_micros = pico("cost_per_request"),
        } }
    end
    return out
end

-- opts: conf, order, policies (name -> source, of the folder), builtin (name -> source), core (overrides).
function M.spec(opts)
    local spec = { conf = opts.conf, routes = {}, policies = {}, core = fake_core.new(opts.core) }
    spec.upstreams = upstreams_of(opts.conf, opts.order)
    for i, node in ipairs(opts.conf.routes or {}) do
        spec.routes[i] = { id = node.id or "route_" .. i, node = node }
    end
    for origin, sources in pairs({ dir = opts.policies or {}, builtin = opts.builtin or {} }) do
        for name, source in pairs(sources) do
            spec.policies[#spec.policies + 1] = { name = name, file = "policies/" .. name .. ".lua", source = source,
                origin = origin }
        end
    end
    table.sort(spec.policies, function(a, b) return a.name < b.name end)
    return spec
end

-- Make route decide at once, the way C goes on with a route whose hooks may wait.
local function decided(made)
    local route = made.route
    function made.route(...)
        local first, second, third, fourth, fifth, sixth = route(...)
        if first == true then return made.decide(second, third, ...) end
        return first, second, third, fourth, fifth, sixth
    end
    return made
end

-- The engine and its core; problems are an error.
function M.engine(opts)
    local spec = M.spec(opts)
    local made, problems = engine.new(spec)
    if not made then
        local lines = {}
        for i, p in ipairs(problems) do lines[i] = (p.path or p.file) .. ": " .. p.message end
        error(table.concat(lines, "\n"), 2)
    end
    return decided(made), spec.core
end

-- The problems of a configuration as "where: message" lines.
function M.problems(opts)
    local made, problems = engine.new(M.spec(opts))
    if made then return {} end
    local lines = {}
    for i, p in ipairs(problems) do
        lines[i] = ("%s: %s"):format(p.path or (p.file .. ":" .. tostring(p.line)), p.message)
    end
    return lines
end

-- The names of a candidate list, in order.
function M.names(list)
    local out = {}
    for i, c in ipairs(list) do out[i] = c.name end
    return table.concat(out, " ")
end

-- POST /v1/chat/completions for a model: the list of names, or code and message.
function M.chat(made, model, r)
    local index, list, third = made.route(r or {}, "POST", "/v1/chat/completions", model, false)
    if not index then return nil, list, third end
    return M.names(list), list, third
end

return M
