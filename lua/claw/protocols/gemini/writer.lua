-- writer: events of the vocabulary as those of streamGenerateContent.
--
-- A piece of text is quoted between two texts that are the same for the whole stream. Calls go out whole, at their end.
-- The last event says why it ended, what was cited, and the usage.

local answer = require("claw.protocols.gemini.answer")
local contents = require("claw.protocols.gemini.contents")
local errors = require("claw.protocols.gemini.error")
local fields = require("claw.protocols.fields")
local grounding = require("claw.protocols.gemini.grounding")
local json = require("claw.json")
local parts = require("claw.protocols.gemini.parts")

local M = {}

local quote, encode = json.quote, json.encode

local NOTHING = {}
local HEAD = '{"candidates":[{"content":{"parts":['

function M.new(cx)
    local head       -- behind the candidates: model and id
    local usage
    local over = false
    local choices = {} -- choice -> { parts (index -> part), tail, cited, stop, logprobs }

    local function choice_at(index)
        local c = choices[index]
        if not c then
            c = { parts = {}, cited = {}, last = -1, tail = ('],"role":"model"},"index":%d}]%s'):format(index, head) }
            choices[index] = c
        end
        return c
    end

    local function start(e)
        head = (',"modelVersion":%s,"responseId":%s}'):format(quote(e.model or cx.model or ""),
            quote(e.id or cx.id("")))
        usage = e.usage or usage
    end

    local function out(c, part)
        return { { data = HEAD .. part .. c.tail } }
    end

    local on = {}

    function on.text(e, c)
        local part = c.parts[e.index]
        if e.text == "" then return NOTHING end
        if part and part.kind == "thinking" then
            return out(c, '{"text":' .. quote(e.text) .. ',"thought":true}')
        end
        if part and part.kind == "text" then part.said[#part.said + 1] = e.text end
        return out(c, '{"text":' .. quote(e.text) .. "}")
    end

    function on.part(e, c)
        local given = e.part
        local part = { kind = given.kind, said = {}, signature = given.signature, origin = given.origin, id = given.id,
            name = given.name }
        c.parts[e.index], c.last = part, e.index
        if given.kind == "redacted" then
            return out(c, encode({ text = "", thought = true,
                thoughtSignature = parts.seal(given.data, given.origin, true) }))
        elseif given.kind == "call" then
            if given.input then part.said[1] = tostring(given.input) end
            return NOTHING
        elseif given.kind == "text" or given.kind == "thinking" or given.kind == "refusal" then
            for _, citation in ipairs(given.citations or {}) do
                table.insert(c.cited, { part = part, citation = citation })
            end
            if given.text and given.text ~= "" then return on.text({ index = e.index, text = given.text }, c) end
            return NOTHING
        end
        local made = contents.answer({ given }, cx)[1]
        local text = made and fields.encoded(made)
        return text and out(c, text) or NOTHING
    end

    function on.input(e, c)
        local part = c.parts[e.index]
        if part then part.said[#part.said + 1] = e.text end
        return NOTHING
    end

    function on.signature(e, c)
        local part = c.parts[e.index]
        if part then part.signature, part.origin = (part.signature or "") .. e.signature, e.origin end
        return NOTHING
    end

    function on.citation(e, c)
        local part = c.parts[e.index]
        if part then table.insert(c.cited, { part = part, citation = e.citation }) end
        return NOTHING
    end

    function on.logprobs(e, c)
        local all = fields.list(fields.fields(e.logprobs).content)
        c.logprobs = c.logprobs or json.array()
        for i = 1, #all do c.logprobs[#c.logprobs + 1] = all[i] end
        return NOTHING
    end

    function on.part_end(e, c)
        local part = c.parts[e.index]
        if not part then return NOTHING end
        local sealed = part.signature and parts.seal(part.signature, part.origin)
        if part.kind == "call" then
            local text = table.concat(part.said)
            part.said = NOTHING
            return out(c, encode({ functionCall = { id = part.id, name = part.name,
                args = contents.arguments(text, cx) }, thoughtSignature = sealed }))
        elseif part.kind == "thinking" and sealed then
            return out(c, encode({ text = "", thought = true, thoughtSignature = sealed }))
        elseif part.kind == "text" then
            part.text, part.said = table.concat(part.said), NOTHING
        end
        return NOTHING
    end

    on["stop"] = function(e, c)
        c.stop = e.stop
        return NOTHING
    end

    -- Texts that follow each other are one text to who reads the stream.
    local function cited(c)
        if not c.cited[1] then return nil end
        local base = 0
        for index = 0, c.last do
            local part = c.parts[index]
            if part and part.kind == "text" then
                part.text, part.base = part.text or table.concat(part.said), base
                base = base + #part.text
            end
        end
        for _, one in ipairs(c.cited) do
            one.text, one.base, one.part = one.part.text or "", one.part.base or 0, 0
        end
        return grounding.write(c.cited)
    end

    local function finish()
        local all = json.array()
        for index = 0, 127 do
            local c = choices[index]
            if c then
                all[#all + 1] = { content = { parts = { { text = "" } }, role = "model" }, index = index,
                    finishReason = answer.finish(c.stop), groundingMetadata = cited(c),
                    logprobsResult = c.logprobs and answer.write_logprobs({ content = c.logprobs }) }
            end
        end
        local said = usage and ',"usageMetadata":' .. encode(answer.write_usage(usage)) or ""
        return { { data = '{"candidates":' .. encode(all) .. said .. head } }
    end

    return function(e)
        if over then return NOTHING end
        local what = e.on
        if what == "start" then
            start(e)
            choice_at(0)
            return NOTHING
        elseif what == "usage" then
            usage = e.usage
            return NOTHING
        elseif what == "error" then
            over = true
            return { errors.write_event(e.err) }
        end
        if not head then start({}) end
        if what == "end" then
            over = true
            return finish()
        end
        local write = on[what]
        return write and write(e, choice_at(e.choice or 0)) or NOTHING
    end
end

return M
