-- wording: the fields of the vocabulary by their paths in a generateContent body, as its client spelt them.

local fields = require("claw.protocols.fields")
local spelling = require("claw.protocols.gemini.spelling")
local wording = require("claw.protocols.wording")

local get, list, object = spelling.get, fields.list, fields.object

-- A path by the spelling that the body has, as far as it is there.
local function spelt(body, path)
    local out, at = {}, body
    for step in path:gmatch("[^.]+") do
        local name, place = step:match("^([^%[]*)(.*)$")
        local here, snake = object(at), spelling.snake(name)
        local as = here and here[name] == nil and here[snake] ~= nil and snake or name
        out[#out + 1], at = as .. place, here and here[as]
        if place ~= "" then at = list(at)[(tonumber(place:match("%d+")) or -1) + 1] end
    end
    return table.concat(out, ".")
end

local FORMAT = { "responseJsonSchema", "_responseJsonSchema", "responseSchema", "responseMimeType" }

local function format(body)
    local config = object(get(body, "generationConfig"))
    for _, name in ipairs(FORMAT) do
        if config and get(config, name) ~= nil then return spelt(body, "generationConfig." .. name) end
    end
    return "generationConfig.responseMimeType"
end

-- Media are told by what holds them; when both are there, either can be the one.
local function media(body)
    local found, contents = nil, list(get(body, "contents"))
    for i = 1, #contents do
        local parts = list(get(fields.fields(contents[i]), "parts"))
        for j = 1, #parts do
            local part = fields.fields(parts[j])
            for _, name in ipairs({ "inlineData", "fileData" }) do
                if get(part, name) ~= nil then
                    if found and found ~= name then return "contents.parts" end
                    found = name
                end
            end
        end
    end
    return "contents.parts" .. (found and "." .. found or "")
end

-- What stands among the turns, but is a field of its own.
local function place(body, more)
    if more:find("^%.cachedContent") or more:find("^%.generationConfig%.") then return spelt(body, more:sub(2)) end
    return "contents.parts" .. more
end

local M = { messages = "contents", ["messages.content"] = place, system = "systemInstruction.parts",
    ["messages.tool_call_id"] = "contents.parts.functionResponse.id",
    ["messages.prefill"] = wording.last("contents"), ["messages.system"] = wording.late_system("contents"),
    response_format = format }

for _, kind in ipairs({ "image", "audio", "video", "document" }) do M["messages.content." .. kind] = media end

for name, path in pairs({ temperature = "generationConfig.temperature", top_p = "generationConfig.topP",
    top_k = "generationConfig.topK", max_tokens = "generationConfig.maxOutputTokens",
    n = "generationConfig.candidateCount", seed = "generationConfig.seed",
    presence_penalty = "generationConfig.presencePenalty", frequency_penalty = "generationConfig.frequencyPenalty",
    logprobs = "generationConfig.responseLogprobs", top_logprobs = "generationConfig.logprobs",
    stop = "generationConfig.stopSequences", stop_sequences = "generationConfig.stopSequences",
    reasoning = "generationConfig.thinkingConfig", reasoning_effort = "generationConfig.thinkingConfig",
    tool_choice = "toolConfig.functionCallingConfig" }) do
    M[name] = function(body) return spelt(body, path) end
end

-- Fields that only Google has are known by their camelCase names.
for _, head in ipairs({ "generationConfig", "toolConfig" }) do
    M[head] = function(body, more) return spelt(body, head .. more) end
end

-- Any other field, too.
return setmetatable(M, { __index = function(_, name)
    if not name:find("%l%u") or name:find("^messages%.") or name:find("^system%.") then return nil end
    return function(body, more) return spelt(body, name .. more) end
end })
