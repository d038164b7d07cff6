-- keyword_routing: words in the last message decide who answers: "billing" goes to the strong model, the rest does not.
--
-- In openclaw.yaml (a rule's `to` is one of the route's upstreams; the first rule that fits wins):
--
--     routes:
--       - match: { path: "/v1/chat/completions" }
--         strategy: { type: failover, upstreams: [cheap, strong] }
--         policies: [keyword_routing]
--     policies:
--       settings:
--         keyword_routing:
--           rules:
--             - { words: [billing, invoice, "credit note"], to: strong }
local P = { name = "keyword_routing", api = 1 }

local settings = {
    rules = {}, -- { words = { … }, to = upstream }; whole words, whatever their case
}

function P.init(conf)
    local given = conf.policies and conf.policies.settings and conf.policies.settings.keyword_routing
    for key, value in pairs(given or {}) do settings[key] = value end
    for i, rule in ipairs(settings.rules) do
        if type(rule.words) ~= "table" or type(rule.to) ~= "string" then
            error(("rules[%d] wants words and to"):format(i), 0)
        end
    end
end

-- The text of a message: a string, or the text parts of a list.
local function text_of(content)
    if type(content) == "string" then return content end
    local out = {}
    if claw.doc.type(content) == "array" then
        for _, part in content:each() do
            if claw.doc.type(part) == "object" and type(part.text) == "string" then out[#out + 1] = part.text end
        end
    end
    return table.concat(out, "\n")
end

local function contains(text, word)
    word = word:lower():gsub("%p", "%%%0")
    return text:find("%f[%w]" .. word .. "%f[%W]") ~= nil
end

function P.route(req, candidates)
    local text = req.body and text_of(claw.doc.get(req.body, "messages[-1].content")):lower() or ""
    for _, rule in ipairs(settings.rules) do
        for _, word in ipairs(rule.words) do
            if contains(text, word) then
                for _, c in ipairs(candidates) do
                    if c.name == rule.to then return rule.to end -- goes first; the others stay behind it
                end
            end
        end
    end
    return nil
end

return P
