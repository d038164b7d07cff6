-- core: what C gives to lua/claw, over the records of openclaw.request.

local clock = require("openclaw.clock")
local document = require("openclaw.document")
local expressions = require("openclaw.expressions")
local json = require("claw.json")

local M = {}

-- FNV-1a, 32 bits: as weak in its last bytes as a real core's may be.
function M.hash(text)
    local h = 2166136261
    for i = 1, #text do
        h = require("bit").bxor(h, text:byte(i)) % 4294967296
        h = (h * 403 + h % 256 * 16777216) % 4294967296
    end
    return h
end

-- A random source in [0, 1) that is the same in every run.
function M.random(seed)
    local x = seed or 42
    return function()
        x = (x * 16807) % 2147483647
        return (x - 1) / 2147483646
    end
end

local function json_error(text)
    local doc, message, offset = document.parse(text)
    return not doc and ("%s at byte %d"):format(message, offset) or nil
end

local function take(value, out)
    out = out or {}
    if type(value) ~= "table" then
        out[#out + 1] = value
        return out
    end
    for _, part in ipairs(value) do -- the texts of content parts
        if type(part) == "table" and type(part.text) == "string" and (part.type == nil or part.type == "text"
            or part.type == "input_text" or part.type == "output_text") then
            out[#out + 1] = part.text
        end
    end
    return out
end

local function collect(value, steps, i, out)
    if value == nil then return out end
    local step = steps[i]
    if not step then return take(value, out) end
    if type(value) ~= "table" then return out end
    if step == "*" then
        for _, element in ipairs(value) do out = collect(element, steps, i + 1, out) end
        return out
    end
    if type(step) == "number" then step = step < 0 and #value + 1 + step or step + 1 end
    return collect(value[step], steps, i + 1, out)
end

-- The values at a path such as messages[*].content in a plain table; nil when nothing is there.
function M.values(value, path)
    local steps = {}
    for name, rest in (path .. "."):gmatch("([^.%[]+)([^.]*)%.") do
        steps[#steps + 1] = name
        for index in rest:gmatch("%[([^%]]+)%]") do steps[#steps + 1] = tonumber(index) or index end
    end
    return collect(value, steps, 1, nil)
end

local function decoded(text)
    return (text:gsub("%+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function query(r, name)
    for pair in r.query:gmatch("[^&]+") do
        local key, value = pair:match("^([^=]*)=?(.*)$")
        if decoded(key) == name then return decoded(value) end
    end
    return nil
end

-- The body of this attempt: a document whose model is what the candidate sends; nil when it is no JSON.
local function body(r)
    if not r.has_json then return nil end
    if not r.attempt then
        r.attempt = document.parse(r.body, false, r)
        local model = r.upstream and r.upstream.model
        if model and document.functions.type(r.attempt) == "object" then r.attempt.model = model end
    end
    return r.attempt
end

local function response_body(r)
    if type(r.answer) ~= "string" then return r.answer end
    r.answer_doc = r.answer_doc or document.parse(r.answer, false, r) or r.answer
    return r.answer_doc
end

-- A core; `logged` collects what is logged, `live` is candidate index -> { outstanding, ms, age, mean }.
function M.new(seed)
    local core = { null = json.null, logged = {}, live = {}, setfenv = setfenv, load = loadstring, hash = M.hash,
        random = M.random(seed), now_ms = clock.now_ms, is_doc = document.is, changed = document.changed,
        json_error = json_error,
        doc = document.functions, query = query, body = body, response_body = response_body,
        re_compile = expressions.compile, re_exec = expressions.exec }
    function core.header(r, name) return r.headers[name:lower()] end
    function core.json(r, path)
        return r.has_json and M.values(document.functions.table(r.doc), path) or nil
    end
    function core.client_ip(r) return r.client_view.ip end
    function core.estimate(r) return r.tokens or math.ceil(#r.body / 4) end
    function core.facts(index)
        local live = core.live[index] or {}
        return live.outstanding or 0, live.ms, live.age, live.mean
    end
    function core.cooling(index)
        local live = core.live[index] or {}
        return live.state or "closed", live.cooling
    end
    function core.request(r) return r.req end
    function core.log(level, message, fields)
        core.logged[#core.logged + 1] = { level = level, message = message, fields = fields }
    end
    -- CPU time has no bound here: a debugger may hold a policy for as long as it likes.
    function core.enter() end
    function core.leave() return false end
    function core.check() end
    function core.deeper() end
    function core.hooked() return false end
    function core.failed() end
    return core
end

return M
