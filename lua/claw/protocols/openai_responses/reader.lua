-- reader: the events of a Responses stream as events of the vocabulary.
--
-- An item (output_index) holds parts (content_index); both are announced before their deltas come and told again,
-- whole, behind them. What only the whole says is taken from there. Of reasoning it is known at its end whether it says
-- anything: till then it has no part.

local answer = require("claw.protocols.openai_responses.answer")
local content = require("claw.protocols.openai_responses.content")
local errors = require("claw.protocols.openai_responses.error")
local fields = require("claw.protocols.fields")
local json = require("claw.json")
local seal = require("claw.protocols.seal")

local M = {}

local word, count, object, list, members = fields.word, fields.count, fields.object, fields.list, fields.fields

local NOTHING = {}
local UNREADABLE = { status = 502, kind = "server", message = "the upstream sent an event that is no JSON" }
local CUT = { status = 502, kind = "server", message = "the upstream's stream ended before its answer did" }
local PARTS = 4096 -- of an item, at most

-- ---- parts: { index, kind, key, open, said (has any text or input come?) }

local function put(out, event)
    out[#out + 1] = event
end

local function close(s, part, out)
    if not part.open then return end
    part.open = false
    s.open[part.index] = nil
    put(out, { on = "part_end", index = part.index })
end

-- Those of an item, or all.
local function close_all(s, output, out)
    local indexes = {}
    for index, part in pairs(s.open) do
        if not output or part.output == output then indexes[#indexes + 1] = index end
    end
    table.sort(indexes)
    for _, index in ipairs(indexes) do close(s, s.open[index], out) end
end

local function begin(s, key, given, out)
    for _, part in pairs(s.open) do
        if part.kind ~= "call" then
            close(s, part, out) -- at most one is open
            break
        end
    end
    local part = { index = s.count, kind = given.kind, output = math.floor(key / PARTS), open = true }
    s.count = s.count + 1
    s.parts[key], s.open[part.index] = part, part
    s.calls, s.refused = s.calls or part.kind == "call", s.refused or part.kind == "refusal"
    put(out, { on = "part", index = part.index, part = given })
    return part
end

local function key_of(e)
    return (count(e.output_index) or 0) * PARTS + (count(e.content_index) or 0) % PARTS
end

local function text(s, key, kind, said, out)
    if type(said) ~= "string" or said == "" then return end
    local part = s.parts[key]
    if not part or not part.open or part.kind ~= kind then part = begin(s, key, { kind = kind }, out) end
    part.said = true
    put(out, { on = "text", index = part.index, text = said })
end

local on = {}

-- ---- text

on["response.output_text.delta"] = function(s, e, out)
    local key = key_of(e)
    text(s, key, "text", e.delta, out)
    local logprobs = e.logprobs and list(e.logprobs)
    if logprobs and logprobs[1] and s.parts[key] then
        put(out, { on = "logprobs", index = s.parts[key].index, logprobs = { content = logprobs } })
    end
end

on["response.refusal.delta"] = function(s, e, out)
    text(s, key_of(e), "refusal", e.delta, out)
end

on["response.content_part.added"] = function(s, e, out)
    local part, key = members(e.part), key_of(e)
    if s.parts[key] then return end
    if part.type == "output_text" then begin(s, key, { kind = "text" }, out) end
    if part.type == "refusal" then begin(s, key, { kind = "refusal" }, out) end
end

on["response.output_text.annotation.added"] = function(s, e, out)
    local part = s.parts[key_of(e)]
    local cited = content.citations(json.array({ e.annotation }))
    if not cited or not part or not part.open then return end
    part.cited = true
    put(out, { on = "citation", index = part.index, citation = cited[1] })
end

-- A part as it is at its end: what did not come in pieces comes now.
local function whole_part(s, key, given, out)
    local kind = given.type == "output_text" and "text" or given.type == "refusal" and "refusal"
    if not kind then return end
    local part = s.parts[key]
    if not part then part = begin(s, key, { kind = kind }, out) end
    if not part.open then return end
    if not part.said then text(s, key, kind, kind == "text" and given.text or given.refusal, out) end
    if not part.cited then
        for _, cited in ipairs(content.citations(given.annotations) or NOTHING) do
            put(out, { on = "citation", index = part.index, citation = cited })
        end
    end
    close(s, part, out)
end

on["response.content_part.done"] = function(s, e, out)
    if object(e.part) then whole_part(s, key_of(e), e.part, out) end
end

-- ---- reasoning

local function reason(s, e, said, at, out)
    if type(said) ~= "string" or said == "" then return end
    local key = (count(e.output_index) or 0) * PARTS
    local part = s.parts[key]
    if not part then
        part = begin(s, key, { kind = "thinking", id = word(e.item_id), summary = at ~= nil or nil }, out)
    elseif not part.open then
        return
    end
    if part.at and at and at ~= part.at then said = "\n\n" .. said end
    part.at, part.said = at, true
    put(out, { on = "text", index = part.index, text = said })
end

on["response.reasoning_summary_text.delta"] = function(s, e, out)
    reason(s, e, e.delta, count(e.summary_index) or 0, out)
end

on["response.reasoning_text.delta"] = function(s, e, out)
    local part = s.parts[(count(e.output_index) or 0) * PARTS]
    if not (part and part.at) then reason(s, e, e.delta, nil, out) end
end

-- ---- calls

on["response.function_call_arguments.delta"] = function(s, e, out)
    local part = s.parts[(count(e.output_index) or 0) * PARTS]
    if not part or not part.open or part.kind ~= "call" or type(e.delta) ~= "string" or e.delta == "" then return end
    part.said = true
    put(out, { on = "input", index = part.index, text = e.delta })
end

local function begin_call(s, key, item, out, cx)
    return begin(s, key, { kind = "call", id = word(item.call_id) or word(item.id) or cx.id("call_"),
        name = word(item.name) or "", custom = item.type == "custom_tool_call" or nil }, out)
end

-- ---- items

on["response.output_item.added"] = function(s, e, out, cx)
    local item, key = members(e.item), (count(e.output_index) or 0) * PARTS
    if item.type == "function_call" and not s.parts[key] then begin_call(s, key, item, out, cx) end
end

local DONE = {}

function DONE.message(s, item, output, out)
    local all = list(item.content)
    for i = 1, #all do
        if object(all[i]) then whole_part(s, output * PARTS + i - 1, all[i], out) end
    end
end

local function whole_call(s, item, output, out, cx, input)
    local part = s.parts[output * PARTS] or begin_call(s, output * PARTS, item, out, cx)
    if part.kind == "call" and part.open and not part.said and word(input) then
        put(out, { on = "input", index = part.index, text = input })
    end
end

function DONE.function_call(s, item, output, out, cx)
    whole_call(s, item, output, out, cx, item.arguments)
end

function DONE.custom_tool_call(s, item, output, out, cx)
    whole_call(s, item, output, out, cx, content.custom_input(word(item.input) or ""))
end

function DONE.reasoning(s, item, output, out, cx)
    local key, family = output * PARTS, cx.provider.family or content.FAMILY
    local part, whole = s.parts[key], content.read_reasoning(item, family)
    if not part and whole then
        local said, secret = whole.text, whole.signature
        whole.text, whole.signature = nil, nil
        if whole.kind == "thinking" then whole.origin = nil end
        part = begin(s, key, whole, out)
        if said and said ~= "" then put(out, { on = "text", index = part.index, text = said }) end
        if not secret then return end
    end
    if part and part.open and part.kind == "thinking" and word(item.encrypted_content) then
        local secret, origin = seal.open(item.encrypted_content, family)
        put(out, { on = "signature", index = part.index, signature = secret, origin = origin })
    end
end

-- raw: the event's text, for what is kept as it came.
local function item_done(s, item, output, out, cx, raw)
    local done = DONE[item.type]
    if done then
        done(s, item, output, out, cx)
    elseif word(item.type) and not s.parts[output * PARTS] then
        local got = {}
        answer.read_item(raw or item, got, {}, cx)
        if got[1] then begin(s, output * PARTS, got[1], out) end
    end
    close_all(s, output, out)
end

on["response.output_item.done"] = function(s, e, out, cx, data)
    local item = object(e.item)
    if not item then return end
    local raw = not DONE[item.type] and cx.parse(data)
    item_done(s, item, count(e.output_index) or 0, out, cx, raw and object(raw.item))
end

-- ---- the response

local function start(s, response, out, cx)
    if s.begun then return end
    s.begun = true
    put(out, { on = "start", id = word(response.id) or cx.id("resp_"), model = word(response.model),
        created = count(response.created_at) })
end

on["response.created"] = function(s, e, out, cx) start(s, members(e.response), out, cx) end
on["response.in_progress"] = on["response.created"]

local function finished(s, e, out, cx)
    local response = members(e.response)
    start(s, response, out, cx)
    if s.count == 0 then -- nothing came in pieces
        local all = list(response.output)
        for i = 1, #all do
            if object(all[i]) then item_done(s, all[i], i - 1, out, cx) end
        end
    end
    close_all(s, nil, out)
    local usage = answer.read_usage(response.usage)
    if usage then put(out, { on = "usage", usage = usage }) end
    put(out, { on = "stop", stop = answer.stop(response, s.calls, s.refused) })
    put(out, { on = "end" })
    s.over = true
end

on["response.completed"], on["response.incomplete"], on["response.done"] = finished, finished, finished

on["response.failed"] = function(s, e, out)
    local response = members(e.response)
    local usage = s.begun and answer.read_usage(response.usage)
    if usage then put(out, { on = "usage", usage = usage }) end
    put(out, { on = "error", err = errors.failed(response) })
    s.over = true
end

on.error = function(s, e, out)
    put(out, { on = "error", err = errors.event(e) })
    s.over = true
end

local BEFORE = { ["response.failed"] = true, error = true }

function M.new(cx)
    local s = { parts = {}, open = {}, count = 0 }

    local function fail(err)
        s.over = true
        return { { on = "error", err = err } }
    end

    return function(event)
        if s.over then return NOTHING end
        if not event then return fail(CUT) end
        local data = event.data
        if type(data) ~= "string" or data == "" or data:find("^%s*%[DONE%]%s*$") then return NOTHING end
        local e = cx.decode(data)
        if not object(e) then return fail(UNREADABLE) end
        local kind = word(e.type) or event.type
        local read = kind and on[kind]
        if not read then
            if not kind and object(e.error) then read, kind = on.error, "error" end
            if not read then return NOTHING end
        end
        local out = {}
        if not s.begun and not BEFORE[kind] then start(s, members(e.response), out, cx) end
        read(s, e, out, cx, data)
        return out
    end
end

return M
