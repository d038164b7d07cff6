local testing = require("openclaw.testing")

local p = testing.load("policies/language_routing.lua", { conf = { policies = { settings = { language_routing = {
    to = { de = "european", ja = "asian", zh = "asian" } } } } } })

local function language(content)
    local req = testing.request({ body = { messages = { { role = "user", content = content } } } })
    local result = p:run("route", req, { "general", "european", "asian" })
    return p:run("log", req).fields.language, result.names[1]
end

describe("policies/language_routing", function()
    for text, expected in pairs({
        ["Wie kann ich das Passwort ändern und wo ist der Knopf?"] = "de", ["What is the best way to do this?"] = "en",
        ["Quelle est la capitale pour les enfants dans une ville"] = "fr", ["¿Cómo es una casa para los que viven con el río?"] = "es",
        ["Non so come si dice che il cane è bello"] = "it", ["Não sei como você faz isso com os amigos"] = "pt",
        ["Ik weet niet wat het is van een kat"] = "nl", ["Привет, как дела"] = "ru", ["你好，世界"] = "zh",
        ["こんにちは世界"] = "ja", ["안녕하세요"] = "ko", ["مرحبا بالعالم"] = "ar", ["Γειά σου"] = "el",
    }) do
        it("hears " .. expected, function() assert.equal(expected, (language(text))) end)
    end

    it("sends to who speaks it", function()
        assert.equal("european", select(2, language("Das ist nicht der Weg")))
        assert.equal("asian", select(2, language("你好，世界")))
        assert.equal("general", select(2, language("What is the way")))
    end)

    it("does not guess from nothing", function()
        assert.is_nil((language("OK 123")))
        assert.is_nil((language("👍👍👍")))
        assert.is_nil((language({ { type = "image_url" } })))
        assert.equal("general", select(2, language(testing.null)))
    end)
end)
