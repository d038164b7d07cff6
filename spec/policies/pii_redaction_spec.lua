local json = require("claw.json")
local testing = require("openclaw.testing")

local p = testing.load("policies/pii_redaction.lua")

local function send(content)
    local req = testing.request({ body = { messages = { { role = "user", content = content } } } })
    return req, p:run("request", req).json.messages[1].content
end

describe("policies/pii_redaction", function()
    for text, expected in pairs({
        ["Write to ann@example.org."] = "Write to <email_1>.", ["a@b.co, c@d.co, a@b.co"] = "<email_1>, <email_2>, <email_1>",
        ["Call +49 (30) 123-4567 now"] = "Call <phone_1> now", ["Card 4111 1111 1111 1111!"] = "Card <card_1>!",
        ["4111111111111112 is none"] = "4111111111111112 is none", ["in 2024-01-01 at 10 and 12345"] = "in 2024-01-01 at 10 and 12345",
        ["nothing"] = "nothing",
    }) do
        it("sends " .. expected, function() assert.equal(expected, select(2, send(text))) end)
    end

    it("looks into the parts of a message", function()
        local _, content = send({ { type = "text", text = "I am x@y.org" }, { type = "image_url", image_url = { url = "u" } } })
        assert.equal("I am <email_1>", content[1].text)
    end)

    it("restores a whole answer", function()
        local req = send("ann@example.org or +1 555 010 9999")
        local result = p:run("response", req, { choices = { { message = { content = "<phone_1>, <email_1>, <email_2>, <b>" } } } })
        assert.equal("+1 555 010 9999, ann@example.org, <email_2>, <b>", result.json.choices[1].message.content)
    end)

    it("restores a stream, wherever it is cut", function()
        local answer = "Dear <email_1>: a < b, <i>, <email_9> and <phone_1>."
        local expected = "Dear ann@example.org: a < b, <i>, <email_9> and +1 555 010 9999."
        for size = 1, 9 do
            local req, events = send("ann@example.org or +1 555 010 9999"), {}
            for at = 1, #answer, size do events[#events + 1] = testing.chunk(answer:sub(at, at + size - 1)) end
            events[#events + 1] = { data = { choices = { { index = 0, delta = {}, finish_reason = "stop" } } } }
            events[#events + 1] = { data = { choices = json.array(), usage = { total_tokens = 5 } } }
            events[#events + 1] = "data: [DONE]"
            local out = p:stream(req, events)
            assert.equal(expected, testing.content(out))
            assert.equal("[DONE]", out[#out].data)
            assert.equal('{"choices":[],"usage":{"total_tokens":5}}', out[#out - 1].data)
        end
    end)

    it("gives back at the end what looked like a beginning", function()
        local req = send("ann@example.org")
        local out = p:stream(req, { testing.chunk("1 <"), { data = { choices = { { index = 0, delta = {}, finish_reason = "stop" } } } } })
        assert.equal("1 <", testing.content(out))
    end)

    it("changes nothing when there was nothing", function()
        local req = send("hello")
        assert.is_false(p:run("response", req, { choices = { { message = { content = "<email_1>" } } } }).changed)
        assert.is_false(p:run("event", req, { data = testing.chunk("<email_1>").data }).changed)
        assert.is_false(p:run("request", testing.request({ body = { messages = { 1, "x", { content = { 5 } } } } })).changed)
        assert.is_false(p:run("request", testing.request({ body = { input = "ann@example.org" } })).changed)
        assert.is_false(p:run("response", req, "text").changed)
    end)
end)
