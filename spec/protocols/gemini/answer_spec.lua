local context = require("support.context")
local gemini = require("claw.protocols.gemini")
local json = require("claw.json")
local meaning = require("support.meaning")

local function read(body)
    return gemini.read_answer(context.doc(body), context.new({ answering = true }))
end

local function write(answer, cx)
    return json.decode(json.encode(gemini.write_answer(answer, cx or context.new({ answering = true }))))
end

describe("an answer of Gemini's", function()
    it("stops for the vocabulary's reasons", function()
        local STOPS = { STOP = "end", MAX_TOKENS = "length", SAFETY = "filter", RECITATION = "filter", BLOCKLIST = "filter",
            PROHIBITED_CONTENT = "filter",
            SPII = "filter", IMAGE_SAFETY = "filter", MALFORMED_FUNCTION_CALL = "error", UNEXPECTED_TOOL_CALL = "error", OTHER = "error",
                LANGUAGE = "error", NEW = "end" }
        for reason, stop in pairs(STOPS) do
            assert.equal(stop, read({ candidates = { { content = { parts = { { text = "x" } } }, finishReason = reason } } }).stop, reason)
        end
        assert.equal("call", read('{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}}]},"finishReason":"STOP"}]}').stop)
        assert.equal("length", read('{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}}]},"finishReason":"MAX_TOKENS"}]}').stop)
    end)

    it("counts thoughts as output and its tools' words as input", function()
        local u = read('{"candidates":[{}],"usageMetadata":{"promptTokenCount":10,"toolUsePromptTokenCount":5,"cachedContentTokenCount":'
            .. '4,"candidatesTokenCount":7,'
            .. '"thoughtsTokenCount":3,"promptTokensDetails":[{"modality":"TEXT","tokenCount":8},{"modality":"AUDIO","tokenCount":2}]}}').usage
        assert.same({ input = 15, cached = 4, output = 10, reasoning = 3, audio_input = 2 }, u)
    end)

    it("is filtered when the prompt was blocked", function()
        local a = read('{"promptFeedback":{"blockReason":"SAFETY","blockReasonMessage":"no"},"responseId":"r"}')
        assert.equal("filter", a.stop)
        assert.same({ { kind = "refusal", text = "no" } }, a.parts)
        assert.same({}, read('{"promptFeedback":{"blockReason":"SAFETY"}}').parts)
    end)

    it("has what cannot be read said", function()
        for _, body in ipairs({ "{}", "[]", '{"candidates":[]}', '{"candidates":5}', '{"promptFeedback":{}}' }) do
            local a, message = read(body)
            assert.is_nil(a)
            assert.is_string(message)
        end
        assert.equal("rate_limit", read('{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}').error.kind)
    end)

    it("cites by characters", function()
        local a = read('{"candidates":[{"content":{"parts":[{"text":"thought","thought":true},'
            .. '{"text":"\195\164b cd."}]},"finishReason":"STOP","groundingMetadata":'
            .. '{"groundingChunks":[{"web":{"uri":"u1","title":"t1"}},'
                .. '{"web":{"uri":"u2"}}],"groundingSupports":[{"segment":{"startIndex":4,"endIndex":6,"text":"cd"},"groundingChunkIndices":'
                    .. '[0]}]}}]}')
        assert.same({ { url = "u1", title = "t1", text = "cd", start = 3, finish = 5 }, { url = "u2" } }, a.parts[2].citations)
        local grounding = write(a).candidates[1].groundingMetadata
        assert.same({ { groundingChunkIndices = { 0 }, segment = { partIndex = 1, startIndex = 4, endIndex = 6, text = "cd" } } },
            grounding.groundingSupports)
        assert.same({ { web = { uri = "u1", title = "t1" } }, { web = { uri = "u2" } } }, grounding.groundingChunks)
    end)

    it("has logprobs in OpenAI's form, there and back", function()
        local body = '{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP","logprobsResult":{"chosenCandidates":'
            .. '[{"token":"a","logProbability":-0.5}],'
            .. '"topCandidates":[{"candidates":[{"token":"a","logProbability":-0.5},{"token":"b","logProbability":-2}]}]}}]}'
        local a = read(body)
        assert.equal("a", a.logprobs.content[1].token)
        assert.equal(-2, a.logprobs.content[1].top_logprobs[2].logprob)
        assert.same(json.decode(body).candidates[1].logprobsResult, write(a).candidates[1].logprobsResult)
    end)

    it("carries secrets of others in base64, and gives them back", function()
        local parts = { { kind = "thinking", text = "t", signature = "sig", origin = "anthropic" }, { kind = "redacted", data = "zzz",
            origin = "anthropic" },
            { kind = "thinking", text = "u", signature = "own", origin = "gemini" }, { kind = "text", text = "x" },
            { kind = "call", id = "c1", name = "f", input = "{}", signature = "s3", origin = "openai" } }
        local body = write({ id = "i", model = "m", parts = parts, stop = "call" })
        local given = body.candidates[1].content.parts
        assert.is_nil(given[1].thoughtSignature:find(":", 1, true))
        assert.equal("own", given[3].thoughtSignature)
        assert.equal("STOP", body.candidates[1].finishReason)
        local back = read(json.encode(body))
        assert.same(meaning.parts(parts, { secrets = true }), meaning.parts(back.parts, { secrets = true }))
        assert.equal("c1", back.parts[5].id)
        assert.equal("openai", back.parts[5].origin)
    end)

    it("has several candidates", function()
        local a = read('{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"},'
            .. '{"content":{"parts":[{"text":"b"}]},"finishReason":"MAX_TOKENS"}]}')
        assert.equal(2, #a.choices)
        assert.equal("length", a.choices[2].stop)
        assert.equal("b", write(a).candidates[2].content.parts[1].text)
    end)

    it("keeps the bytes of arguments", function()
        local a = read('{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"z":[],"a":'
            .. '12345678901234567890}}}]},"finishReason":"STOP"}]}')
        assert.equal('{"z":[],"a":12345678901234567890}', tostring(a.parts[1].input))
        assert.truthy(json.encode(gemini.write_answer(a, context.new())):find('{"z":[],"a":12345678901234567890}', 1, true))
    end)
end)
