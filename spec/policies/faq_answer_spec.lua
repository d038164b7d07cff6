local json = require("claw.json")
local testing = require("openclaw.testing")

local PAIRS = {
    { question = "What are your opening hours?", answer = "9 to 17." },
    { question = "How do I reset my password?", answer = "Under Settings." },
    { question = "Wie ändere ich mein Passwort?", answer = "Unter Einstellungen." },
}

local function load(settings, store)
    settings = settings or { pairs = PAIRS }
    return testing.load("policies/faq_answer.lua", { store = store, conf = { policies = { settings = { faq_answer = settings } } } })
end

local function asking(content, more)
    local body = { model = "m", messages = { { role = "user", content = content } } }
    for key, value in pairs(more or {}) do body[key] = value end
    return testing.request({ id = "r1", body = body })
end

local function answer(p, req)
    local answered = p:run("admit", req).answered
    return answered and answered.json.choices[1].message.content
end

describe("policies/faq_answer", function()
    before_each(testing.reset)

    for question, expected in pairs({
        ["What are your opening hours?"] = "9 to 17.", ["opening hour"] = "9 to 17.", ["Your OPENING hours, please!"] = "9 to 17.",
        ["How can I reset the passwords?"] = "Under Settings.", ["wie ändere ich mein passwort"] = "Unter Einstellungen.",
    }) do
        it("answers " .. question, function() assert.equal(expected, answer(load(), asking(question))) end)
    end

    for _, question in ipairs({
        "How do I delete my account?", "What is it?", "", "password", "What are hours?", "Reset the router of my house to its defaults",
    }) do
        it("leaves alone: " .. question, function() assert.is_nil(answer(load(), asking(question))) end)
    end

    it("answers in the client's dialect, and as a stream", function()
        local p = load()
        local answered = p:run("admit", asking("opening hours", { stream = true })).answered
        assert.equal("text/event-stream", answered.content_type)
        assert.equal("9 to 17.", testing.content(answered.events))
        assert.equal("[DONE]", answered.events[#answered.events].data)
        local req = testing.request({ path = "/v1/messages", body = { model = "c", messages = { { role = "user", content = "opening hours" } } } })
        assert.same({ { type = "text", text = "9 to 17." } }, p:run("admit", req).answered.json.content)
    end)

    it("leaves alone what goes on from an answer, wants JSON, or is no question", function()
        local p = load()
        local later = { { role = "user", content = "hi" }, { role = "assistant", content = "hi" }, { role = "user", content = "opening hours" } }
        assert.is_nil(answer(p, asking(nil, { messages = later })))
        assert.is_nil(answer(p, asking("opening hours", { response_format = { type = "json_object" } })))
        assert.is_nil(answer(p, asking({ { type = "text", text = "opening hours" } })))
        local strict = load({ pairs = PAIRS, max_words = 2 })
        assert.equal("9 to 17.", answer(strict, asking("opening hours")))
        assert.is_nil(answer(strict, asking("opening hours today")))
        for _, body in ipairs({ "[1]", "5", '{"messages":5}', '{"messages":[1]}' }) do
            assert.is_nil(answer(p, testing.request({ body = body })))
        end
        assert.is_nil(answer(p, testing.request({ method = "GET", path = "/v1/models" })))
    end)

    it("is as strict as it is told", function()
        assert.equal("9 to 17.", answer(load({ pairs = PAIRS, min_likeness = 0.7 }), asking("What are hours?")))
        assert.is_nil(answer(load({ pairs = PAIRS, min_likeness = 0.9 }), asking("opening hours today")))
    end)

    it("reads the pairs from the store, whoever put them there", function()
        local store = testing.store()
        local p = load({}, store)
        assert.is_nil(answer(p, asking("opening hours")))
        local writer = testing.load("policies/writer.lua", { store = store, source = [[
            local P = { api = 1 }
            function P.admit(req) claw.store.set("faq", req.client.headers.faq, { shared = true }) end
            return P]] })
        local text = json.encode({ { question = "Opening hours", answer = "Never." } })
        writer:run("admit", testing.request({ headers = { faq = text } }))
        assert.equal("Never.", answer(p, asking("opening hours")))
    end)
end)
