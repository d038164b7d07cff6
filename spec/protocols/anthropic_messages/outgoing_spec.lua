local messages = require("claw.protocols.anthropic_messages")
local context = require("support.context")
local json = require("claw.json")

local function write(r, overrides)
    local cx = context.new(overrides)
    r.system, r.turns = r.system or {}, r.turns or { { role = "user", parts = { { kind = "text", text = "Hi" } } } }
    local body = messages.write_request(r, cx)
    return json.decode(json.encode(body)), context.dropped(cx)
end

local function refused(r, overrides)
    local ok, raised = pcall(write, r, overrides)
    assert.is_false(ok)
    return raised.param
end

describe("anthropic_messages.write_request", function()
    it("says the usual, and how many tokens in any case", function()
        local body, dropped = write({ stream = true, temperature = 0.5, stop = { "a", " ", "\n" }, user = "u", system = { { kind = "text",
            text = "s" } } })
        assert.same({ model = "sent-model", stream = true, max_tokens = 4096, temperature = 0.5, stop_sequences = { "a" }, system = "s",
            metadata = { user_id = "u" }, messages = { { role = "user", content = "Hi" } } }, body)
        assert.equal("stop", dropped)
        assert.equal(7, write({ max_tokens = 7 }).max_tokens)
        assert.equal(64000, write({}, { provider = { max_output = 64000 } }).max_tokens)
    end)

    it("drops hints by name, and refuses what changes the answer", function()
        local _, dropped = write({ seed = 1, presence_penalty = 0.5, frequency_penalty = 0, logit_bias = context.doc('{"1":1}'), verbosity = "low",
            metadata = context.doc("{}"), store = true, temperature = 1.5, service_tier = "flex", rest = { prediction = true } })
        assert.equal("temperature,service_tier,seed,presence_penalty,logit_bias,metadata,verbosity,store,prediction", dropped)
        assert.equal("n", refused({ n = 2 }))
        assert.equal("logprobs", refused({ logprobs = true }))
        assert.equal("response_format", refused({ format = { kind = "json" } }))
        assert.equal("tools.custom", refused({ tools = { { server = context.doc("{}"), kind = "custom", origin = "openai_chat" } } }))
        _, dropped = write({ n = 1, logprobs = false, store = false, parallel = true })
        assert.equal("", dropped)
        assert.equal(1, write({ temperature = 2 }).temperature)
    end)

    it("writes tools with a schema that is an object's", function()
        local body = write({ tools = { { name = "f", description = "d", schema = context.doc('{"type":"object"}'), strict = true, cache = "1h" },
            { name = "g" }, { name = "h", schema = context.doc('{"properties":{}}') } }, parallel = false, tool_choice = { mode = "required" } })
        assert.same({ name = "f", description = "d", input_schema = { type = "object" }, strict = true,
            cache_control = { type = "ephemeral", ttl = "1h" } }, body.tools[1])
        assert.same({ type = "object", properties = {} }, body.tools[2].input_schema)
        assert.same({ type = "object", properties = {} }, body.tools[3].input_schema)
        assert.same({ type = "any", disable_parallel_tool_use = true }, body.tool_choice)
        assert.same({ type = "auto", disable_parallel_tool_use = true }, write({ tools = { { name = "g" } }, parallel = false }).tool_choice)
        assert.same({ type = "none" }, write({ tools = { { name = "g" } }, parallel = false, tool_choice = { mode = "none" } }).tool_choice)
        assert.is_nil(write({ parallel = false }).tool_choice)
    end)

    it("writes schemas where they are native", function()
        local format = { kind = "schema", name = "n", schema = context.doc('{"type":"object"}') }
        assert.same({ format = { type = "json_schema", schema = { type = "object" } } }, write({ format = format }).output_config)
        assert.same({ type = "json_schema", schema = { type = "object" } }, write({ format = format },
            { provider = { output_format = true } }).output_format)
    end)

    describe("thinking", function()
        local function thinking(r, model)
            local body, dropped = write(r, { model = model })
            return body.thinking, body, dropped
        end

        it("has a budget on older models, within max_tokens", function()
            local t, body = thinking({ reasoning = { effort = "low" } }, "claude-sonnet-4-20250514")
            assert.same({ type = "enabled", budget_tokens = 2048 }, t)
            assert.equal(2048 + 4096, body.max_tokens)
            t, body = thinking({ reasoning = { effort = "high" }, max_tokens = 5000 }, "claude-3-7-sonnet-20250219")
            assert.same({ type = "enabled", budget_tokens = 4000 }, t)
            assert.equal(5000, body.max_tokens)
            local none, _, dropped = thinking({ reasoning = { effort = "high" }, max_tokens = 1000 }, "claude-haiku-4-5")
            assert.is_nil(none)
            assert.equal("reasoning_effort", dropped)
        end)

        it("is as the model sees fit on newer ones", function()
            local t, body = thinking({ reasoning = { effort = "minimal", show = true } }, "claude-opus-4-6")
            assert.same({ type = "adaptive", display = "summarized" }, t)
            assert.same({ effort = "low" }, body.output_config)
            assert.same({ effort = "high" }, select(2, thinking({ reasoning = { effort = "xhigh" } }, "claude-opus-4-6")).output_config)
            assert.same({ effort = "xhigh" }, select(2, thinking({ reasoning = { effort = "xhigh" } }, "claude-sonnet-5")).output_config)
            assert.same({ type = "adaptive" }, thinking({ reasoning = {} }, "claude-sonnet-5"))
            assert.same({ type = "disabled" }, thinking({ reasoning = { off = true } }, "claude-sonnet-5"))
        end)

        it("leaves sampling alone, and forced tools leave it", function()
            local _, body, dropped = thinking({ reasoning = { effort = "low" }, temperature = 0.2, top_p = 0.5, top_k = 4 }, "claude-sonnet-4-5")
            assert.same({}, { body.temperature, body.top_p, body.top_k })
            assert.equal("temperature,top_k,top_p", dropped)
            local none, more, lost = thinking({ reasoning = { effort = "low" }, tools = { { name = "f" } },
                tool_choice = { mode = "required" } }, "claude-opus-4-6")
            assert.is_nil(none)
            assert.is_nil(more.output_config)
            assert.equal("reasoning_effort", lost)
        end)

        it("does not begin in the middle of a call", function()
            local function turns(first)
                return { { role = "user", parts = { { kind = "text", text = "go" } } },
                    { role = "assistant", parts = { first, { kind = "call", id = "c", name = "f", input = "{}" } } },
                    { role = "user", parts = { { kind = "result", id = "c", parts = {} } } } }
            end
            local r = { reasoning = { effort = "low" }, turns = turns({ kind = "text", text = "ok" }) }
            assert.is_nil(thinking(r, "claude-sonnet-4-5"))
            assert.same({ type = "adaptive" }, thinking(r, "claude-opus-4-6"))
            r.turns = turns({ kind = "thinking", text = "why", signature = "S", origin = "anthropic" })
            assert.equal("enabled", thinking(r, "claude-sonnet-4-5").type)
        end)
    end)

    it("takes temperature or top_p where a model takes one", function()
        local body, dropped = write({ temperature = 0.2, top_p = 0.5 }, { model = "claude-sonnet-4-5" })
        assert.same({ 0.2 }, { body.temperature, body.top_p })
        assert.equal("top_p", dropped)
        assert.equal(0.5, write({ temperature = 0.2, top_p = 0.5 }, { model = "claude-3-5-haiku-latest" }).top_p)
    end)

    it("gives its own dialect's fields back", function()
        local body, dropped = write({ dialect = "anthropic_messages", rest = { container = "c" }, top_k = 4, parallel = true,
            tools = { { name = "f" } },
            tool_choice = { mode = "tool", name = "f" }, reasoning = { budget = 2000 }, max_tokens = 4000 })
        assert.equal("c", body.container)
        assert.same({ type = "tool", name = "f", disable_parallel_tool_use = false }, body.tool_choice)
        assert.same({ type = "enabled", budget_tokens = 2000 }, body.thinking)
        assert.equal("top_k", dropped)
    end)
end)
