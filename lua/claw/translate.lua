-- translate: one attempt at an upstream that speaks another protocol than the client. See protocols/README.md.
--
-- pair() is asked once per route, upstream and dialect; the rest runs per attempt, behind the policies' request hooks
-- and in front of their response and event hooks. What goes wrong here is told as text, never raised.

local catalog = require("claw.catalog")
local context = require("claw.protocols.context")
local errors = require("claw.protocols.errors")
local json = require("claw.json")
local models = require("claw.models")
local protocols = require("claw.protocols")
local providers = require("claw.providers")
local whole = require("claw.protocols.whole")

local M = {}

-- { name, from, to, lossy, provider } for what a client of `dialect` (nil: none) and an upstream with this head
-- (providers.upstream) need; nil: nothing is to be translated, or there is nobody who can. listed (nil: none): its
-- models, as claw.models has them.
function M.pair(dialect, head, lossy, listed)
    if not dialect or not head or #head.protocols == 0 or head.paths[dialect] then return nil end
    local from = protocols.get(dialect)
    if not from or not from.read_request then return nil end
    for _, name in ipairs(head.protocols) do
        local to = protocols.get(name)
        if to and to.write_request and to.vocabulary == from.vocabulary then
            return { name = name, from = from, to = to, lossy = lossy, provider = head.table,
                kind = head.kind, models = listed, limits = {}, limits_count = 0 }
        end
    end
    return nil
end

-- Why a client of `dialect` gets nothing from an upstream with this head: it does not speak that, and nobody translates
-- it; nil: it may ask.
function M.unspoken(dialect, head)
    if not dialect or not head or #head.protocols == 0 or head.paths[dialect] then return nil end
    local from = protocols.get(dialect)
    if not from or from.read_request then return nil end
    return ("%s is not translated, and the upstream this request goes to does not speak it"):format(dialect)
end

local function on_error(err)
    if type(err) == "table" and err.status == 400 then return err end
    return { message = tostring(err), traceback = debug.traceback("", 2) }
end

-- What is raised where the request's own memory, or that of Lua, does not suffice.
local function is_too_large(message)
    return message:find("needs more memory than it may have", 1, true) or message:find("not enough memory", 1, true)
end

-- fn(…), or nil and what it raised. A fault of ours is logged with its place: the client is told that there is one.
local function protected(core, r, what, fn, ...)
    local ok, a, b = xpcall(fn, on_error, ...)
    if ok then return a, b end
    if type(a) ~= "table" then a = { message = tostring(a) } end -- no memory: on_error was not called
    a.too_large = what == "request" and a.status ~= 400 and is_too_large(a.message)
    if a.status ~= 400 and not a.too_large then
        core.log("error", "a translation failed", { request_id = core.request_id(r), step = what, error = a.message,
            traceback = a.traceback })
    end
    return nil, a
end

local serial = 0

local function write(pair, cx, body, streams, recalls)
    local request = pair.from.read_request(body, cx)
    request.model, request.stream = cx.model, streams
    cx.request, cx.wants_usage = request, request.include_usage or recalls
    local made, name = pair.to.write_request(request, cx)
    cx.answering = true
    if cx.provider.fields then providers.fill(made, cx.provider.fields) end
    return made, name
end

local LIMITS = 64 -- models whose table is kept, a pair

-- Whether a model reasons by what openclaw.yaml says it can; nil: nothing is said.
local function reasons(pair, model)
    local details = pair.models and model and models.details(pair.models, model, model)
    local said = details and details.capabilities
    if not said then return nil end
    for _, name in ipairs(said) do
        if name == "reasoning" then return true end
    end
    return false
end

-- The provider's table with the sent model's longest answer in it, where that is known, and whether it reasons, where
-- that is said.
local function provider_for(pair, model)
    local found = pair.limits[model or ""]
    if found then return found end
    local known = model and catalog.find(pair.kind, model)
    local most, thinks = known and known.max_output_tokens, reasons(pair, model)
    found = pair.provider
    if most or thinks ~= nil then
        found = setmetatable({ max_output = most, reasons = thinks }, { __index = pair.provider })
    end
    if pair.limits_count < LIMITS then
        pair.limits[model or ""], pair.limits_count = found, pair.limits_count + 1
    end
    return found
end

-- Returns the attempt, the body, its protocol and the fields that were left out (text or nil); or nil, code, message,
-- field: "untranslatable" and "too_large" are the client's to mend, "translation" ours. body: a document; sent: the
-- model that is sent.
function M.request(core, r, pair, body, sent)
    local req = core.request(r)
    serial = (serial + 1) % 65536
    local cx = context.new({
        lossy = pair.lossy, decode = json.decode, model = sent, asked = req.model, provider = provider_for(pair, sent),
        parse = function(text) return core.parse(r, text) end, now = os.time(),
        unique = ("%s%04x"):format(core.request_id(r):sub(1, 16), serial),
        wording = pair.from.wording, body = body,
    })
    local recalls = core.recalls and core.recalls(r)
    local made, more = protected(core, r, "request", write, pair, cx, body, req.stream, recalls)
    if made then return { pair = pair, cx = cx }, made, more or pair.name, context.header(cx) end
    if more and more.status == 400 then return nil, "untranslatable", more.message, more.param end
    if more and more.too_large then
        return nil, "too_large", "The request is too large to be translated (policies.memory_mb)."
    end
    return nil, "translation", "The request could not be translated; the log says why."
end

local function note_usage(core, r, usage)
    if usage then core.used(r, usage.input, usage.cached, usage.output, usage.reasoning, usage.cache_write) end
end

-- What an error in an answer's place counts as.
local function status_of(err)
    local status = err.status
    if status and status >= 400 and status <= 599 then return status end
    return errors.STATUS[err.kind] or 502
end

-- An error in an answer's place is remembered: the upstream's words are lost when it is told.
local function failed(at, err)
    err.status = status_of(err)
    at.failed = err
    return err.status
end

local function answer_of(core, r, at, body)
    if at.gathered then return at.gathered:answer() end
    if not core.is_doc(body) then return nil, "it is no JSON" end
    local answer, message = at.pair.to.read_answer(body, at.cx)
    if not answer then return nil, message or "it is no answer of its protocol" end
    note_usage(core, r, answer.usage)
    local asked = at.cx.request and at.cx.request.inputs
    if asked and answer.vectors and #answer.vectors ~= #asked then -- each would be taken for another's
        return nil, ("it has %d embeddings for %d inputs"):format(#answer.vectors, #asked)
    end
    return answer
end

local function read_answer(core, r, at, body)
    local answer, message = answer_of(core, r, at, body)
    if not answer then return nil, { said = message } end
    if not answer.error then return at.pair.from.write_answer(answer, at.cx) end
    local status = failed(at, answer.error)
    return at.pair.from.write_error(answer.error, at.cx), status
end

local function unreadable(more)
    local said = type(more) == "table" and more.said or "the log says why"
    return ("The upstream's answer could not be read: %s."):format(tostring(said))
end

-- The answer as a table (and its status, when it is an error in an answer of status 200); or nil, message. body: what
-- came, unless events were gathered.
function M.response(core, r, at, body)
    local made, more = protected(core, r, "response", read_answer, core, r, at, body)
    if made then return made, more end
    return nil, unreadable(more)
end

local function answer_events(core, r, at, body)
    local answer, message = answer_of(core, r, at, body)
    if not answer then return nil, { said = message } end
    if answer.error then return nil, { err = answer.error } end
    local writer, out = at.pair.from.writer(at.cx), {}
    for _, one in ipairs(whole.events(answer)) do
        for _, made in ipairs(writer(one) or {}) do out[#out + 1] = made end
    end
    return out
end

-- The client's events for a whole answer's text, which came in the place of a stream; or nil, message, status (nil: it
-- is no answer).
function M.whole(core, r, at, text)
    at.over = true
    local out, more = protected(core, r, "response", answer_events, core, r, at, core.parse(r, text))
    if out then return out end
    local err = type(more) == "table" and more.err
    if err then return nil, err.message or "", failed(at, err) end
    return nil, unreadable(more)
end

local function plain_error(status)
    return { status = status, kind = "server", message = ("The upstream answered with status %d."):format(status) }
end

-- The body of an error answer, as a table.
function M.error(core, r, at, status, body)
    return protected(core, r, "error", function()
        local err = at.failed or at.pair.to.read_error(status, body, at.cx) or plain_error(status)
        err.status = err.status or status
        return at.pair.from.write_error(err, at.cx)
    end) or at.pair.from.write_error(plain_error(status), at.cx)
end

local function read_event(core, r, at, ev)
    local cx, pair = at.cx, at.pair
    at.reader = at.reader or pair.to.reader(cx)
    if not core.request(r).stream then
        at.gathered = at.gathered or whole.gather(cx)
    else
        at.writer = at.writer or pair.from.writer(cx)
    end
    local out = {}
    for _, one in ipairs(at.reader(ev) or {}) do
        note_usage(core, r, one.usage)
        if one.on == "error" then
            at.over = true
            if not ev or (not at.said and #out == 0) then
                return nil, { said = one.err and one.err.message, err = ev and one.err }
            end
            local made = pair.from.write_error_event(one.err, cx)
            if made then out[#out + 1] = made end
            break
        end
        if at.gathered then
            at.gathered:add(one)
        else
            for _, made in ipairs(at.writer(one) or {}) do out[#out + 1] = made end
        end
    end
    at.said = at.said or #out > 0
    return out
end

-- The client's events for one of the upstream's ({ type, data }; nil: its stream is over), or nil, message: it is an
-- error in the place of an answer (with the status it counts as), or its stream was cut. For a client that asked for no
-- stream there are none: the answer they make is response's.
function M.event(core, r, at, ev)
    if at.over then return {} end
    local out, failure = protected(core, r, "event", read_event, core, r, at, ev)
    if out then return out end
    at.over = true
    local status = failure and failure.err and failed(at, failure.err)
    return nil, failure and failure.said or "the upstream's stream could not be read", status
end

return M
