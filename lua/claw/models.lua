-- models: which upstream takes which model, under which name it is sent, and what GET /v1/models says. Pure.

local glob = require("claw.glob")
local json = require("claw.json")

local M = {}

local function problem(problems, path, message)
    problems[#problems + 1] = { path = path, message = message }
end

local function compile_map(m, node, where, problems)
    if type(node) ~= "table" then return problem(problems, where, "expected a map of asked: sent") end
    for asked, sent in pairs(node) do
        if type(asked) ~= "string" or type(sent) ~= "string" or sent == "" then
            problem(problems, where .. "." .. tostring(asked), "expected the name of the model to send")
        elseif glob.is(asked) then
            m.map_globs[#m.map_globs + 1] = { text = asked, test = glob.compile(asked), sent = sent }
        else
            m.map[asked] = sent
        end
    end
    -- pairs() has no order: the longest literal text is asked first, so that two processes agree.
    table.sort(m.map_globs, function(a, b)
        local x, y = glob.literal(a.text), glob.literal(b.text)
        if x ~= y then return x > y end
        return a.text < b.text
    end)
end

-- An upstream's `models` and `model_map`. `models` entries: a name, a glob, or { name, cost…, context_window, … }.
function M.compile(node, where, problems)
    local m = { any = true, names = {}, order = {}, globs = {}, map = {}, map_globs = {}, own = nil }
    local models = node.models
    if models ~= nil and type(models) ~= "table" then
        problem(problems, where .. ".models", "expected a list of models")
        models = nil
    end
    for i, entry in ipairs(models or {}) do
        local name = type(entry) == "table" and entry.name or entry
        if type(name) ~= "string" or name == "" then
            problem(problems, ("%s.models[%d]"):format(where, i - 1), "expected a model's name, or a map with `name`")
        else
            m.any = false
            local details = type(entry) == "table" and entry or {}
            if glob.is(name) then
                m.globs[#m.globs + 1] = { test = glob.compile(name), details = details }
            else
                m.own = m.own or name
                if not m.names[name] then m.order[#m.order + 1] = name end
                m.names[name] = m.names[name] or details
            end
        end
    end
    if node.model_map ~= nil then compile_map(m, node.model_map, where .. ".model_map", problems) end
    return m
end

local function mapped(m, model)
    local sent = m.map[model]
    if sent then return sent end
    for _, entry in ipairs(m.map_globs) do
        if entry.test(model) then return entry.sent end
    end
    return nil
end

-- Does the upstream take this model? false, or true and the name to send when that is not the asked one.
function M.takes(m, model)
    local sent = mapped(m, model)
    if sent then return true, sent ~= model and sent or nil end
    if m.any or m.names[model] then return true end
    for _, entry in ipairs(m.globs) do
        if entry.test(model) then return true end
    end
    return false
end

-- The model an upstream is sent when it does not list the asked one; nil when it has none of its own.
function M.own(m)
    return m.own and (mapped(m, m.own) or m.own)
end

-- The `models` entry (cost, context_window, capabilities) of a model by the name sent, else by the name asked.
function M.details(m, sent, asked)
    local details = sent and m.names[sent] or asked and m.names[asked]
    if details then return details end
    for _, entry in ipairs(m.globs) do
        if sent and entry.test(sent) or asked and entry.test(asked) then return entry.details end
    end
    return nil
end

-- All names a client may ask for, in the order of the file: { { id, owner }, … }.
function M.known(upstreams)
    local out, seen = {}, {}
    local function add(id, owner)
        if not seen[id] then
            seen[id] = true
            out[#out + 1] = { id = id, owner = owner }
        end
    end
    for _, u in ipairs(upstreams) do
        for _, id in ipairs(u.models.order) do add(id, u.type) end
        local asked = {}
        for id in pairs(u.models.map) do asked[#asked + 1] = id end
        table.sort(asked)
        for _, id in ipairs(asked) do add(id, u.type) end
    end
    return out
end

-- One body that OpenAI's and Anthropic's clients both read.
local function entry(known)
    return { id = known.id, object = "model", created = 0, owned_by = known.owner, type = "model",
        display_name = known.id, created_at = "1970-01-01T00:00:00Z" }
end

function M.listing(known)
    local data = json.array()
    for i, k in ipairs(known) do data[i] = entry(k) end
    return json.encode({
        object = "list", data = data, has_more = false,
        first_id = known[1] and known[1].id or json.null, last_id = known[1] and known[#known].id or json.null,
    })
end

-- The body of GET /v1/models/{id}, or nil.
function M.single(known, id)
    for _, k in ipairs(known) do
        if k.id == id then return json.encode(entry(k)) end
    end
    return nil
end

-- "a, b, c" for a message; long lists are cut.
function M.names(known, limit)
    local out = {}
    for i, k in ipairs(known) do
        if i > (limit or 20) then
            out[#out + 1] = ("and %d more"):format(#known - i + 1)
            break
        end
        out[i] = k.id
    end
    return table.concat(out, ", ")
end

return M
