local context = require("support.context")
local gemini = require("claw.protocols.gemini")

local function read(status, body)
    return gemini.read_error(status, body, context.new())
end

describe("an error of Gemini's", function()
    it("is known by status, reason and words", function()
        local function kind(status, name, message, reason)
            return read(status, ('{"error":{"code":%d,"status":"%s","message":"%s","details":'
                .. '[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"%s"}]}}')
                :format(status, name, message or "m", reason or "")).kind
        end
        assert.equal("invalid_request", kind(400, "INVALID_ARGUMENT"))
        assert.equal("authentication", kind(400, "INVALID_ARGUMENT", "API key not valid.", "API_KEY_INVALID"))
        assert.equal("context_window", kind(400, "INVALID_ARGUMENT", "The input token count (5) exceeds the maximum number of tokens allowed (4)."))
        assert.equal("permission", kind(403, "PERMISSION_DENIED"))
        assert.equal("rate_limit", kind(429, "RESOURCE_EXHAUSTED"))
        assert.equal("server", kind(500, "INTERNAL"))
        assert.equal("overloaded", kind(503, "UNAVAILABLE"))
        assert.equal("timeout", kind(504, "DEADLINE_EXCEEDED"))
    end)

    it("says when to come again, also in a list", function()
        local err = read(429, '[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":'
            .. '[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"48.5s"}]}}]')
        assert.equal(48.5, err.retry_after)
        assert.equal("48.5s", gemini.write_error(err).error.details[1].retryDelay)
    end)

    it("is read from any text", function()
        for _, body in ipairs({ "", "<html>", "[]", "{}", '{"error":"x"}', '[{"error":[]}]', '{"error":{"details":[1,{"@type":2}]}}' }) do
            local err = read(502, body)
            assert.equal(502, err.status)
            assert.is_string(err.kind)
            assert.is_string(err.message)
        end
        assert.is_nil(read(400, '{"error":{"message":"key AIzaSyD-1234567890 bad","status":"INVALID_ARGUMENT"}}').message:find("1234567890", 1, true))
    end)

    it("is written with Google's word for it", function()
        local body = gemini.write_error({ status = 404, kind = "not_found", message = "no such model", code = "model_not_found" })
        assert.same({ code = 404, status = "NOT_FOUND", message = "no such model",
            details = { { ["@type"] = "type.googleapis.com/google.rpc.ErrorInfo", reason = "model_not_found" } } }, { code = body.error.code,
            status = body.error.status, message = body.error.message, details = { body.error.details[1] } })
        assert.is_nil(gemini.write_error_event({ kind = "server", message = "m", status = 500 }).type)
    end)
end)
