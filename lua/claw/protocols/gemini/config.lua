-- config: generationConfig, both ways.

local fields = require("claw.protocols.fields")
local json = require("claw.json")
local models = require("claw.protocols.gemini.models")
local schema = require("claw.protocols.gemini.schema")
local spelling = require("claw.protocols.gemini.spelling")

local M = {}

local word, number, count, flag, object = fields.word, fields.number, fields.count, fields.flag, fields.object
local get = spelling.get

-- What is spelt alike but for the name: { Google's, ours, its type }.
local PLAIN = {
    { "temperature", "temperature", number }, { "topP", "top_p", number }, { "topK", "top_k", number },
    { "maxOutputTokens", "max_tokens", count }, { "candidateCount", "n", count }, { "seed", "seed", number },
    { "presencePenalty", "presence_penalty", number }, { "frequencyPenalty", "frequency_penalty", number },
    { "responseLogprobs", "logprobs", flag }, { "logprobs", "top_logprobs", count },
}

-- ---- reading

local KNOWN = { stopSequences = true, thinkingConfig = true, responseMimeType = true, responseSchema = true,
    responseJsonSchema = true, responseModalities = true }
for _, row in ipairs(PLAIN) do KNOWN[row[1]] = true end
KNOWN._responseJsonSchema = true

local function read_format(config, r, cx)
    local kind = (word(get(config, "responseMimeType")) or ""):lower()
    local asked = object(get(config, "responseJsonSchema")) or object(config._responseJsonSchema)
        or schema.read(get(config, "responseSchema"), cx)
    if asked and kind ~= "text/plain" then
        if kind == "text/x.enum" then cx.drop("generationConfig.responseMimeType", "schema", "enumerations as text") end
        r.format = { kind = "schema", name = "response", schema = asked }
    elseif kind == "application/json" then
        r.format = { kind = "json" }
    end
end

local LEVEL = { minimal = "minimal", low = "low", medium = "medium", high = "high" }

local function read_thinking(config, r)
    local asked = object(get(config, "thinkingConfig"))
    if not asked then return end
    local budget = number(get(asked, "thinkingBudget"))
    r.reasoning = { effort = LEVEL[(word(get(asked, "thinkingLevel")) or ""):lower()],
        budget = budget and budget > 0 and budget or nil, off = budget == 0 or nil,
        show = flag(get(asked, "includeThoughts")) }
    if not next(r.reasoning) and budget ~= -1 then r.reasoning = nil end -- -1: as it sees fit
end

-- Other things to answer with than text: an upstream that only has text cannot do what is asked.
local function read_modalities(config, parts)
    local asked = fields.list(get(config, "responseModalities"))
    for i = 1, #asked do
        if word(asked[i]) and asked[i]:upper() ~= "TEXT" then
            parts[#parts + 1] = { kind = "other", raw = get(config, "responseModalities"), origin = "gemini",
                what = "generationConfig.responseModalities" }
            return
        end
    end
end

-- parts: where what is content goes, for others to say that they cannot.
function M.read(config, r, parts, cx)
    if not object(config) then return end
    for _, row in ipairs(PLAIN) do r[row[2]] = row[3](get(config, row[1])) end
    local stops, out = fields.list(get(config, "stopSequences")), {}
    for i = 1, #stops do out[#out + 1] = word(stops[i]) end
    if out[1] then r.stop = out end
    read_format(config, r, cx)
    read_thinking(config, r)
    read_modalities(config, parts)
    for name, value in cx.each(config) do
        local camel = spelling.camel(name)
        if not KNOWN[camel] then r.rest["generationConfig." .. camel] = value end
    end
end

-- ---- writing

local BUDGET = { minimal = 512, low = 1024, medium = 8192, high = 24576, xhigh = 32768 }

local function write_level(asked, model)
    local effort = asked.effort
    if asked.off or effort == "none" or effort == "minimal" then
        return model:find("flash", 1, true) and "minimal" or "low"
    end
    if effort == "medium" and model:find("gemini%-3%-pro") then return "high" end -- it has low and high
    return effort == "xhigh" and "high" or effort
end

local function write_thinking(r, config, cx)
    local asked, model = r.reasoning, cx.model or ""
    if not asked then return end
    if not models.thinks(model) then
        if not asked.off and asked.effort ~= "none" then cx.drop("reasoning", "hint", "the model does not think") end
        return
    end
    local out = { includeThoughts = asked.show }
    if not asked.budget and models.third(model) then
        out.thinkingLevel = write_level(asked, model)
    elseif asked.off or asked.effort == "none" then
        out.thinkingBudget = model:find("pro", 1, true) and 128 or 0 -- Pro cannot but think
    elseif asked.budget or BUDGET[asked.effort] then
        local least, most = models.budgets(model)
        out.thinkingBudget = math.max(least, math.min(most, asked.budget or BUDGET[asked.effort]))
    elseif (models.generation(model) or 3) < 3 then
        out.thinkingBudget = -1 -- as it sees fit: Flash-Lite would not by itself
    end
    if next(out) then config.thinkingConfig = out end
end

local STOPS = 5

local function write_stop(r, config, cx)
    if not r.stop or not r.stop[1] then return end
    config.stopSequences = json.array()
    for i, text in ipairs(r.stop) do
        if i > STOPS then
            cx.drop("stop", "hint", "more than 5")
            break
        end
        config.stopSequences[i] = text
    end
end

-- What OpenAI's clients ask of models that make images: its own word for it, or nil.
function M.modalities(r)
    local asked, out = fields.list(r.dialect == "openai_chat" and r.rest and r.rest.modalities), json.array()
    for i = 1, #asked do
        if asked[i] ~= "text" and asked[i] ~= "image" then return nil end
        out[i] = asked[i]:upper()
    end
    return out[1] and out
end

-- The configuration of a request, nil when it says nothing.
function M.write(r, cx)
    local config = {}
    for _, row in ipairs(PLAIN) do config[row[1]] = r[row[2]] end
    if config.candidateCount == 1 then config.candidateCount = nil end
    if config.responseLogprobs ~= true then config.responseLogprobs, config.logprobs = nil, nil end
    write_stop(r, config, cx)
    if r.format then
        config.responseMimeType = "application/json"
        config.responseJsonSchema = r.format.schema
    end
    write_thinking(r, config, cx)
    config.responseModalities = M.modalities(r)
    for name, value in pairs(r.rest or {}) do
        local own = name:match("^generationConfig%.(.+)$")
        if own then config[own] = value end
    end
    return next(config) and config or nil
end

return M
