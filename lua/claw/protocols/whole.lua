-- whole: an answer as the events of a stream, and a stream's events as an answer: for an upstream that answers in the
-- other of the two ways than the client asked for.

local json = require("claw.json")

local M = {}

local TEXTS = { text = true, thinking = true, refusal = true }
local APART = { text = true, input = true, signature = true, citations = true } -- told by events of their own

local function input_text(input)
    if input == nil or type(input) == "string" then return input or "" end
    return type(input) == "table" and json.encode(input) or tostring(input)
end

local function part_events(part, index, put)
    local head = {}
    local told = TEXTS[part.kind] or part.kind == "call"
    for key, value in pairs(part) do
        if not told or not APART[key] then head[key] = value end
    end
    if part.kind == "call" and part.signature then head.signature = part.signature end
    put({ on = "part", index = index, part = head })
    if TEXTS[part.kind] then
        if part.text and part.text ~= "" then put({ on = "text", index = index, text = part.text }) end
        for _, citation in ipairs(part.citations or {}) do
            put({ on = "citation", index = index, citation = citation })
        end
        if part.signature then
            put({ on = "signature", index = index, signature = part.signature, origin = part.origin })
        end
    elseif part.kind == "call" then
        local text = input_text(part.input)
        if text ~= "" then put({ on = "input", index = index, text = text }) end
    end
    put({ on = "part_end", index = index })
end

-- An answer of the vocabulary (without an error) as the events a reader would have given, `end` included.
function M.events(answer)
    local out = { { on = "start", id = answer.id, model = answer.model, created = answer.created } }
    local choices = answer.choices or { answer }
    for i, choice in ipairs(choices) do
        local function put(event)
            event.choice = #choices > 1 and i - 1 or nil
            out[#out + 1] = event
        end
        for k, part in ipairs(choice.parts or {}) do part_events(part, k - 1, put) end
        if choice.logprobs then put({ on = "logprobs", index = 0, logprobs = choice.logprobs }) end
        if i == #choices and answer.usage then out[#out + 1] = { on = "usage", usage = answer.usage } end
        put({ on = "stop", stop = choice.stop or "end", stop_text = choice.stop_text })
    end
    out[#out + 1] = { on = "end" }
    return out
end

-- ---- the other way

local Gathered = {}
Gathered.__index = Gathered

-- Takes the events of a stream, and makes one answer of them. cx: the attempt's.
function M.gather(cx)
    return setmetatable({ cx = cx, choices = {}, last = 0 }, Gathered)
end

local function choice_of(self, event)
    local i = (event.choice or 0) + 1
    self.choices[i] = self.choices[i] or { parts = {} }
    if i > self.last then self.last = i end
    return self.choices[i]
end

local ADD = {}

function ADD.start(self, e)
    self.head = e
    self.usage = e.usage or self.usage
end

function ADD.usage(self, e) self.usage = e.usage end

function ADD.part(self, e)
    local part = {}
    for key, value in pairs(e.part) do part[key] = value end
    choice_of(self, e).parts[e.index + 1] = { part = part, pieces = {} }
end

local function open_of(self, e) return choice_of(self, e).parts[e.index + 1] end

function ADD.text(self, e)
    local open = open_of(self, e)
    if open then open.pieces[#open.pieces + 1] = e.text end
end
ADD.input = ADD.text

function ADD.signature(self, e)
    local open = open_of(self, e)
    if open then open.part.signature, open.part.origin = e.signature, e.origin end
end

function ADD.citation(self, e)
    local open = open_of(self, e)
    if not open then return end
    open.part.citations = open.part.citations or {}
    table.insert(open.part.citations, e.citation)
end

function ADD.logprobs(self, e)
    local choice = choice_of(self, e)
    choice.logprobs = choice.logprobs or {}
    local told = json.decode(input_text(e.logprobs))
    for _, field in ipairs({ "content", "refusal" }) do
        local list = type(told) == "table" and told[field]
        if type(list) == "table" then
            choice.logprobs[field] = choice.logprobs[field] or json.array()
            for _, one in ipairs(list) do table.insert(choice.logprobs[field], one) end
        end
    end
end

function ADD.stop(self, e)
    local choice = choice_of(self, e)
    choice.stop, choice.stop_text = e.stop, e.stop_text
end

-- Adds an event of the vocabulary, no error.
function Gathered:add(event)
    local add = ADD[event.on]
    if add then add(self, event) end
end

local function closed(one, cx)
    local part, text = one.part, table.concat(one.pieces)
    if TEXTS[part.kind] then
        part.text = (part.text or "") .. text
    elseif part.kind == "call" then
        if text == "" then text = part.input and input_text(part.input) or "{}" end
        part.input = cx.parse(text) or text
    end
    return part
end

local function closed_choice(choice, cx)
    local out = { parts = {}, stop = choice.stop or "end", stop_text = choice.stop_text }
    for i = 1, table.maxn(choice.parts) do
        if choice.parts[i] then out.parts[#out.parts + 1] = closed(choice.parts[i], cx) end
    end
    local told = choice.logprobs
    if told and next(told) then
        told.content, told.refusal = told.content or json.null, told.refusal or json.null
        out.logprobs = cx.parse(json.encode(told))
    end
    return out
end

-- The answer they make.
function Gathered:answer()
    local head, choices = self.head or {}, {}
    for i = 1, math.max(1, self.last) do
        choices[i] = closed_choice(self.choices[i] or { parts = {} }, self.cx)
    end
    local first = choices[1]
    return { id = head.id, model = head.model, created = head.created or self.cx.now, usage = self.usage,
        parts = first.parts, stop = first.stop, stop_text = first.stop_text, logprobs = first.logprobs,
        choices = #choices > 1 and choices or nil }
end

return M
