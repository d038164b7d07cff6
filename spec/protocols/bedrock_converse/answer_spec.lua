local bedrock = require("claw.protocols.bedrock_converse")
local context = require("support.context")
local rules = require("support.stream_rules")
local written = require("support.written")

local CLAUDE = { model = "us.anthropic.claude-sonnet-4-5-20250929-v1:0" }

local function read(text) return written.answer("bedrock_converse", text, CLAUDE) end

local function stream(list) return written.stream("bedrock_converse", list, CLAUDE) end

describe("an answer of Bedrock's", function()
    it("has reasoning, text, calls and citations", function()
        local a = read('{"output":{"message":{"content":[{"reasoningContent":{"reasoningText":{"text":"hm","signature":"S"}}},'
            .. '{"reasoningContent":{"redactedContent":"R"}},{"text":"so"},{"citationsContent":{"content":[{"text":"it"}],"citations":'
            .. '[{"title":"T","sourceContent":[{"text":"src"}]}]}},{"toolUse":{"toolUseId":"t","name":"f","input":{"z":[]}}},{"new":1}]}},'
            .. '"stopReason":"tool_use","usage":{"inputTokens":5,"outputTokens":6,"cacheReadInputTokens":7,"cacheWriteInputTokens":8}}')
        assert.same({ "hm", "S", "anthropic" }, { a.parts[1].text, a.parts[1].signature, a.parts[1].origin })
        assert.same({ "R", "so", "it", "T", "src" }, { a.parts[2].data, a.parts[3].text, a.parts[4].text, a.parts[4].citations[1].title,
            a.parts[4].citations[1].text })
        assert.same({ "t", "f", '{"z":[]}', "call" }, { a.parts[5].id, a.parts[5].name, tostring(a.parts[5].input), a.stop })
        assert.same({ input = 20, output = 6, cached = 7, cache_write = 8 }, a.usage)
        assert.is_nil(a.parts[6])
    end)

    it("stops for a reason", function()
        local function stop(reason)
            local a = read('{"output":{"message":{"content":[]}},"additionalModelResponseFields":{"stop_sequence":"x"},'
                .. '"stopReason":"' .. reason .. '"}')
            return a.stop, a.stop_text
        end
        local want = { end_turn = "end", tool_use = "call", max_tokens = "length", stop_sequence = "stop_sequence",
            guardrail_intervened = "filter", content_filtered = "filter", model_context_window_exceeded = "context", new = "end" }
        for reason, is in pairs(want) do assert.same({ is, "x" }, { stop(reason) }) end
    end)

    it("is none, or an error", function()
        for _, body in ipairs({ "{}", "[]", '{"output":5}', '{"output":{"message":[]}}' }) do
            local a, message = read(body)
            assert.is_nil(a)
            assert.is_string(message)
        end
        assert.equal("no", read('{"message":"no"}').error.message)
    end)
end)

describe("a stream of Bedrock's", function()
    local function delta(at, text) return { "contentBlockDelta", '{"contentBlockIndex":' .. at .. ',"delta":' .. text .. "}" } end
    local function stop(at) return { "contentBlockStop", '{"contentBlockIndex":' .. at .. "}" } end
    local START = { "messageStart", '{"role":"assistant"}' }

    it("has blocks one after the other, and counts behind the stop", function()
        local out = stream({ START, delta(0, '{"reasoningContent":{"text":"hm"}}'), delta(0, '{"reasoningContent":{"signature":"S"}}'), stop(0),
            delta(1, '{"text":"a"}'), stop(1), delta(2, '{"text":"b"}'), delta(2, '{"citation":{"title":"T"}}'), stop(2),
            { "contentBlockStart", '{"contentBlockIndex":3,"start":{"toolUse":{"toolUseId":"t","name":"f"}}}' },
            delta(3, '{"toolUse":{"input":"{\\"a\\":"}}'), delta(3, '{"toolUse":{"input":"1}"}}'), stop(3),
            { "messageStop", '{"stopReason":"tool_use"}' }, { "metadata", '{"usage":{"inputTokens":5,"outputTokens":6}}' } })
        assert.equal("start part:thinking text signature part_end part:text text part_end part:text text citation part_end "
            .. "part:call input input part_end stop usage end", written.kinds(out))
        local got = rules.gather(out)
        assert.same({ "S", "anthropic", '{"a":1}', "call", { input = 5, output = 6 } }, { got.parts[1].signature, got.parts[1].origin,
            got.parts[4].input, got.stop, got.usage })
    end)

    it("has redacted thinking", function()
        local out = stream({ START, delta(0, '{"reasoningContent":{"redactedContent":"R"}}'), stop(0),
            { "messageStop", '{"stopReason":"end_turn"}' } })
        assert.equal("start part:redacted part_end stop end", written.kinds(out))
        assert.equal("R", out[2].part.data)
    end)

    it("fails by an exception, or when it is cut", function()
        local out = stream({ START, delta(0, '{"text":"a"}'), { "throttlingException", '{"message":"Too many requests"}' } })
        assert.same({ "rate_limit", 429 }, { out[#out].err.kind, out[#out].err.status })
        out = stream({ { "validationException", '{"message":"Input is too long for requested model."}' } })
        assert.equal("context_window", out[1].err.kind)
        out = stream({ START, { "InternalFailure", "it broke" } })
        assert.same({ "server", "it broke" }, { out[2].err.kind, out[2].err.message })
        assert.equal("start error", written.kinds(stream({ START })))
        assert.equal("error", written.kinds(stream({ { "messageStart", "<html>" } })))
        assert.equal("start stop end", written.kinds(stream({ START, { "new", "{}" }, { "messageStop", "{}" } })))
    end)
end)

describe("an error of Bedrock's", function()
    local function kind(status, body) return bedrock.read_error(status, body, context.new()).kind end

    it("is known by status, exception and words", function()
        assert.equal("invalid_request", kind(400, '{"message":"The provided model identifier is invalid."}'))
        assert.equal("not_found", kind(404, '{"message":"This model version has reached the end of its life."}'))
        assert.equal("rate_limit", kind(429, '{"message":"Too many tokens"}'))
        assert.equal("permission", kind(403, '{"Message":"no"}'))
        assert.equal("authentication", kind(403, '{"__type":"com.amazon.coral#ExpiredTokenException","message":"old"}'))
        assert.equal("overloaded", kind(503, ""))
    end)
end)
