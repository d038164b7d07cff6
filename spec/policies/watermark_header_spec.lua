local testing = require("openclaw.testing")

local function load(settings)
    return testing.load("policies/watermark_header.lua", { conf = { policies = { settings = { watermark_header = settings } } } })
end

local function request(model)
    return testing.request({ id = "r1", body = { model = "asked" }, upstream = { name = "u", model = model or "m-1" } })
end

describe("policies/watermark_header", function()
    it("marks a whole answer", function()
        local result = load():run("response", request(), { choices = {} })
        assert.same({ ["x-ai-generated"] = "m-1" }, result.answer.headers)
        assert.is_false(result.changed)
    end)

    it("marks a stream with its first event, and lets the events be", function()
        local p, req = load({ header = "X-Mark", value = "{model} by {upstream}, {id} {what}" }), request()
        local events = p:stream(req, { testing.chunk("a"), testing.chunk("b"), "data: [DONE]" })
        assert.equal("ab", testing.content(events))
        assert.same({ ["x-mark"] = "m-1 by u, r1 {what}" }, p:run("event", req, testing.chunk("c")).answer.headers)
    end)

    it("writes nothing a client could break out with", function()
        local function mark(model) return load():run("response", request(model), {}).answer.headers["x-ai-generated"] end
        assert.equal("a??b?", mark("a\r\nb\255"))
        assert.equal(256, #mark(("m"):rep(9000)))
    end)
end)
