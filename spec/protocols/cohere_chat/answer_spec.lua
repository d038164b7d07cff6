local cohere = require("claw.protocols.cohere_chat")
local context = require("support.context")
local rules = require("support.stream_rules")
local written = require("support.written")

local function read(text) return written.answer("cohere_chat", text) end

describe("an answer of Cohere's", function()
    it("has thinking, text, a plan and calls in order", function()
        local a = read('{"id":"i","message":{"content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"so"}],"tool_plan":"plan",'
            .. '"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\\"z\\":[],\\"a\\":1}"}},{"function":{}}]},'
            .. '"finish_reason":"TOOL_CALL","usage":{"billed_units":{"input_tokens":1,"output_tokens":2},"tokens":{"input_tokens":30,'
            .. '"output_tokens":40},"cached_tokens":20}}')
        local kinds = {}
        for i, part in ipairs(a.parts) do kinds[i] = part.kind .. " " .. tostring(part.text or part.input) end
        assert.same({ "thinking hm", "text so", "text plan", 'call {"z":[],"a":1}', "call " }, kinds)
        assert.same({ "i", "call", { input = 1, output = 2, cached = 1 } }, { a.id, a.stop, a.usage })
        assert.is_string(a.parts[5].id)
    end)

    it("stops for a reason, counts what was billed where nothing else is told", function()
        local function stop(reason) return read('{"message":{"content":[]},"finish_reason":"' .. reason .. '"}').stop end
        assert.same({ "end", "stop_sequence", "length", "call", "error", "filter", "end" }, { stop("COMPLETE"), stop("STOP_SEQUENCE"),
            stop("MAX_TOKENS"), stop("TOOL_CALL"), stop("ERROR"), stop("ERROR_TOXIC"), stop("NEW") })
        assert.same({ input = 3, output = 4 },
            read('{"message":{},"usage":{"billed_units":{"input_tokens":3,"output_tokens":4}}}').usage)
        assert.same({ input = 267, output = 52 }, read('{"message":{},"usage":{"billed_units":{"input_tokens":267,"output_tokens":52},'
            .. '"tokens":{"input_tokens":34,"output_tokens":56,"image_tokens":259}}}').usage)
        assert.equal(293, read('{"message":{},"usage":{"tokens":{"input_tokens":34,"output_tokens":56,"image_tokens":259}}}').usage.input)
    end)

    it("cites its documents", function()
        local a = read('{"message":{"content":[{"type":"text","text":"It is Quack."}],"citations":[{"start":6,"end":12,"text":"Quack.",'
            .. '"sources":[{"type":"document","id":"d","document":{"title":"T","url":"u"}}],"type":"TEXT_CONTENT"},{"type":"PLAN"}]}}')
        local c = a.parts[1].citations
        assert.same({ 1, 6, 12, "Quack.", "T", "u" }, { #c, c[1].start, c[1].finish, c[1].text, c[1].title, c[1].url })
    end)

    it("is none, or an error", function()
        for _, body in ipairs({ "{}", "[]", '{"message":5}', '{"message":[]}' }) do
            local a, message = read(body)
            assert.is_nil(a)
            assert.is_string(message)
        end
        assert.equal("invalid request", read('{"message":"invalid request"}').error.message)
    end)
end)

describe("a stream of Cohere's", function()
    local HEAD = '{"type":"message-start","id":"i","delta":{"message":{"role":"assistant"}}}'

    it("has a plan and calls", function()
        local out = written.stream("cohere_chat", { HEAD, '{"type":"tool-plan-delta","delta":{"message":{"tool_plan":"I "}}}',
            '{"type":"tool-plan-delta","delta":{"message":{"tool_plan":"will"}}}',
            '{"type":"tool-call-start","index":0,"delta":{"message":{"tool_calls":{"id":"c","type":"function",'
                .. '"function":{"name":"f","arguments":""}}}}}',
            '{"type":"tool-call-delta","index":0,"delta":{"message":{"tool_calls":{"function":{"arguments":"{\\"a\\":"}}}}}',
            '{"type":"tool-call-delta","index":0,"delta":{"message":{"tool_calls":{"function":{"arguments":"1}"}}}}}',
            '{"type":"tool-call-end","index":0}',
            '{"type":"message-end","delta":{"finish_reason":"TOOL_CALL","usage":{"tokens":{"input_tokens":5,"output_tokens":6}}}}' })
        assert.equal("start part:text text text part_end part:call input input usage part_end stop end", written.kinds(out))
        local got = rules.gather(out)
        assert.same({ "I will", "c", '{"a":1}', "call" }, { got.parts[1].text, got.parts[2].id, got.parts[2].input, got.stop })
    end)

    it("cites, also behind the content's end", function()
        local out = written.stream("cohere_chat", { HEAD,
            '{"type":"content-start","index":0,"delta":{"message":{"content":{"type":"text","text":""}}}}',
            '{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Quack"}}}}', '{"type":"content-end","index":0}',
            '{"type":"citation-start","index":0,"delta":{"message":{"citations":{"start":0,"end":5,"text":"Quack",'
                .. '"sources":[{"type":"document","document":{"title":"T"}}]}}}}', '{"type":"citation-end","index":0}',
            '{"type":"message-end","delta":{"finish_reason":"COMPLETE"}}' })
        assert.equal("T", rules.gather(out).parts[1].citations[1].title)
    end)

    it("fails when it is cut, or says so", function()
        assert.equal("start error", written.kinds(written.stream("cohere_chat", { HEAD })))
        assert.equal("error", written.kinds(written.stream("cohere_chat", { "<html>" })))
        assert.equal("start error", written.kinds(written.stream("cohere_chat", { HEAD,
            '{"type":"message-end","delta":{"finish_reason":"ERROR","error":"broken"}}' })))
        assert.equal("start stop end", written.kinds(written.stream("cohere_chat", { HEAD, '{"type":"new"}', '{"type":"message-end"}', "[DONE]" })))
    end)
end)

describe("an error of Cohere's", function()
    local function kind(status, body) return cohere.read_error(status, body, context.new()).kind end

    it("is known by type, words and status", function()
        assert.equal("context_window", kind(400, '{"error_type":"TOO_MANY_TOKENS","message":"too many tokens: 5"}'))
        assert.equal("authentication", kind(401, '{"message":"invalid api token"}'))
        assert.equal("rate_limit", kind(429, '{"message":"You are past the per minute request limit"}'))
        assert.equal("not_found", kind(404, '{"id":"x","message":"model \'m\' not found"}'))
        assert.equal("server", kind(500, "<html>"))
    end)
end)
