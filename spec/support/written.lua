-- What a protocol makes of requests, answers and streams that are written down in a spec.

local context = require("support.context")
local json = require("claw.json")
local protocols = require("claw.protocols")
local rules = require("support.stream_rules")

local M = {}

-- A client's body (a table) as the upstream's, as a plain table; and what was dropped, as one line.
function M.request(from, to, body, overrides)
    local spec = { lossy = "allow" }
    for key, v in pairs(overrides or {}) do spec[key] = v end
    local cx = context.new(spec)
    local made = protocols.get(to).write_request(protocols.get(from).read_request(context.doc(body), cx), cx)
    return json.decode(json.encode(made)), context.dropped(cx), made
end

-- The answer of a text.
function M.answer(name, text, overrides)
    local spec = { answering = true }
    for key, v in pairs(overrides or {}) do spec[key] = v end
    return protocols.get(name).read_answer(context.doc(text), context.new(spec))
end

-- The events of a stream: legal ones.
function M.stream(name, list, overrides)
    local spec = { answering = true }
    for key, v in pairs(overrides or {}) do spec[key] = v end
    local events = {}
    for i, e in ipairs(list) do
        local given = type(e) == "string" and { data = e } or e
        events[i] = { type = given[1] or given.type, data = given[2] or given.data }
    end
    local read = rules.read(protocols.get(name).reader(context.new(spec)), events)
    local problem = rules.events(read)
    if problem then error(problem, 2) end
    return read
end

-- Events as one line: what happens, in order.
function M.kinds(events)
    local out = {}
    for i, e in ipairs(events) do out[i] = e.on .. (e.on == "part" and ":" .. e.part.kind or "") end
    return table.concat(out, " ")
end

return M
