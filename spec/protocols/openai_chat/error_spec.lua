local chat = require("claw.protocols.openai_chat")
local context = require("support.context")
local json = require("claw.json")

local function read(status, body)
    return chat.read_error(status, body, context.new())
end

describe("openai_chat errors", function()
    it("are read in every spelling", function()
        assert.same({ status = 400, kind = "context_window", code = "context_length_exceeded", param = "messages", message = "too long" },
            read(400, '{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}'))
        assert.equal("billing", read(429, '{"error":{"message":"x","type":"insufficient_quota","code":"insufficient_quota"}}').kind)
        assert.equal("no credits", read(402, '{"error":"no credits"}').message)
        assert.equal("Service unavailable.", read(500, '{"object":"error","message":"Service unavailable.","code":"3000"}').message)
        assert.equal("body.tools.0: wrong", read(422, '{"detail":[{"loc":["body","tools",0],"msg":"wrong"}]}').message)
        assert.equal("gone", read(404, '{"detail":"gone"}').message)
        assert.equal("quota", read(429, '[{"error":{"code":429,"message":"quota","status":"RESOURCE_EXHAUSTED"}}]').message)
        assert.equal("the upstream answered 503", read(503, "<html>").message)
        assert.equal("the upstream answered with an error", read(500, '{"error":{"code":null}}').message)
        for _, body in ipairs({ "", "null", "[]", "{}", "3", '{"error":null}', '{"error":[]}' }) do
            assert.is_string(read(500, body).message)
        end
        assert.is_string(read(500, nil).message)
    end)

    it("are written with type and code", function()
        local function written(err) return json.decode(json.encode(chat.write_error(err))).error end
        assert.same({ message = "m", type = "rate_limit_error", code = "rate_limit_exceeded", param = json.null },
            written({ kind = "rate_limit", message = "m", code = "rate_limit_error" }))
        assert.equal("context_length_exceeded", written({ kind = "context_window", message = "m" }).code)
        assert.equal("tool_use_failed", written({ kind = "invalid_request", message = "m", code = "tool_use_failed" }).code)
        assert.equal("authentication_error", written({ kind = "authentication", message = "m" }).type)
        assert.equal("p", written({ kind = "invalid_request", message = "m", param = "p" }).param)
        assert.equal("server_error", written({ kind = "overloaded", message = "m" }).type)
        assert.is_nil(chat.write_error_event({ kind = "server", message = "m" }).type)
    end)
end)
