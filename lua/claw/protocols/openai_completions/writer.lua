-- writer: events of the vocabulary as the chunks of an OpenAI completions stream.

local answer = require("claw.protocols.openai_completions.answer")
local chat = require("claw.protocols.openai_chat.answer")
local errors = require("claw.protocols.openai_chat.error")
local fields = require("claw.protocols.fields")
local json = require("claw.json")

local M = {}

local quote = json.quote
local NOTHING = {}

function M.new(cx)
    local head, tail
    local usage, over
    local choices = {} -- choice -> { parts (index -> is it text), at (characters so far) }

    local function choice_at(index)
        choices[index] = choices[index] or { index = index, parts = {}, at = 0 }
        return choices[index]
    end

    local function start(e)
        head = ('{"id":%s,"object":"text_completion","created":%d,"model":%s,"choices":'):format(
            quote(e.id or cx.id("cmpl-")), e.created or cx.now, quote(e.model or cx.model or ""))
        tail = cx.wants_usage and ',"usage":null}' or "}"
        usage = e.usage or usage
        return NOTHING
    end

    local function chunk(c, text, logprobs, finish)
        return { { data = ('%s[{"text":%s,"index":%d,"logprobs":%s,"finish_reason":%s}]%s'):format(head, quote(text),
            c.index, logprobs or "null", finish or "null", tail) } }
    end

    local on = { start = start }

    function on.text(e, c)
        if c.parts[e.index] == false then return NOTHING end
        c.at = c.at + chat.length(e.text)
        return chunk(c, e.text)
    end

    function on.part(e, c)
        c.parts[e.index] = answer.is_text(e.part, cx)
        return c.parts[e.index] and fields.word(e.part.text) and on.text({ index = e.index, text = e.part.text }, c)
            or NOTHING
    end

    function on.logprobs(e, c)
        local made = answer.logprobs(e.logprobs, c.at)
        local said = made and fields.encoded(made)
        return said and chunk(c, "", said) or NOTHING
    end

    function on.usage(e)
        usage = e.usage
        return NOTHING
    end

    function on.stop(e, c)
        return chunk(c, "", nil, '"' .. answer.finish(e.stop) .. '"')
    end

    on["end"] = function()
        over = true
        local done = { data = "[DONE]" }
        if not cx.wants_usage or not usage then return { done } end
        return { { data = head .. '[],"usage":' .. json.encode(answer.usage(usage)) .. "}" }, done }
    end

    -- Behind an error stands no [DONE]: the answer is not done.
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
