-- phases: the hooks a policy may have, and where each service may be called. Names, order, arguments and verdicts are
-- written here and nowhere else; the loader, the runner and the specs read these tables.

local M = {}

-- bit: what a candidate's mask says to C. check(verdict) is nil when the verdict is one, else what was expected.

local function is_integer(v, low, high)
    return type(v) == "number" and v == math.floor(v) and v >= low and v <= high
end

local ADMITS = "nil, { deny = status, code, message }, { say = text } or { answer = text or table }"

-- With nothing in it that would end a line of the answer's head.
local function is_field(v)
    return type(v) == "string" and v ~= "" and #v <= 256 and not v:find("[%z\1-\31\127]")
end

local function check_answer(v)
    if v.deny ~= nil then return "one of deny, answer and say" end
    if v.say ~= nil and (v.answer ~= nil or type(v.say) ~= "string") then return "say to be a text, and no answer" end
    if v.say == nil and type(v.answer) ~= "string" and type(v.answer) ~= "table" then
        return "answer to be a text or a table"
    end
    if v.status ~= nil and not is_integer(v.status, 200, 599) then return "status to be from 200 to 599" end
    if v.content_type ~= nil and not is_field(v.content_type) then return "content_type to be a field's value" end
    return nil
end

local function check_admit(v)
    if type(v) ~= "table" then return ADMITS end
    if v.answer ~= nil or v.say ~= nil then return check_answer(v) end
    if not is_integer(v.deny, 400, 599) then return "deny to be a status from 400 to 599" end
    for _, field in ipairs({ v.code or v[1] or false, v.message or v[2] or false }) do
        if field and type(field) ~= "string" then return "code and message to be strings" end
    end
    return nil
end

local function check_retry(v)
    if type(v) ~= "table" then return "nil, { next = true }, { after_ms = n } or { stop = true }" end
    for key in pairs(v) do
        if key ~= "next" and key ~= "after_ms" and key ~= "stop" then
            return ("one of next, after_ms, stop, not %s"):format(tostring(key))
        end
    end
    if v.after_ms ~= nil and not is_integer(v.after_ms, 0, 600000) then
        return "after_ms to be a whole number from 0 to 600000"
    end
    if v.stop and (v.next or v.after_ms) then return "stop alone" end
    if not v.stop and not v.next and not v.after_ms then return "one of next, after_ms, stop" end
    return nil
end

local function check_one_event(ev)
    if type(ev) ~= "table" or type(ev.data) ~= "string" then return false end
    return ev.type == nil or type(ev.type) == "string"
end

local function check_event(v)
    if v == false or check_one_event(v) then return nil end
    if type(v) ~= "table" or v.data ~= nil then return "nil, an event { type, data }, false, or a list of events" end
    for i = 1, #v do
        if not check_one_event(v[i]) then return ("event %d of the list to be { type, data }"):format(i) end
    end
    if #v == 0 and next(v) ~= nil then return "nil, an event { type, data }, false, or a list of events" end
    return nil
end

local function check_cost(v)
    if is_integer(v, 0, 2 ^ 53) then return nil end
    return "nil or a whole number of micro-dollars"
end

local function check_log(v)
    if type(v) ~= "table" then return "nil or a table of fields" end
    for key in pairs(v) do
        if type(key) ~= "string" then return "the fields' names to be strings" end
    end
    return nil
end

-- Bodies and lists are checked where they are used: what a body may be depends on the core, a list on the candidates.
M.list = {
    { hook = "init", waits = false, args = { "conf" }, gives = "nothing; an error refuses the generation" },
    { hook = "selftest", waits = false, args = {}, gives = "nothing; an error refuses the generation" },
    { hook = "admit", waits = true, args = { "req" }, check = check_admit,
        gives = "nil, { deny = status, code, message }, { say = text }, or { answer = text or table, status, "
            .. "content_type }" },
    { hook = "route", waits = true, args = { "req", "candidates" }, gives = "nil, a name, or an ordered list" },
    { hook = "choose", waits = false, args = { "candidates", "facts", "rng" }, gives = "an ordered list" },
    { hook = "request", waits = true, args = { "req", "body" }, gives = "nil, or the body to send", bit = 1 },
    { hook = "retry", waits = true, args = { "req", "attempt" },
        gives = "nil, { next = true }, { after_ms = n }, { stop = true }", bit = 8, check = check_retry },
    { hook = "event", waits = false, args = { "req", "ev" }, gives = "nil, an event, false (drop), a list of events",
        bit = 4, check = check_event },
    { hook = "response", waits = true, args = { "req", "body" }, gives = "nil, or the body to return", bit = 2 },
    { hook = "cost", waits = false, args = { "req", "usage" }, gives = "nil, or micro-dollars", check = check_cost },
    { hook = "log", waits = false, args = { "req" }, gives = "nil, or a table of extra log fields",
        check = check_log },
}

M.names, M.by_name = {}, {}
for i, phase in ipairs(M.list) do
    M.names[i] = phase.hook
    M.by_name[phase.hook] = phase
end

-- The mask of a route with a cost or log hook.
M.ACCOUNT_BIT = 16

-- ---- services

-- What runs beside the hooks: a function given to claw.task.background. Whatever may wait may wait there.
M.BACKGROUND = "background"

local REQUEST_HOOKS = { "admit", "route", "request", "retry", "event", "response", "cost", "log" }
local waits = {}
for _, phase in ipairs(M.list) do
    if phase.waits then waits[#waits + 1] = phase.hook end
end

-- hooks: where it may be called; none: everywhere, also while a file is loaded. waits: the call may suspend the hook.
M.services = {
    { name = "claw.log" }, { name = "claw.state" }, { name = "claw.hash" }, { name = "claw.cost" },
    { name = "claw.env" },
    { name = "claw.re.find" }, { name = "claw.re.match" }, { name = "claw.re.gsub" },
    { name = "claw.metrics.count" }, { name = "claw.metrics.gauge" },
    { name = "claw.json.encode" }, { name = "claw.json.decode" }, { name = "claw.json.array" },
    { name = "claw.store.get" }, { name = "claw.store.set" }, { name = "claw.store.add" },
    { name = "claw.store.incr" }, { name = "claw.store.cas" }, { name = "claw.store.delete" },
    { name = "claw.base64.encode" }, { name = "claw.base64.decode" },
    { name = "claw.time.now_ms" }, { name = "claw.time.now" },
    { name = "claw.time.sleep", waits = true, hooks = waits },
    { name = "claw.http.fetch", waits = true, hooks = waits },
    { name = "claw.redis.call", waits = true, hooks = waits },
    { name = "claw.redis.script", waits = true, hooks = waits },
    { name = "claw.task.spawn", hooks = waits },
    { name = "claw.task.wait", waits = true, hooks = waits },
    { name = "claw.task.background", hooks = REQUEST_HOOKS },
}

M.service_by_name = {}
for _, service in ipairs(M.services) do
    M.service_by_name[service.name] = service
    if service.hooks then
        service.allowed = { [M.BACKGROUND] = true }
        for _, hook in ipairs(service.hooks) do service.allowed[hook] = true end
    end
end

-- The hook that runs now; nil: none (a file is being loaded). Who calls a hook sets it, and sets it back; a service
-- that waited sets it again, for others ran meanwhile.
M.now = nil

-- Raise unless the service may be called now; else the hook that calls. `level` is error's.
function M.check(name, level)
    local service, now = M.service_by_name[name], M.now
    if not service.allowed[now] then
        error(("%s may not be called %s (allowed in: %s)"):format(name, now and "in " .. now or "outside of hooks",
            table.concat(service.hooks, ", ")), level + 1)
    end
    return now
end

return M
