local cjson = require("cjson")
local envelope = require("claw.envelope")

describe("claw.envelope", function()
    it("speaks OpenAI by default", function()
        assert.same({ error = { message = "no", type = "permission_error", code = "blocked", param = cjson.null } },
            cjson.decode(envelope.body("/v1/chat/completions", 403, "blocked", "no")))
        assert.equal("api_error", cjson.decode(envelope.body("/x", 500, "c", "m")).error.type)
        assert.equal("invalid_request_error", cjson.decode(envelope.body("/x", 451, "c", "m")).error.type)
    end)

    it("speaks Anthropic and Gemini on their paths", function()
        assert.same({ type = "error", error = { type = "rate_limit_error", message = "slow" } },
            cjson.decode(envelope.body("/v1/messages", 429, "c", "slow")))
        assert.same({ error = { code = 403, message = "no", status = "PERMISSION_DENIED" } },
            cjson.decode(envelope.body("/v1beta/models/g:generateContent", 403, "c", "no")))
    end)

    it("escapes", function()
        assert.equal('a"\n', cjson.decode(envelope.body("/x", 400, "c", 'a"\n')).error.message)
    end)
end)
