-- answer: a whole GenerateContentResponse, read and written; stop reasons, usage and logprobs for streams too.

local contents = require("claw.protocols.gemini.contents")
local errors = require("claw.protocols.gemini.error")
local fields = require("claw.protocols.fields")
local grounding = require("claw.protocols.gemini.grounding")
local json = require("claw.json")
local parts = require("claw.protocols.gemini.parts")
local unfinished = require("claw.protocols.errors").unfinished

local M = {}

local word, count, number = fields.word, fields.count, fields.number
local object, list, members = fields.object, fields.list, fields.fields

-- ---- reading

local STOP = { MAX_TOKENS = "length", SAFETY = "filter", RECITATION = "filter", BLOCKLIST = "filter",
    PROHIBITED_CONTENT = "filter", SPII = "filter", MODEL_ARMOR = "filter", IMAGE_SAFETY = "filter",
    IMAGE_PROHIBITED_CONTENT = "filter", IMAGE_RECITATION = "filter", LANGUAGE = "error", OTHER = "error",
    IMAGE_OTHER = "error", NO_IMAGE = "error", MALFORMED_FUNCTION_CALL = "error", MALFORMED_RESPONSE = "error",
    UNEXPECTED_TOOL_CALL = "error", TOO_MANY_TOOL_CALLS = "error", MISSING_THOUGHT_SIGNATURE = "error" }

-- The error of a candidate that failed before it said anything.
function M.unfinished(candidate)
    return unfinished(word(candidate.finishReason), word(candidate.finishMessage))
end

-- Google ends with STOP although there are calls.
function M.stop(reason, calls)
    local stop = STOP[reason] or "end"
    return stop == "end" and calls and "call" or stop
end

local function tokens_of(details, modality)
    local all = list(details)
    for i = 1, #all do
        local one = members(all[i])
        if one.modality == modality then return count(one.tokenCount) end
    end
end

-- Google counts thoughts and what its tools put into the prompt apart.
function M.read_usage(u)
    u = object(u)
    local input = u and count(u.promptTokenCount)
    if not input then return nil end
    local reasoning = count(u.thoughtsTokenCount)
    return { input = input + (count(u.toolUsePromptTokenCount) or 0), cached = count(u.cachedContentTokenCount),
        output = (count(u.candidatesTokenCount) or 0) + (reasoning or 0), reasoning = reasoning,
        audio_input = tokens_of(u.promptTokensDetails, "AUDIO"),
        audio_output = tokens_of(u.candidatesTokensDetails, "AUDIO") }
end

local function token(v, chosen)
    local one = members(v)
    local text = fields.text(one.token)
    return text and { token = text, logprob = number(one.logProbability) or number(chosen) or -9999, bytes = json.null }
end

-- logprobsResult as OpenAI's logprobs, which the vocabulary takes.
function M.read_logprobs(result)
    if not object(result) then return nil end
    local chosen, top, content = list(result.chosenCandidates), list(result.topCandidates), json.array()
    for i = 1, #chosen do
        local one = token(chosen[i])
        if one then
            local others = list(members(top[i]).candidates)
            one.top_logprobs = json.array()
            for j = 1, #others do one.top_logprobs[#one.top_logprobs + 1] = token(others[j]) or nil end
            content[#content + 1] = one
        end
    end
    return content[1] and { content = content } or nil
end

-- What the prompt was blocked for, nil when it was not.
function M.blocked(body)
    local feedback = object(body.promptFeedback)
    local reason = feedback and word(feedback.blockReason)
    if not reason or reason == "BLOCK_REASON_UNSPECIFIED" then return nil end
    return feedback, word(feedback.blockReasonMessage)
end

local function read_candidate(candidate, cx)
    local out, ids = { parts = {} }, parts.ids(cx)
    local given = list(members(candidate.content).parts)
    for i = 1, #given do parts.read(given[i], ids, out.parts, cx) end
    local texts, owners, calls = {}, {}, false
    for _, part in ipairs(out.parts) do
        if part.kind == "text" then
            texts[#texts + 1] = part.text
            owners[#owners + 1] = part
        end
        calls = calls or part.kind == "call"
    end
    for _, one in ipairs(grounding.read(candidate, texts)) do
        local part = owners[one.at]
        part.citations = part.citations or {}
        table.insert(part.citations, one.citation)
    end
    out.stop = M.stop(candidate.finishReason, calls)
    out.logprobs = M.read_logprobs(candidate.logprobsResult)
    if #list(candidate.safetyRatings) > 0 then out.filter = { safetyRatings = candidate.safetyRatings } end
    return out
end

function M.read(body, cx)
    if not object(body) then return nil, "the upstream's answer is no object" end
    if object(body.error) then
        local err = errors.find(body)
        return { parts = {}, stop = "error", error = err }
    end
    local candidates, feedback, words = list(body.candidates), M.blocked(body)
    local out
    if object(candidates[1]) then
        out = read_candidate(candidates[1], cx)
        if object(candidates[2]) then
            out.choices = {}
            for i = 1, #candidates do
                if object(candidates[i]) then
                    out.choices[#out.choices + 1] = i == 1 and { parts = out.parts, stop = out.stop,
                        logprobs = out.logprobs } or read_candidate(candidates[i], cx)
                end
            end
        end
    elseif feedback then
        out = { parts = {}, stop = "filter", filter = feedback }
        if words then out.parts[1] = { kind = "refusal", text = words } end
    else
        return nil, "no candidates in the upstream's answer"
    end
    if out.stop == "error" then out.error = M.unfinished(candidates[1]) end
    out.id, out.model = word(body.responseId), word(body.modelVersion)
    out.usage = M.read_usage(body.usageMetadata)
    return out
end

-- ---- writing

local FINISH = { length = "MAX_TOKENS", context = "MAX_TOKENS", filter = "SAFETY", refusal = "SAFETY", error = "OTHER" }

function M.finish(stop)
    return FINISH[stop] or "STOP"
end

local function modalities(text, audio)
    if not audio or audio == 0 then return nil end
    return { { modality = "TEXT", tokenCount = math.max(text - audio, 0) }, { modality = "AUDIO", tokenCount = audio } }
end

function M.write_usage(u)
    local input, output = u.input or 0, u.output or 0
    local reasoning = math.min(u.reasoning or 0, output)
    return { promptTokenCount = input, candidatesTokenCount = output - reasoning,
        thoughtsTokenCount = reasoning > 0 and reasoning or nil, totalTokenCount = input + output,
        cachedContentTokenCount = (u.cached or 0) > 0 and u.cached or nil,
        promptTokensDetails = modalities(input, u.audio_input),
        candidatesTokensDetails = modalities(output - reasoning, u.audio_output) }
end

local function write_token(one)
    return { token = fields.text(one.token), logProbability = number(one.logprob) }
end

-- OpenAI's logprobs as logprobsResult.
function M.write_logprobs(given)
    local content = list(members(given).content)
    if #content == 0 then return nil end
    local chosen, top = json.array(), json.array()
    for i = 1, #content do
        local one = members(content[i])
        local others, all = list(one.top_logprobs), json.array()
        for j = 1, #others do all[j] = write_token(members(others[j])) end
        chosen[i], top[i] = write_token(one), { candidates = all }
    end
    return { chosenCandidates = chosen, topCandidates = top }
end

local function write_candidate(choice, index, cx)
    local cited, at = {}, -1
    for _, part in ipairs(choice.parts or {}) do
        if part.kind == "text" and part.text ~= "" then
            at = at + 1
            for _, citation in ipairs(part.citations or {}) do
                cited[#cited + 1] = { text = part.text, part = at, citation = citation }
            end
        elseif part.kind ~= "text" and contents.has_form(part) then
            at = at + 1
        end
    end
    return { content = { role = "model", parts = contents.answer(choice.parts, cx) }, index = index,
        finishReason = M.finish(choice.stop), groundingMetadata = grounding.write(cited),
        logprobsResult = M.write_logprobs(choice.logprobs) }
end

function M.write(answer, cx)
    if answer.error then return errors.write(answer.error) end
    local out = { responseId = answer.id or cx.id(""), modelVersion = answer.model or cx.model,
        candidates = json.array(), usageMetadata = answer.usage and M.write_usage(answer.usage) }
    for i, choice in ipairs(answer.choices or { answer }) do
        out.candidates[i] = write_candidate(choice, i - 1, cx)
    end
    return out
end

return M
