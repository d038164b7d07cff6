local context = require("support.context")
local json = require("claw.json")
local meaning = require("support.meaning")
local responses = require("claw.protocols.openai_responses")

local function read(body)
    return responses.read_answer(context.doc(body), context.new({ answering = true }))
end

local function write(answer, cx)
    return json.decode(json.encode(responses.write_answer(answer, cx or context.new({ answering = true }))))
end

local function message(...)
    return { type = "message", id = "msg_1", role = "assistant", status = "completed", content = { ... } }
end

describe("an answer of Responses'", function()
    it("has its items as parts", function()
        local a = read({ id = "resp_1", model = "m", created_at = 5, status = "completed", service_tier = "flex", output = { { type = "reasoning",
            id = "rs_1", summary = json.array(), encrypted_content = "E" },
            { type = "web_search_call", id = "ws_1" }, { type = "image_generation_call", id = "ig_1", result = "AAAA", output_format = "webp" },
            message({ type = "output_text", text = "see", annotations = { { type = "url_citation", url = "u", title = "t", start_index = 0,
                end_index = 3 } }, logprobs = { { token = "see", logprob = -1 } } }),
            { type = "function_call", call_id = "c", name = "f", arguments = '{"a":[]}' } },
            usage = { input_tokens = 9, output_tokens = 8, input_tokens_details = { cached_tokens = 3 },
                output_tokens_details = { reasoning_tokens = 2 } } })
        assert.same({ "resp_1", "m", 5, "flex", "call" }, { a.id, a.model, a.created, a.service_tier, a.stop })
        assert.same({ input = 9, output = 8, cached = 3, reasoning = 2 }, a.usage)
        assert.same({ kind = "redacted", data = "E", origin = "openai", id = "rs_1" }, a.parts[1])
        assert.equal("server_call", a.parts[2].kind)
        assert.same({ kind = "image", data = "AAAA", media_type = "image/webp" }, a.parts[3])
        assert.same({ { url = "u", title = "t", start = 0, finish = 3 } }, a.parts[4].citations)
        assert.equal("see", a.logprobs.content[1].token)
        assert.equal('{"a":[]}', tostring(a.parts[5].input))
    end)

    it("ends for the vocabulary's reasons", function()
        local function stop(body, ...)
            body.output = { ... }
            return read(json.encode(body)).stop
        end
        assert.equal("end", stop({ status = "completed" }, message()))
        assert.equal("refusal", stop({ status = "completed" }, message({ type = "refusal", refusal = "no" })))
        assert.equal("length", stop({ status = "incomplete", incomplete_details = { reason = "max_output_tokens" } }, message()))
        assert.equal("filter", stop({ status = "incomplete", incomplete_details = { reason = "content_filter" } }, message()))
        local failed = read({ status = "failed", error = { code = "rate_limit_exceeded", message = "slow" }, output = json.array() })
        assert.same({ "error", "rate_limit", 429 }, { failed.stop, failed.error.kind, failed.error.status })
        for _, body in ipairs({ "{}", "[]", '{"output":5}' }) do
            local a, why = read(body)
            assert.is_nil(a)
            assert.is_string(why)
        end
    end)

    it("is written whole, and read the same", function()
        local request = { system = { { kind = "text", text = "sys" } }, turns = {}, tools = { { name = "f",
            schema = context.doc('{"type":"object"}') }, { name = "p", custom = true } },
            tool_choice = { mode = "required" }, max_tokens = 50, temperature = 0, format = { kind = "json" }, reasoning = { effort = "low",
                show = true } }
        local answer = { id = "gen-1", model = "m", created = 7, stop = "call", usage = { input = 5, output = 4, reasoning = 1, cached = 2 },
            parts = {
            { kind = "thinking", text = "hm", signature = "S", origin = "anthropic" }, { kind = "redacted", data = "R", origin = "anthropic" },
            { kind = "text", text = "a", citations = { { url = "u" } } }, { kind = "text", text = "b" }, { kind = "call", id = "c", name = "f",
                input = context.doc('{"z":[]}'), signature = "G", origin = "gemini" },
            { kind = "call", id = "d", name = "p", input = '{"input":"*** x"}' } } }
        local body = write(answer, context.new({ answering = true, request = request }))
        assert.same({ "resp_gen-1", "response", 7, "completed", "m", json.null, json.null, "sys", 50, 0, "required", true }, { body.id, body.object,
            body.created_at, body.status, body.model,
            body.error, body.incomplete_details, body.instructions, body.max_output_tokens, body.temperature, body.tool_choice,
                body.parallel_tool_calls })
        assert.same({ { type = "json_object" }, { effort = "low", summary = "auto" } }, { body.text.format, body.reasoning })
        local types = {}
        for i, item in ipairs(body.output) do types[i] = item.type end
        assert.same({ "reasoning", "reasoning", "message", "reasoning", "function_call", "custom_tool_call" }, types)
        assert.same({ "anthropic:S", "anthropic:redacted:R", "gemini:G", "*** x" }, { body.output[1].encrypted_content,
            body.output[2].encrypted_content, body.output[4].encrypted_content,
            body.output[6].input })
        assert.same({ { type = "url_citation", url = "u", title = "", start_index = 0, end_index = 1 } }, body.output[3].content[1].annotations)
        assert.same({ input_tokens = 5, output_tokens = 4, total_tokens = 9, input_tokens_details = { cached_tokens = 2, cache_write_tokens = 0 },
            output_tokens_details = { reasoning_tokens = 1 } }, body.usage)
        local back = read(json.encode(body))
        assert.same({ kind = "thinking", text = "hm", signature = "S", origin = "anthropic", summary = true, id = body.output[1].id }, back.parts[1])
        assert.same(meaning.parts({ answer.parts[3], answer.parts[4] }, {}), meaning.parts({ back.parts[3], back.parts[4] }, {}))
    end)

    it("says tiers that its clients know", function()
        assert.equal("flex", write({ parts = {}, stop = "end", service_tier = "flex" }).service_tier)
        assert.equal("default", write({ parts = {}, stop = "end", service_tier = "on_demand" }).service_tier)
    end)

    it("says how it ended", function()
        local function ended(stop, err)
            local body = write({ parts = { { kind = "text", text = "x" } }, stop = stop, error = err })
            return { body.status, body.incomplete_details ~= json.null and body.incomplete_details.reason or nil,
                body.error ~= json.null and body.error.code or nil }
        end
        assert.same({ "completed" }, ended("end"))
        assert.same({ "completed" }, ended("stop_sequence"))
        assert.same({ "incomplete", "max_output_tokens" }, ended("length"))
        assert.same({ "incomplete", "content_filter" }, ended("filter"))
        assert.same({ "failed", nil, "rate_limit_exceeded" }, ended("error", { kind = "rate_limit", message = "m" }))
        assert.equal("failed", ended("error")[1])
    end)
end)
