-- What a request or an answer of the vocabulary means, as plain tables that can be compared: documents become tables,
-- neighbouring turns of a role one turn, neighbouring texts one text.

local json = require("claw.json")

local M = {}

-- A value with its documents as tables and its nulls gone.
function M.plain(v)
    if type(v) == "userdata" then
        if v == json.null then return nil end
        return M.plain(json.decode(tostring(v)))
    end
    if type(v) ~= "table" then return v end
    local out = {}
    for key, value in pairs(v) do out[key] = M.plain(value) end
    return out
end

local function input(v)
    if v == nil or v == "" then return {} end
    if type(v) == "string" then return json.decode(v) or v end
    return M.plain(v)
end

-- opts: secrets (thinking counts too)
local function part_of(p, opts)
    if p.kind == "text" or p.kind == "refusal" then return { kind = "text", text = p.text } end
    if p.kind == "call" then return { kind = "call", id = p.id, name = p.name, input = input(p.input), signature = p.signature } end
    if p.kind == "result" then return { kind = "result", id = p.id, parts = M.parts(p.parts, opts) } end
    if p.kind == "thinking" or p.kind == "redacted" then
        if not opts.secrets then return nil end
        return { kind = p.kind, text = p.text, data = p.data, signature = p.signature, origin = p.signature and p.origin }
    end
    if p.kind == "document" then
        return { kind = p.kind, url = p.url, data = p.data, text = p.text, file_id = p.file_id }
    end
    if p.kind == "image" then return { kind = p.kind, url = p.url, data = p.data, media_type = p.media_type } end
    return M.plain(p)
end

function M.parts(parts, opts)
    local out = {}
    for _, p in ipairs(parts) do
        local got, last = part_of(p, opts), out[#out]
        if got and got.kind == "text" and last and last.kind == "text" then
            last.text = last.text .. got.text
        elseif got and not (got.kind == "text" and got.text == "") then
            out[#out + 1] = got
        end
    end
    return out
end

local FIELDS = { "model", "stream", "max_tokens", "temperature", "top_p", "stop", "user", "tool_choice", "format" }

function M.request(r, opts)
    opts = opts or {}
    local out, system = { turns = {}, tools = {} }, {}
    for i, p in ipairs(r.system) do system[i] = p.text end
    out.system = table.concat(system, "\n\n")
    for _, name in ipairs(opts.fields or FIELDS) do out[name] = M.plain(r[name]) end
    if out.format then out.format.name, out.format.strict, out.format.description = nil, nil, nil end
    for _, t in ipairs(r.turns) do
        local last = out.turns[#out.turns]
        if not (last and last.role == t.role) then
            last = { role = t.role, parts = {} }
            table.insert(out.turns, last)
        end
        for _, p in ipairs(t.parts) do table.insert(last.parts, p) end
    end
    for _, t in ipairs(out.turns) do t.parts = M.parts(t.parts, opts) end
    for i, t in ipairs(r.tools or {}) do
        out.tools[i] = { name = t.name, description = t.description, schema = M.plain(t.schema), server = M.plain(t.server) }
    end
    return out
end

-- Stops that a dialect has no word for are told as others.
local NEAR = { stop_sequence = "end", pause = "end", context = "length", filter = "refusal", error = "end" }

function M.answer(a, opts)
    opts = opts or {}
    local out = { id = a.id, model = a.model, parts = M.parts(a.parts, opts), usage = {} }
    out.stop = NEAR[a.stop] or a.stop
    for _, name in ipairs({ "input", "output", "cached", "reasoning" }) do
        local n = a.usage and a.usage[name]
        out.usage[name] = n ~= 0 and n or nil
    end
    return out
end

return M
