-- models: which upstream takes which model, under which name it is sent, and what GET /v1/models says.
-- Pure.

local catalog = require("claw.catalog")
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

-- All names a client may ask for, in the order of the file: { { id, owner, context, output }, … }; context and output
-- are what its first upstream says, or the catalog, of the prompt and the answer in tokens; nil: not known.
function M.known(upstreams)
    local out, seen = {}, {}
    local function add(id, u)
        if seen[id] then return end
        seen[id] = true
        local sent = mapped(u.models, id)
        local details, facts = M.details(u.models, sent or id, id) or {}, catalog.find(u.type, sent or id) or {}
        out[#out + 1] = { id = id, owner = u.type, context = details.context_window or facts.context_window,
            output = facts.max_output_tokens }
    end
    for _, u in ipairs(upstreams) do
        for _, id in ipairs(u.models.order) do add(id, u) end
        local asked = {}
        for id in pairs(u.models.map) do asked[#asked + 1] = id end
        table.sort(asked)
        for _, id in ipairs(asked) do add(id, u) end
    end
    return out
end

-- Models as each client's dialect has them.
local ENTRY = {}

function ENTRY.openai(k)
    return { id = k.id, object = "model", created = 0, owned_by = k.owner, context_window = k.context,
        max_output_tokens = k.output }
end

function ENTRY.anthropic(k)
    return { type = "model", id = k.id, display_name = k.id, created_at = "1970-01-01T00:00:00Z",
        max_input_tokens = k.context, max_tokens = k.output }
end

function ENTRY.gemini(k)
    return { name = "models/" .. k.id, version = "", displayName = k.id, inputTokenLimit = k.context,
        outputTokenLimit = k.output,
        supportedGenerationMethods = { "generateContent", "streamGenerateContent", "countTokens" } }
end

function ENTRY.ollama(k)
    return { name = k.id, model = k.id, modified_at = "1970-01-01T00:00:00Z", size = 0, digest = "",
        details = { format = "", family = k.owner, parameter_size = "", quantization_level = "" } }
end

-- The body of a list of models. dialect: "openai", "anthropic", "gemini" or "ollama".
function M.listing(known, dialect)
    local data = json.array()
    for i, k in ipairs(known) do data[i] = ENTRY[dialect](k) end
    if dialect == "gemini" or dialect == "ollama" then return json.encode({ models = data }) end
    if dialect == "openai" then return json.encode({ object = "list", data = data }) end
    return json.encode({ data = data, has_more = false,
        first_id = known[1] and known[1].id or json.null, last_id = known[1] and known[#known].id or json.null })
end

-- The body that tells of one model, or nil.
function M.single(known, id, dialect)
    for _, k in ipairs(known) do
        if k.id == id then return json.encode(ENTRY[dialect](k)) end
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
