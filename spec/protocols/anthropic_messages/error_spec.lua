local messages = require("claw.protocols.anthropic_messages")
local context = require("support.context")
local json = require("claw.json")

describe("anthropic_messages errors", function()
    it("are read", function()
        local function read(status, body) return messages.read_error(status, body, context.new()) end
        assert.same({ status = 401, kind = "authentication", code = "authentication_error", message = "invalid x-api-key" },
            read(401, '{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}'))
        assert.equal("context_window", read(400,
            '{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 > 8"}}').kind)
        assert.equal("overloaded", read(529, '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}').kind)
        assert.equal("gone", read(404, '{"message":"gone"}').message)
        assert.equal("no", read(500, '{"error":"no"}').message)
        for _, body in ipairs({ "", "null", "[]", "{}", "3", "<html>", '{"error":[]}' }) do assert.is_string(read(500, body).message) end
    end)

    it("are written by kind", function()
        local types = { invalid_request = "invalid_request_error", authentication = "authentication_error", permission = "permission_error",
            not_found = "not_found_error", too_large = "request_too_large", rate_limit = "rate_limit_error", billing = "billing_error",
            overloaded = "overloaded_error", timeout = "timeout_error", server = "api_error", context_window = "invalid_request_error",
            content_policy = "invalid_request_error" }
        for kind, name in pairs(types) do
            local body = json.decode(json.encode(messages.write_error({ kind = kind, message = "m" })))
            assert.equal("error", body.type)
            assert.equal(name, body.error.type)
        end
        assert.equal("prompt is too long: m", messages.write_error({ kind = "context_window", message = "m" }).error.message)
        assert.equal("error", messages.write_error_event({ kind = "server", message = "m" }).type)
    end)
end)
