-- reader: the events of streamGenerateContent as events of the vocabulary.
--
-- Each event is a whole GenerateContentResponse with more of the answer. Text and thoughts come in pieces, so their
-- parts stay open until something else comes; all else comes whole. What follows a candidate's finishReason is only
-- counts. A text's signature comes with its last piece and waits until what the text cites is said.

local answer = require("claw.protocols.gemini.answer")
local errors = require("claw.protocols.gemini.error")
local fields = require("claw.protocols.fields")
local grounding = require("claw.protocols.gemini.grounding")
local parts = require("claw.protocols.gemini.parts")

local M = {}

local word, count, object, list, members = fields.word, fields.count, fields.object, fields.list, fields.fields

local NOTHING = {}
local UNREADABLE = { status = 502, kind = "server", message = "the upstream sent an event that is no JSON" }
local CUT = { status = 502, kind = "server", message = "the upstream's stream ended before its answer did" }
local CHOICES = 128

local function put(c, event, out)
    if c.choice > 0 then event.choice = c.choice end
    out[#out + 1] = event
end

local function close(c, out)
    if not c.open then return end
    put(c, { on = "part_end", index = c.parts - 1 }, out)
    c.open = nil
end

local function release(c, out)
    local waiting = c.signed
    if not waiting then return end
    c.signed = nil
    c.whole(c, waiting, out)
end

local function begin(c, part, out)
    close(c, out)
    release(c, out)
    put(c, { on = "part", index = c.parts, part = part }, out)
    c.parts = c.parts + 1
    c.open = part.kind
    if part.kind == "text" then
        c.pieces = {} -- of the text: what is cited is told by its place, at the end
        c.texts[#c.texts + 1] = { index = c.parts - 1, pieces = c.pieces }
    end
end

local function more(c, kind, text, out)
    if text == "" then return end
    if c.open ~= kind then begin(c, { kind = kind }, out) end
    if kind == "text" then c.pieces[#c.pieces + 1] = text end
    put(c, { on = "text", index = c.parts - 1, text = text }, out)
end

local function whole(c, part, out)
    local input, text, signature = part.input, part.text, part.signature
    part.text = nil
    if part.kind == "call" then
        c.called, part.input = true, nil
    else
        part.signature = nil
    end
    local origin = part.origin
    if part.kind == "thinking" then part.origin = nil end
    begin(c, part, out)
    if input then put(c, { on = "input", index = c.parts - 1, text = tostring(input) }, out) end
    if text and text ~= "" then put(c, { on = "text", index = c.parts - 1, text = text }, out) end
    if part.kind ~= "call" and signature then
        put(c, { on = "signature", index = c.parts - 1, signature = signature, origin = origin }, out)
    end
    close(c, out)
end

local READ = {} -- reused: parts of one event

local function read_part(c, part, out, cx)
    local text = part.text
    if type(text) == "string" and not part.thoughtSignature then -- nearly all of a stream
        return more(c, part.thought == true and "thinking" or "text", text, out)
    end
    READ[1], READ[2] = nil, nil
    parts.read(part, c.ids, READ, cx)
    for i = 1, 2 do
        local got = READ[i]
        if got and got.kind == "thinking" and got.text == "" and c.open == "text" then
            release(c, out)
            c.signed = got
        elseif got and got.kind == "text" then
            more(c, "text", got.text, out)
        elseif got and got.kind == "thinking" and c.open == "thinking" then
            more(c, "thinking", got.text, out)
            put(c, { on = "signature", index = c.parts - 1, signature = got.signature, origin = got.origin }, out)
            close(c, out)
        elseif got then
            whole(c, got, out)
        end
    end
end

-- What is cited is said at the end, of any of the texts: one that is over by then cannot be cited any more.
local function cite(c, candidate, out, cx)
    if not candidate.groundingMetadata and not candidate.citationMetadata then return end
    local texts = {}
    for i, text in ipairs(c.texts) do texts[i] = table.concat(text.pieces) end
    for _, one in ipairs(grounding.read(candidate, texts)) do
        local index = c.texts[one.at].index
        if c.open == "text" and index == c.parts - 1 then
            put(c, { on = "citation", index = index, citation = one.citation }, out)
        else
            cx.drop("groundingMetadata", "hint", "of a text that was over")
        end
    end
end

local function finish(c, stop, out)
    close(c, out)
    release(c, out)
    c.stopped = true
    put(c, { on = "stop", stop = stop }, out)
end

-- Returns the error of one that failed: what it said before stands in `out`.
local function read_candidate(c, candidate, out, cx)
    if c.stopped then return end
    local given = list(members(candidate.content).parts)
    for i = 1, #given do
        if object(given[i]) then read_part(c, given[i], out, cx) end
    end
    cite(c, candidate, out, cx)
    local logprobs = candidate.logprobsResult and answer.read_logprobs(candidate.logprobsResult)
    if logprobs then put(c, { on = "logprobs", index = math.max(c.parts - 1, 0), logprobs = logprobs }, out) end
    local reason = word(candidate.finishReason)
    if not reason or reason == "FINISH_REASON_UNSPECIFIED" then return end
    local stop = answer.stop(reason, c.called)
    if stop == "error" then return answer.unfinished(candidate) end
    finish(c, stop, out)
end

-- Does it hold something whose bytes are to be kept (a call's arguments)?
local function has_call(data)
    return data:find('"functionCall"', 1, true) ~= nil or data:find('"executableCode"', 1, true) ~= nil
        or data:find('"codeExecutionResult"', 1, true) ~= nil
end

function M.new(cx)
    local choices, begun, over, counted = {}, false, false, nil

    local function choice_at(index)
        local c = choices[index]
        if not c then
            c = { choice = index, parts = 0, texts = {}, ids = parts.ids(cx), whole = whole }
            choices[index] = c
        end
        return c
    end

    local function fail(err, out)
        over, out = true, out or {}
        out[#out + 1] = { on = "error", err = err }
        return out
    end

    local function finished()
        over = true
        local all = choices[0] ~= nil
        for _, c in pairs(choices) do all = all and c.stopped end
        if not begun or not all then return fail(CUT) end
        return { { on = "end" } }
    end

    local function usage(body, out)
        local u = object(body.usageMetadata)
        if not u then return end
        local total = (count(u.totalTokenCount) or 0) + (count(u.candidatesTokenCount) or 0)
        if total == counted then return end
        local got = answer.read_usage(u)
        if not got then return end
        counted = total
        out[#out + 1] = { on = "usage", usage = got }
    end

    local function read(body)
        local err = body.error and errors.find(body)
        if err then return fail(err) end
        local out, candidates = {}, list(body.candidates)
        local feedback, words = answer.blocked(body)
        if not begun then
            if not candidates[1] and not feedback then return NOTHING end
            begun = true
            out[1] = { on = "start", id = word(body.responseId) or cx.id(""), model = word(body.modelVersion) }
        end
        for i = 1, #candidates do
            local candidate = object(candidates[i])
            local index = candidate and (count(candidate.index) or i - 1)
            local failed = candidate and index < CHOICES and read_candidate(choice_at(index), candidate, out, cx)
            if failed then
                usage(body, out)
                return fail(failed, choices[index].parts > 0 and out or nil) -- one that said nothing may be replaced
            end
        end
        local c = choice_at(0)
        if feedback and not c.stopped then
            if words then more(c, "refusal", words, out) end
            finish(c, "filter", out)
        end
        usage(body, out)
        return out
    end

    return function(event)
        if over then return NOTHING end
        if not event then return finished() end
        local data = event.data
        if type(data) ~= "string" or data == "" then return NOTHING end
        local body
        if has_call(data) then body = cx.parse(data) else body = cx.decode(data) end
        if fields.array(body) then body = body[1] end
        if not object(body) then return fail(UNREADABLE) end
        return read(body)
    end
end

return M
