-- writer: events of the vocabulary as the chunks of an OpenAI chat stream.
--
-- All chunks of a stream begin and end alike: both texts are made once, and a piece of text is quoted between them.

local answer = require("claw.protocols.openai_chat.answer")
local spelling = require("claw.protocols.openai_chat.spelling")
local errors = require("claw.protocols.openai_chat.error")
local fields = require("claw.protocols.fields")
local json = require("claw.json")

local M = {}

local quote, encode = json.quote, json.encode

local NOTHING = {}

function M.new(cx)
    local head, tail  -- of a chunk: around choices, around a delta
    local usage       -- the last that was said
    local over = false
    local legacy = cx.request and cx.request.legacy
    local choices = {} -- choice -> { parts (index -> part), calls, refused, at (characters of content so far) }

    local function choice_at(index)
        local c = choices[index]
        if not c then
            c = { parts = {}, calls = 0, at = 0, front = ('[{"index":%d,"delta":'):format(index) }
            choices[index] = c
        end
        return c
    end

    local function start(e)
        head = ('{"id":%s,"object":"chat.completion.chunk","created":%d,"model":%s,"choices":'):format(
            quote(e.id or cx.id("chatcmpl-")), e.created or cx.now, quote(e.model or cx.model or ""))
        tail = cx.wants_usage and ',"usage":null}' or "}"
        usage = e.usage or usage
    end

    -- The first chunk of each choice has the role.
    local function chunk(c, delta, logprobs, finish)
        return { data = head .. c.front .. delta .. ',"logprobs":' .. (logprobs or "null") .. ',"finish_reason":'
            .. (finish or "null") .. "}]" .. tail }
    end

    local function out(c, delta)
        local made = chunk(c, delta)
        if c.spoke then return { made } end
        c.spoke = true
        return { chunk(c, '{"role":"assistant","content":""}'), made }
    end

    local on = {}

    function on.start(e)
        start(e)
        local c = choice_at(0)
        c.spoke = true
        return { chunk(c, '{"role":"assistant","content":""}') }
    end

    function on.text(e, c)
        local part = c.parts[e.index]
        local kind = part and part.kind or "text"
        if kind == "text" then
            if part then part.length = (part.length or 0) + answer.length(e.text) end
            if not c.spoke then return out(c, '{"content":' .. quote(e.text) .. "}") end
            if not c.before then
                c.before = head .. c.front .. '{"content":'
                c.behind = '},"logprobs":null,"finish_reason":null}]' .. tail
            end
            return { { data = c.before .. quote(e.text) .. c.behind } }
        elseif kind == "thinking" then
            part.said[#part.said + 1] = e.text
            return out(c, '{"reasoning_content":' .. quote(e.text) .. "}")
        elseif kind == "refusal" then
            c.refused = true
            return out(c, '{"refusal":' .. quote(e.text) .. "}")
        end
        return NOTHING
    end

    local function details(c, detail)
        return out(c, encode({ reasoning_details = { detail } }))
    end

    function on.part(e, c)
        local given = e.part
        local part = { kind = given.kind, said = {}, start = c.at }
        c.parts[e.index] = part
        if given.kind == "call" then
            part.call = c.calls
            c.calls = c.calls + 1
            local call = spelling.write_call({ id = given.id or cx.id("call_"), name = given.name or "", input = "{}",
                signature = given.signature, origin = given.origin })
            call.index = part.call
            call["function"].arguments = ""
            if legacy then -- it knows one call
                if part.call > 0 then return NOTHING end
                return out(c, encode({ function_call = call["function"] }))
            end
            return out(c, encode({ tool_calls = { call } }))
        elseif given.kind == "redacted" then
            c.details = (c.details or -1) + 1
            return details(c, spelling.write_detail(given, c.details))
        elseif given.kind == "text" or given.kind == "thinking" or given.kind == "refusal" then
            part.signature, part.origin = given.signature, given.origin
            local made = given.text and given.text ~= "" and on.text({ index = e.index, text = given.text }, c)
            return made or NOTHING
        end
        if given.kind == "image" and (given.data or given.url) then
            return out(c, encode({ images = { spelling.write(given, cx) } }))
        end
        cx.drop("content." .. tostring(given.what or given.kind), "hint", "the client's protocol has no such part")
        return NOTHING
    end

    function on.input(e, c, part)
        part = part or c.parts[e.index]
        if not part or not part.call then return NOTHING end
        part.said = true
        if legacy then
            if part.call > 0 then return NOTHING end
            return out(c, '{"function_call":{"arguments":' .. quote(e.text) .. "}}")
        end
        return out(c, '{"tool_calls":[{"index":' .. part.call .. ',"function":{"arguments":' .. quote(e.text) .. "}}]}")
    end

    -- What it belongs to is said with it, once more: a client that keeps the details has all it must hand back.
    function on.signature(e, c)
        local part = c.parts[e.index]
        if part and part.call then
            if e.origin ~= "gemini" or legacy then return NOTHING end
            return out(c, encode({ tool_calls = { { index = part.call,
                extra_content = { google = { thought_signature = e.signature } } } } }))
        elseif part and part.kind == "thinking" then
            part.signature, part.origin = (part.signature or "") .. e.signature, e.origin
        end
        return NOTHING
    end

    function on.part_end(e, c)
        local part = c.parts[e.index]
        c.parts[e.index] = nil
        if not part then return NOTHING end
        if part.kind == "text" then
            c.at = c.at + (part.length or 0)
        elseif part.call and part.said ~= true then -- a call without arguments is one with none
            if legacy then return on.input({ index = e.index, text = "{}" }, c, part) end
            return out(c, '{"tool_calls":[{"index":' .. part.call .. ',"function":{"arguments":"{}"}}]}')
        elseif part.kind == "thinking" and part.signature then
            c.details = (c.details or -1) + 1
            return details(c, spelling.write_detail({ kind = "thinking", text = table.concat(part.said),
                signature = part.signature, origin = part.origin }, c.details))
        end
        return NOTHING
    end

    function on.citation(e, c)
        local notes, part = {}, c.parts[e.index]
        answer.annotations({ e.citation }, part and part.start or 0, part and part.length or 0, notes, cx)
        if not notes[1] then return NOTHING end
        return out(c, encode({ annotations = notes }))
    end

    function on.logprobs(e, c)
        local said = fields.encoded(e.logprobs)
        return said and { chunk(c, "{}", said) } or NOTHING
    end

    function on.usage(e)
        usage = e.usage
        return NOTHING
    end

    function on.stop(e, c)
        return { chunk(c, "{}", nil, '"' .. answer.finish(e.stop, c.refused, cx) .. '"') }
    end

    on["end"] = function()
        over = true
        if not cx.wants_usage or not usage then return { { data = "[DONE]" } } end
        return { { data = head .. '[],"usage":' .. encode(answer.write_usage(usage)) .. "}" }, { data = "[DONE]" } }
    end

    -- Behind an error stands no [DONE], as with OpenAI: the answer is not done.
    function on.error(e)
        over = true
        return { errors.write_event(e.err) }
    end

    return function(e)
        local write = on[e.on]
        if not write or over then return NOTHING end
        if not head and e.on ~= "start" and e.on ~= "error" then start({}) end
        return write(e, choice_at(e.choice or 0))
    end
end

return M
