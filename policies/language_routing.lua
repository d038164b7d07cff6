-- language_routing: a message in German goes to the model that speaks it best.
--
-- In openclaw.yaml (a language that is not listed leaves the strategy's order):
--
--     routes:
--       - match: { path: "/v1/chat/completions" }
--         strategy: { type: failover, upstreams: [general, european, asian] }
--         policies: [language_routing]
--     policies:
--       settings:
--         language_routing:
--           to: { de: european, fr: european, zh: asian, ja: asian }
--
-- The guess is rough, and fast: by script where that tells (zh ja ko ru ar el), else by small words (en de fr es it pt
-- nl). It is logged as `language`.
local P = { name = "language_routing", api = 1 }

local settings = { to = {}, least = 2 } -- language = upstream; words or characters before a language is believed
local WORDS = {
    en = " the and is of to what how you for with ", de = " der die das und ist nicht ein wie ich mit für auf ",
    fr = " le la les et est une pas que vous pour dans ", es = " el los que es una por para como con del ",
    it = " il che è una per non come sono di gli ", pt = " o que é uma para não com os como você ",
    nl = " de het een en is niet van ik je met ",
}
-- First code points of scripts, in ascending order; what is below the first is Latin.
local SCRIPTS = { { 0x370, "el" }, { 0x400, "ru" }, { 0x530 }, { 0x600, "ar" }, { 0x780 }, { 0x3040, "ja" },
    { 0x3100, "zh" }, { 0xa000 }, { 0xac00, "ko" }, { 0xd7b0 } }

function P.init(conf)
    local given = conf.policies and conf.policies.settings and conf.policies.settings.language_routing
    for key, value in pairs(given or {}) do settings[key] = value end
end

local function script_of(character) -- its UTF-8 bytes
    local a, b, c = character:byte(1, 3)
    local code = c and (a - 0xe0) * 4096 + (b - 0x80) * 64 + c - 0x80 or (a - 0xc0) * 64 + b - 0x80
    for i = #SCRIPTS, 1, -1 do
        if code >= SCRIPTS[i][1] then return SCRIPTS[i][2] end
    end
end

local function best(counts)
    local name, most = nil, settings.least - 1
    for language, n in pairs(counts) do
        if n >= most then name, most = n > most and language or nil, n end -- of two alike, neither
    end
    return name
end

local function language_of(text)
    local scripts, words = {}, {}
    for character in text:gmatch("[\195-\239][\128-\191]+") do
        local script = script_of(character) or "other"
        scripts[script] = (scripts[script] or 0) + 1
    end
    scripts.other = nil
    if scripts.ja then return "ja" end -- Japanese is written with Chinese characters too
    for word in text:gmatch("[%w\128-\255]+") do
        for language, list in pairs(WORDS) do
            if list:find(" " .. word .. " ", 1, true) then words[language] = (words[language] or 0) + 1 end
        end
    end
    return best(scripts) or best(words)
end

function P.route(req, candidates)
    local text = req.body and claw.doc.get(req.body, "messages[-1].content")
    local language = type(text) == "string" and language_of(text:sub(1, 2000):lower()) or nil
    claw.state(req).language = language
    for _, c in ipairs(candidates) do
        if c.name == settings.to[language] then return c.name end
    end
    return nil
end

function P.log(req)
    return { language = claw.state(req).language }
end

return P
