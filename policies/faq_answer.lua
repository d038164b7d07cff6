-- faq_answer: questions that are asked again and again get their stored answer at once; no upstream is asked.
--
-- A question is compared by its words: one that is close enough to a stored one gets that one's answer, in the dialect
-- and as the stream that the client asked for. In openclaw.yaml:
--
--     policies:
--       always: [faq_answer]
--       settings:
--         faq_answer:
--           pairs:
--             - { question: "What are your opening hours?", answer: "Monday to Friday, 9 to 17." }
--
-- The pairs lie in claw.store as JSON, for all policies (shared) under "faq": one that sets them there changes them.
local P = { name = "faq_answer", api = 1 }

local settings = {
    min_likeness = 0.75, -- 1: the same words
    max_words = 30,      -- a longer question wants more than a stored answer
    pairs = {},          -- { question = …, answer = … }
    ignore = "a an and are can do does for from how i in is it me my of on or our the to we what when where you your",
}
local ignored, known, known_text = {}, {}, nil -- words that say nothing; what is stored, and the text it was read from
-- The set of a text's words and their number: case, punctuation and a plural's s do not matter.
local function words_of(text)
    local set, n = {}, 0
    for word in text:lower():gmatch("[%w\128-\255]+") do
        local plain = #word > 3 and word:gsub("s$", "") or word
        if not ignored[word] and not set[plain] then set[plain], n = true, n + 1 end
    end
    return set, n
end

-- The cosine between two sets of words.
local function likeness(a, n, b, m)
    local both = 0
    for word in pairs(a) do both = both + (b[word] and 1 or 0) end
    return n * m > 0 and both / math.sqrt(n * m) or 0
end

-- Read anew only when it has changed.
local function stored()
    local text = claw.store.get("faq", { shared = true }) or claw.json.encode(claw.json.array(settings.pairs))
    if text == known_text then return known end
    known, known_text = {}, text
    for _, pair in ipairs(claw.json.decode(text) or {}) do
        known[#known + 1] = { answer = tostring(pair.answer), words = { words_of(tostring(pair.question)) } }
    end
    return known
end

function P.init(conf)
    local given = conf.policies and conf.policies.settings and conf.policies.settings.faq_answer
    for key, value in pairs(given or {}) do settings[key] = value end
    for word in settings.ignore:gmatch("%S+") do ignored[word] = true end
    if settings.pairs[1] then claw.store.set("faq", claw.json.encode(settings.pairs), { shared = true }) end
end

-- The one question of a conversation that begins; what builds on earlier turns, or wants JSON, is not for us.
local function question_of(body)
    if claw.doc.type(body) ~= "object" or claw.doc.type(body.messages) ~= "array" then return nil end
    local found
    for _, message in body.messages:each() do
        if claw.doc.type(message) ~= "object" or message.role == "assistant" then return nil end
        if message.role == "user" then found = message.content end
    end
    return type(found) == "string" and not body.response_format and found or nil
end

function P.admit(req)
    local set, n = words_of(question_of(req.body) or "")
    if n == 0 or n > settings.max_words then return nil end
    local best, answer = settings.min_likeness, nil
    for _, pair in ipairs(stored()) do
        local like = likeness(set, n, pair.words[1], pair.words[2])
        if like >= best then best, answer = like, pair.answer end
    end
    return answer and { say = answer } or nil
end

return P
