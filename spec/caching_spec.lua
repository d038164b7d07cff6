local caching = require("claw.caching")
local fake_core = require("support.fake_core")
local json = require("claw.json")

local GUIDE = { path = "/v1/chat/completions", json_body = { temperature = 0 } }

local function compiled(...)
    local strategies, problems = {}, {}
    for i, match in ipairs({ ... }) do strategies[i] = { id = "s" .. i, match = match, ttl_seconds = i } end
    local core = fake_core.new()
    return caching.compile({ caching = { strategies = strategies } }, core, problems), problems
end

local function pick(strategies, body, route, path)
    return caching.pick(strategies, { body = body }, route or "r", "POST", path or "/v1/chat/completions", body.model)
end

describe("claw.caching", function()
    it("knows which strategy a request is one of", function()
        local guide = compiled(GUIDE)
        assert.equal(1, pick(guide, { model = "m", temperature = 0 }))
        assert.equal(0, pick(guide, { model = "m", temperature = 0.5 }))
        assert.equal(0, pick(guide, { model = "m" }))
        assert.equal(0, pick(guide, { model = "m", temperature = 0 }, "r", "/v1/messages"))
        assert.equal(0, pick(compiled(), {}))
    end)

    it("takes the most specific one, then the first in the file", function()
        local s = compiled({ path = "/v1/*" }, { path = "/v1/chat/completions", model = "m" }, { path = "/v1/*" }, { route_id = "x" })
        assert.equal(2, pick(s, { model = "m" }))
        assert.equal(1, pick(s, { model = "n" }))
        assert.equal(4, pick(s, { model = "n" }, "x", "/other"))
    end)

    it("tells what is wrong with one, and where", function()
        local _, problems = compiled({ nonsense = 1 })
        assert.equal("caching.strategies[0].match.nonsense", problems[1].path)
    end)

    local function told(conf, node)
        local strategies = caching.compile(conf, fake_core.new(), {})
        local q = { method = "POST", path = "/v1/chat/completions", model = "m" }
        return caching.told(conf, strategies, { body = { temperature = 0 } }, { id = "r", node = { cache = node } }, q)
    end

    it("says for -explain what becomes of an answer", function()
        assert.is_nil(told({}))
        assert.equal("cache: not for this route", told({ caching = { enabled = true } }, false))
        assert.equal("cache: not for this route", told({ caching = { enabled = false } }, true))
        assert.equal("cache: not for this route", told({ caching = { max_size_mb = 1 } }))
        assert.equal("cache: kept for 3600 s, shared while under way, for all clients", told({ caching = { enabled = true } }))
        assert.equal("cache: kept for 5 s, shared while under way, for this client only",
            told({ clients = { {} } }, { ttl_seconds = 5 }))
        assert.equal("cache: kept for 86400 s, by strategy g, for all clients",
            told({ caching = { enabled = true, coalesce = false, strategies = { { id = "g", match = GUIDE, ttl_seconds = 86400 } } } }))
        assert.equal("cache: no, none of caching.strategies matches",
            told({ caching = { enabled = true, strategies = { { id = "g", match = { model = "other" } } } } }))
        assert.equal("cache: shared while under way, for all clients", told({ caching = { coalesce = true } }))
    end)
end)

-- Each dialect's request and answer; `said` is what has to come back the same.
local CALL = { id = "call_1", type = "function", ["function"] = { name = "look", arguments = '{"at":1}' } }
local DIALECTS = {
    openai_chat = {
        body = { model = "m", messages = { { role = "user", content = "x" } }, stream_options = { include_usage = true } },
        answer = { id = "chatcmpl-7", object = "chat.completion", created = 9, model = "m-1",
            choices = { { index = 0, finish_reason = "tool_calls",
                message = { role = "assistant", content = "Let me see.", tool_calls = { CALL } } } },
            usage = { prompt_tokens = 5, completion_tokens = 6, total_tokens = 11 } },
        said = function(a)
            local c = a.choices[1]
            return { a.id, a.model, c.finish_reason, c.message.content, c.message.tool_calls[1], a.usage.total_tokens }
        end,
    },
    openai_completions = {
        body = { model = "m", prompt = "x", stream_options = { include_usage = true } },
        answer = { id = "cmpl-7", object = "text_completion", created = 9, model = "m-1",
            choices = { { index = 0, text = "Hello.", finish_reason = "length" } },
            usage = { prompt_tokens = 5, completion_tokens = 6, total_tokens = 11 } },
        said = function(a) return { a.id, a.model, a.choices[1].text, a.choices[1].finish_reason, a.usage.total_tokens } end,
    },
    openai_responses = {
        body = { model = "m", input = "x" },
        answer = { id = "resp_7", object = "response", created_at = 9, model = "m-1", status = "completed",
            output = { { type = "message", id = "msg_1", role = "assistant", status = "completed",
                content = { { type = "output_text", text = "Hello.", annotations = json.array() } } },
                { type = "function_call", id = "fc_1", call_id = "call_1", name = "look", arguments = '{"at":1}', status = "completed" } },
            usage = { input_tokens = 5, output_tokens = 6, total_tokens = 11 } },
        said = function(a)
            local text, call = a.output[1], a.output[2]
            return { a.model, a.status, text.content[1].text, call.name, call.call_id, call.arguments, a.usage.total_tokens }
        end,
    },
    anthropic_messages = {
        body = { model = "m", max_tokens = 9, messages = { { role = "user", content = "x" } } },
        answer = { id = "msg_7", type = "message", role = "assistant", model = "m-1", stop_reason = "tool_use", stop_sequence = json.null,
            content = { { type = "thinking", thinking = "Hm.", signature = "c2ln" }, { type = "text", text = "Hello." },
                { type = "tool_use", id = "toolu_1", name = "look", input = { at = 1 } } },
            usage = { input_tokens = 5, output_tokens = 6, cache_read_input_tokens = 2 } },
        said = function(a)
            local t, x, c = a.content[1], a.content[2], a.content[3]
            return { a.id, a.model, a.stop_reason, t.thinking, t.signature, x.text, c.id, c.name, c.input.at, a.usage.input_tokens,
                a.usage.output_tokens, a.usage.cache_read_input_tokens }
        end,
    },
    gemini_generate = {
        body = { contents = { { role = "user", parts = { { text = "x" } } } } },
        answer = { responseId = "7", modelVersion = "m-1",
            candidates = { { index = 0, finishReason = "STOP", content = { role = "model",
                parts = { { text = "Hello." }, { functionCall = { name = "look", args = { at = 1 } } } } } } },
            usageMetadata = { promptTokenCount = 5, candidatesTokenCount = 6, totalTokenCount = 11 } },
        said = function(a)
            local c = a.candidates[1]
            local p = c.content.parts
            return { a.modelVersion, c.finishReason, p[1].text, p[2].functionCall.name, p[2].functionCall.args.at,
                a.usageMetadata.totalTokenCount }
        end,
    },
}

describe("claw.caching.recast", function()
    for name, d in pairs(DIALECTS) do
        it("writes " .. name .. " in the other way, and back", function()
            local core = fake_core.new()
            local r = { body = d.body, model = "m", stream = true, id = ("a"):rep(32), ctx = {} }
            local events = caching.recast(core, r, name, json.encode(d.answer))
            assert.same({}, core.logged)
            assert.is_true(#events > 2)
            for _, ev in ipairs(events) do
                if type(ev.data) ~= "string" then ev.data = json.encode(ev.data) end
                ev.type = ev.type or ""
            end
            r.stream = false
            local whole = caching.recast(core, r, name, events)
            assert.same({}, core.logged)
            assert.same(d.said(d.answer), d.said(json.decode(json.encode(whole))))
        end)
    end

    it("gives up on what is no answer", function()
        local core = fake_core.new()
        local r = { body = DIALECTS.openai_chat.body, model = "m", stream = true, id = ("a"):rep(32), ctx = {} }
        assert.is_nil(caching.recast(core, r, "openai_chat", '{"error":{"message":"no"}}'))
        assert.is_nil(caching.recast(core, r, "openai_chat", { { type = "", data = '{"error":{"message":"no"}}' } }))
        assert.is_nil(caching.recast(core, r, "openai_chat", { { type = "", data = "no JSON" } }))
        assert.same({}, core.logged)
    end)
end)
