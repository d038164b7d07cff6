-- facts: what a strategy may know about a request and about candidates.
--
--   facts.model, facts.stream        the requested model (nil: none), whether a stream is asked for
--   facts.outstanding(c)             requests in flight at a candidate, all workers
--   facts.latency_ms(c)              running mean of the time to the first byte, age of the last sample; nil: none
--   facts.state(c)                   "closed"; "open": set aside for now; "half_open": asked by one request at a time
--   facts.cooling_until(c)           ms until it may be asked again; nil: it may be; math.huge: its keys are retired
--   facts.cost_micros(c)             estimated cost of this request in micro-dollars (a fraction); nil: no price
--   facts.input_tokens()             estimated
--   facts.max_tokens()               what the request allows for the answer; nil: not said
--   facts.key(kind)                  a text to hash: client, user, session, prompt_prefix, header:X; nil: not there
--   facts.moved(route)               the percentage that an operator moved away from the route's first; nil: none
--   facts.hash(text)                 0 … 2^32-1, the same in every process

local cost = require("claw.cost")
local mix = require("claw.mix")

local M = {}

local PREFIX_BYTES = 1024
local OUTPUT_TOKENS = 256 -- assumed while neither max_tokens nor a running mean is known
local LIMITS = { "max_tokens", "max_completion_tokens", "max_output_tokens", "generationConfig.maxOutputTokens" }

local function first(core, r, path)
    local values = core.json(r, path)
    local v = values and values[1]
    if type(v) == "string" and v ~= "" then return v end
    if type(v) == "number" then return tostring(v) end
    return nil
end

local function first_of(core, r, ...)
    for i = 1, select("#", ...) do
        local v = first(core, r, (select(i, ...)))
        if v then return v end
    end
    return nil
end

local function text(core, r, path)
    local values = core.json(r, path)
    local out = {}
    for i, v in ipairs(values or {}) do
        if type(v) == "string" then out[i] = v else out[i] = "" end
    end
    return table.concat(out, "\n")
end

-- The first turn of one of the roles (0-based position), by the array of all roles.
local function turn(roles, a, b)
    for i, role in ipairs(roles) do
        if role == a or role == b then return i - 1 end
    end
    return nil
end

-- What stays the same from turn to turn of one conversation: its system text and its first user text.
local function prompt_prefix(core, r)
    local parts = { text(core, r, "system"), text(core, r, "instructions") }
    local roles = core.json(r, "messages[*].role") or {}
    local system, user = turn(roles, "system", "developer"), turn(roles, "user")
    if system then parts[#parts + 1] = text(core, r, ("messages[%d].content"):format(system)) end
    if user then parts[#parts + 1] = text(core, r, ("messages[%d].content"):format(user)) end
    if #roles == 0 then
        parts[#parts + 1] = text(core, r, "systemInstruction.parts[*].text")
        parts[#parts + 1] = text(core, r, "contents[0].parts[*].text")
        parts[#parts + 1] = text(core, r, "input")
        parts[#parts + 1] = text(core, r, "prompt")
    end
    local prefix = table.concat(parts, "\n")
    if not prefix:find("%S") then return nil end
    return prefix:sub(1, PREFIX_BYTES)
end

local keys = {
    client = function(core, r) return core.client and core.client(r, "name") or core.client_ip(r) end,
    user = function(core, r) return first_of(core, r, "user", "metadata.user_id", "metadata.user") end,
    session = function(core, r)
        return core.header(r, "x-session-id")
            or first_of(core, r, "metadata.session_id", "user", "metadata.user_id", "metadata.user")
    end,
    prompt_prefix = prompt_prefix,
}

-- Is this a kind facts.key knows? nil, or what is wrong.
function M.key_problem(kind)
    if type(kind) == "string" and (keys[kind] or kind:match("^header:[%w!#$%%&'*+.^_`|~-]+$")) then return nil end
    return "expected client, user, session, prompt_prefix or header:NAME"
end

-- Facts, and bind(r, model, stream) that points them at a request. One table per router: strategies never yield.
function M.new(core)
    local r, asked
    local facts = {}
    local function bind(request, model, stream)
        r, asked = request, model
        facts.model, facts.stream = model, stream
    end
    function facts.outstanding(c)
        return (core.facts(c.index, c.model or asked))
    end
    function facts.latency_ms(c)
        local _, ms, age = core.facts(c.index, c.model or asked)
        return ms, age
    end
    function facts.state(c)
        return (core.cooling(c.index, c.model or asked))
    end
    function facts.cooling_until(c)
        local _, ms = core.cooling(c.index, c.model or asked)
        return ms
    end
    function facts.moved(route)
        return core.moved(route)
    end
    function facts.input_tokens()
        return core.estimate(r)
    end
    function facts.max_tokens()
        for i = 1, #LIMITS do
            local values = core.json(r, LIMITS[i])
            local n = values and values[1]
            if type(n) == "number" then return n end
        end
        return nil
    end
    function facts.cost_micros(c)
        if not c.price then return nil end
        local output = facts.max_tokens()
        if not output then
            local _, _, _, mean = core.facts(c.index, c.model or asked)
            output = mean or OUTPUT_TOKENS
        end
        return cost.estimate(c.price, core.estimate(r), output)
    end
    function facts.key(kind)
        local key = keys[kind]
        if key then return key(core, r) end
        return core.header(r, kind:sub(#"header:" + 1):lower())
    end
    function facts.hash(words)
        return mix(core.hash(words))
    end
    return facts, bind
end

return M
