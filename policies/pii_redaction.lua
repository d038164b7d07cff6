-- pii_redaction: e-mail addresses, phone and card numbers do not leave for a provider.
--
-- Requests go out with <email_1>, <phone_1>, <card_1> in their place (one for each value); where the answer, whole or
-- streamed, speaks of these, the client reads its own values again. For OpenAI's chat dialect. In openclaw.yaml:
--
--     policies: { always: [pii_redaction] }
local P = { name = "pii_redaction", api = 1 }

local function is_card(digits) -- Luhn's sum
    local sum = 0
    for i = 1, #digits do
        local n = tonumber(digits:sub(-i, -i)) * (i % 2 == 0 and 2 or 1)
        sum = sum + (n > 9 and n - 9 or n)
    end
    return #digits >= 13 and #digits <= 19 and sum % 10 == 0
end

local function placeholder(state, kind, value)
    if not state.names[value] then
        state.counts[kind] = (state.counts[kind] or 0) + 1
        state.names[value] = ("<%s_%d>"):format(kind, state.counts[kind])
        state.values[state.names[value]] = value
    end
    return state.names[value]
end

local function redact(state, text)
    text = text:gsub("[%w._%%+-]+@[%w-]+%.[%w.-]*%w", function(found) return placeholder(state, "email", found) end)
    return (text:gsub("%+?%(?%d[%d ().-]+%d", function(found)
        local digits = found:gsub("%D", "")
        local phone = #digits >= 9 and #digits <= 15 and not found:find("^%d%d%d%d%-%d%d%-%d%d") -- no date
        return is_card(digits) and placeholder(state, "card", found) or phone and placeholder(state, "phone", found)
    end))
end

local function restore(values, text)
    return (text:gsub("<%l+_%d+>", values))
end

-- Redact a field of each object in a list, and the texts of its parts.
local function redact_all(state, list, field)
    for _, item in list:each() do
        local value = claw.doc.type(item) == "object" and item[field]
        if type(value) == "string" then item[field] = redact(state, value) end
        if claw.doc.type(value) == "array" then redact_all(state, value, "text") end
    end
end

function P.request(req, body)
    if claw.doc.type(body) ~= "object" or claw.doc.type(body.messages) ~= "array" then return end
    local state = claw.state(req)
    state.values, state.names, state.counts, state.held = {}, {}, {}, {}
    redact_all(state, body.messages, "content")
end

function P.response(req, body)
    local values = claw.state(req).values or {}
    if not next(values) or claw.doc.type(body) ~= "object" or claw.doc.type(body.choices) ~= "array" then return end
    for _, choice in body.choices:each() do
        local content = claw.doc.get(choice, "message.content")
        if type(content) == "string" then choice.message.content = restore(values, content) end
    end
end

function P.event(req, ev)
    local state = claw.state(req)
    local chunk = state.values and next(state.values) and claw.json.decode(ev.data)
    if type(chunk) ~= "table" or type(chunk.choices) ~= "table" or not chunk.choices[1] then return nil end
    for _, choice in ipairs(chunk.choices) do
        local delta, held = choice.delta or {}, state.held[choice.index] or ""
        local text = restore(state.values, held .. (type(delta.content) == "string" and delta.content or ""))
        local last = (choice.finish_reason or claw.json.null) ~= claw.json.null
        local from = not last and text:find("<%l*_?%d*$") -- may go on in the next event
        state.held[choice.index] = from and text:sub(from) or nil
        if text ~= "" then delta.content = from and text:sub(1, from - 1) or text end
    end
    return { type = ev.type, data = claw.json.encode(chunk) }
end

return P
