-- prompt_injection_guard: messages that try to talk the model out of its instructions are refused, or only logged.
--
-- In openclaw.yaml:
--
--     policies:
--       always: [prompt_injection_guard]
--       settings:
--         prompt_injection_guard: { action: log }   # first look at what it would refuse; then: deny
--
-- It knows phrases, not meanings: a fence against the usual, not a proof. Each phrase has a weight; a message whose
-- phrases add up to `limit` is refused with 400 `prompt_injection`. What users and tools say is looked at, not what the
-- application says (system and developer turns). The score stands in the log as `injection_score`.
local P = { name = "prompt_injection_guard", api = 1 }

local settings = {
    action = "deny", -- or "log"
    limit = 3,
    bytes = 20000,   -- of one message that are looked at
}
-- Lua patterns over lower-case text with single spaces, and their weights.
local PHRASES = {
    { "ignore [%l ]*previous [%l ]*instructions", 3 }, { "ignore [%l ]*above [%l ]*instructions", 3 },
    { "disregard [%l ]*instructions", 3 }, { "forget [%l ]*instructions", 3 },
    { "reveal [%l ]*system prompt", 3 }, { "print [%l ]*system prompt", 2 }, { "repeat [%l ]*words above", 2 },
    { "you are now [%l ]*dan", 3 }, { "do anything now", 2 }, { "developer mode", 2 }, { "jailbreak", 2 },
    { "pretend [%l ]*no restrictions", 2 }, { "without any restrictions", 1 }, { "you have no rules", 2 },
    { "<%|im_start%|>", 3 }, { "%[inst%]", 2 }, { "### ?system", 2 }, { "new instructions:", 2 },
}
local LOOKED_AT = { user = true, tool = true, ["function"] = true }

function P.init(conf)
    local given = conf.policies and conf.policies.settings and conf.policies.settings.prompt_injection_guard
    for key, value in pairs(given or {}) do settings[key] = value end
    if settings.action ~= "deny" and settings.action ~= "log" then error("action must be deny or log", 0) end
end

local function score(text)
    local sum = 0
    text = text:sub(1, settings.bytes):lower():gsub("%s+", " ")
    for _, phrase in ipairs(PHRASES) do
        if text:find(phrase[1]) then sum = sum + phrase[2] end
    end
    return sum
end

local function worst(messages)
    local most = 0
    local function look(text)
        if type(text) == "string" then most = math.max(most, score(text)) end
    end
    for _, message in messages:each() do
        if claw.doc.type(message) == "object" and LOOKED_AT[message.role] then
            look(message.content)
            if claw.doc.type(message.content) == "array" then
                for _, part in message.content:each() do look(claw.doc.type(part) == "object" and part.text) end
            end
        end
    end
    return most
end

function P.admit(req)
    if claw.doc.type(req.body) ~= "object" or claw.doc.type(req.body.messages) ~= "array" then return nil end
    local points = worst(req.body.messages)
    claw.state(req).score = points
    if points < settings.limit or settings.action ~= "deny" then return nil end
    return { deny = 400, code = "prompt_injection", message = "The request was refused by the prompt guard" }
end

function P.log(req)
    local points = claw.state(req).score or 0
    return points > 0 and { injection_score = points } or nil
end

return P
