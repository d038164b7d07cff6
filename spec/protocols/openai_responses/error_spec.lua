local context = require("support.context")
local json = require("claw.json")
local responses = require("claw.protocols.openai_responses")

describe("an error of Responses'", function()
    it("is read and written as OpenAI's chat has it", function()
        local err = responses.read_error(400, '{"error":{"message":"m","type":"invalid_request_error",'
            .. '"param":"input","code":"context_length_exceeded"}}', context.new())
        assert.same({ "context_window", "input", 400 }, { err.kind, err.param, err.status })
        local body = responses.write_error(err).error
        assert.same({ "m", "input", "context_length_exceeded" }, { body.message, body.param, body.code })
        for _, text in ipairs({ "", "<html>", "[]", '{"error":[]}' }) do
            assert.equal(502, responses.read_error(502, text, context.new()).status)
        end
    end)

    it("is an event with the words at both places where clients look", function()
        local made = responses.write_error_event({ status = 429, kind = "rate_limit", message = "slow" }, context.new())
        local data = json.decode(made.data)
        assert.same({ "error", "error", "slow", "slow", 0 }, { made.type, data.type, data.message, data.error.message, data.sequence_number })
    end)
end)
