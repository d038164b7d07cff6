-- answer: a plain answer of OpenAI's completions, read and written; logprobs for streams too.

local chat = require("claw.protocols.openai_chat.answer")
local errors = require("claw.protocols.openai_chat.error")
local fields = require("claw.protocols.fields")
local json = require("claw.json")

local M = {}

local word, count, list, object, members = fields.word, fields.count, fields.list, fields.object, fields.fields

function M.read(body)
    body = object(body)
    local err = body and fields.says(body.error) and errors.find(body)
    if err then return { parts = {}, stop = "error", error = err } end
    local all, choices = list(body and body.choices), {}
    for i = 1, #all do
        local choice = object(all[i])
        if choice then
            choices[#choices + 1] = { stop = chat.stop(choice.finish_reason) or "end",
                parts = { word(choice.text) and { kind = "text", text = choice.text } } }
        end
    end
    local first = choices[1]
    if not first then return nil, "no choices in the upstream's answer" end
    local failed = first.stop == "error" and errors.unfinished(word(members(all[1]).finish_reason)) or nil
    return { id = word(body.id), model = word(body.model), created = count(body.created), parts = first.parts,
        error = failed,
        stop = first.stop, usage = chat.read_usage(body.usage), choices = choices[2] and choices or nil }
end

-- ---- writing

-- Chat's { content: [ { token, logprob, top_logprobs } ] } as { tokens, token_logprobs, top_logprobs, text_offset }.
-- at: characters of the text so far.
function M.logprobs(logprobs, at)
    local all = list(members(logprobs).content)
    if #all == 0 then return nil end
    local out = { tokens = json.array(), token_logprobs = json.array(), top_logprobs = json.array(),
        text_offset = json.array() }
    for i = 1, #all do
        local one = members(all[i])
        local token, top, best = fields.text(one.token) or "", list(one.top_logprobs), {}
        for j = 1, #top do
            local text, said = fields.text(members(top[j]).token), fields.number(members(top[j]).logprob)
            if text and said then best[text] = said end
        end
        out.tokens[i], out.token_logprobs[i] = token, fields.number(one.logprob) or json.null
        out.top_logprobs[i], out.text_offset[i] = best, at
        at = at + chat.length(token)
    end
    return out
end

local FINISH = { length = "length", context = "length", filter = "content_filter", refusal = "content_filter" }

function M.finish(stop)
    return FINISH[stop] or "stop"
end

function M.usage(usage)
    return chat.write_usage(usage)
end

-- Is it text here? What else there is has no place; that it was thought needs no word.
function M.is_text(part, cx)
    if part.kind == "text" or part.kind == "refusal" then return true end
    if part.kind ~= "thinking" and part.kind ~= "redacted" then
        cx.drop("content." .. tostring(part.what or part.kind), "hint", "the client's protocol has no such part")
    end
    return false
end

function M.write(answer, cx)
    if answer.error then return errors.write(answer.error) end
    local out = { id = answer.id or cx.id("cmpl-"), object = "text_completion", created = answer.created or cx.now,
        model = answer.model or cx.model, choices = {}, usage = answer.usage and M.usage(answer.usage) }
    for i, choice in ipairs(answer.choices or { answer }) do
        local said = {}
        for _, part in ipairs(choice.parts or {}) do
            if M.is_text(part, cx) then said[#said + 1] = part.text end
        end
        out.choices[i] = { index = i - 1, text = table.concat(said), finish_reason = M.finish(choice.stop),
            logprobs = choice.logprobs and M.logprobs(choice.logprobs, 0) or json.null }
    end
    return out
end

return M
