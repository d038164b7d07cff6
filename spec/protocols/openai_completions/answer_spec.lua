local completions = require("claw.protocols.openai_completions")
local context = require("support.context")
local json = require("claw.json")
local mutate = require("support.mutate")
local protocols = require("claw.protocols")
local recorded = require("support.recorded")
local rules = require("support.stream_rules")
local written = require("support.written")

-- Is a stream of text_completion chunks legal, and what does it say?
local function put_together(list)
    local text, stop, usage, done, id = "", nil, nil, false, nil
    for _, e in ipairs(list) do
        assert.is_false(done)
        if e.data == "[DONE]" then
            done = true
        else
            local chunk = json.decode(e.data)
            if chunk.error then return { error = chunk.error } end
            id = id or chunk.id
            assert.same({ "text_completion", id }, { chunk.object, chunk.id })
            if chunk.choices[1] then
                assert.is_nil(stop)
                text = text .. chunk.choices[1].text
                if chunk.choices[1].finish_reason ~= json.null then stop = chunk.choices[1].finish_reason end
            else
                usage = chunk.usage
            end
        end
    end
    assert.is_true(done)
    return { text = text, stop = stop, usage = usage }
end

describe("a completions answer", function()
    it("is written from parts", function()
        local cx = context.new({ answering = true })
        local out = completions.write_answer({ id = "i", model = "m", stop = "call", usage = { input = 3, output = 4 }, parts = {
            { kind = "thinking", text = "hm" }, { kind = "text", text = "a" }, { kind = "call", id = "c", name = "f", input = "{}" } },
            logprobs = { content = { { token = "a", logprob = -1, top_logprobs = { { token = "b", logprob = -2 } } } } } }, cx)
        assert.same({ "text_completion", "a", "stop", 7 }, { out.object, out.choices[1].text, out.choices[1].finish_reason, out.usage.total_tokens })
        assert.same({ { "a" }, { -1 }, { { b = -2 } }, { 0 } }, { out.choices[1].logprobs.tokens, out.choices[1].logprobs.token_logprobs,
            out.choices[1].logprobs.top_logprobs, out.choices[1].logprobs.text_offset })
        assert.equal("content.call", context.dropped(cx))
    end)

    it("is read, with its choices", function()
        local a = written.answer("openai_completions", '{"id":"i","choices":[{"text":"a","finish_reason":"length"},'
            .. '{"text":"b","finish_reason":"stop"}],'
            .. '"usage":{"prompt_tokens":1,"completion_tokens":2}}')
        assert.same({ "a", "length", "b" }, { a.parts[1].text, a.stop, a.choices[2].parts[1].text })
        for _, body in ipairs({ "{}", "[]", '{"choices":[]}', '{"choices":[5]}' }) do
            assert.is_nil((written.answer("openai_completions", body)))
        end
        assert.equal("m", written.answer("openai_completions", '{"error":{"message":"m"}}').error.message)
    end)
end)

describe("a completions stream", function()
    it("is written and read again", function()
        local list = rules.write(completions.writer(context.new({ wants_usage = true })), {
            { on = "start", id = "i", model = "m" }, { on = "part", index = 0, part = { kind = "thinking" } },
            { on = "text", index = 0, text = "hm" }, { on = "part_end", index = 0 }, { on = "part", index = 1, part = { kind = "text" } },
            { on = "text", index = 1, text = "a\n" }, { on = "text", index = 1, text = "b" }, { on = "part_end", index = 1 },
            { on = "usage", usage = { input = 3, output = 4 } }, { on = "stop", stop = "length" }, { on = "end" } })
        local said = put_together(list)
        assert.same({ "a\nb", "length", 3 }, { said.text, said.stop, said.usage.prompt_tokens })
        local out = written.stream("openai_completions", list)
        assert.equal("start part:text text text part_end stop usage end", written.kinds(out))
    end)

    it("fails when it is cut, or says so", function()
        assert.equal("start part:text text error", written.kinds(written.stream("openai_completions", { '{"choices":[{"text":"a"}]}' })))
        assert.equal("error", written.kinds(written.stream("openai_completions", { '{"error":{"message":"m"}}' })))
        assert.equal("error", written.kinds(written.stream("openai_completions", { "[DONE]" })))
        local writer = completions.writer(context.new())
        assert.truthy(writer({ on = "error", err = { kind = "server", status = 500, message = "m" } })[1].data:find('"m"', 1, true))
        assert.same({}, writer({ on = "end" }))
    end)

    it("says all that other dialects' streams say", function()
        if not recorded.folder then return pending(recorded.missing) end
        for _, case in ipairs(recorded.cases(function(c)
            return c.events and (c.meta.api == "chat" or c.meta.api == "messages" or c.meta.api == "responses")
        end)) do
            local own = case.meta.api == "messages" and "anthropic_messages" or case.meta.api == "responses" and "openai_responses"
                or "openai_chat"
            for round = 0, 4 do
                local events, rng = {}, mutate.random(round * 7919 + #case.name)
                for i, e in ipairs(case.events) do events[i] = e end
                if round > 0 then
                    local at = rng(#events)
                    events[at] = { type = events[at].type, data = mutate.text(events[at].data, rng) }
                end
                local read = rules.read(protocols.get(own).reader(context.new()), events)
                local got = rules.gather(read)
                local said = put_together(rules.write(completions.writer(context.new({ wants_usage = true })), read))
                if not got.err then
                    local text = {}
                    for _, part in ipairs(got.parts) do
                        if part.kind == "text" or part.kind == "refusal" then text[#text + 1] = part.text end
                    end
                    assert.equal(table.concat(text), said.text, case.name)
                end
            end
        end
    end)
end)

describe("recorded completions", function()
    if not recorded.folder then return pending(recorded.missing) end
    for _, case in ipairs(recorded.cases(function(c) return c.meta.api == "completions" end)) do
        it(case.name, function()
            local cx = context.new({ lossy = "allow", answering = true })
            local r = completions.read_request(context.doc(case.request), cx)
            assert.equal("user", r.turns[1].role)
            if case.meta.status ~= 200 then
                local err = completions.read_error(case.meta.status, case.json, cx)
                assert.same({ case.meta.status, "not_found" }, { err.status, err.kind })
                return
            end
            local a = assert(completions.read_answer(context.doc(case.json), cx))
            local out, want = completions.write_answer(a, cx), json.decode(case.json)
            assert.equal(#want.choices, #out.choices)
            for i, choice in ipairs(want.choices) do
                assert.same({ choice.text, choice.finish_reason, choice.index }, { out.choices[i].text, out.choices[i].finish_reason,
                    out.choices[i].index })
            end
            assert.same({ want.id, want.usage.total_tokens }, { out.id, out.usage.total_tokens })
            for round = 1, 60 do
                local rng = mutate.random(round * 7919)
                for _, text in ipairs({ mutate.text(case.request, rng), mutate.text(case.json, rng) }) do
                    local doc = context.parse(text)
                    local ok, err = pcall(completions.read_request, doc, cx)
                    if doc and not ok then assert.equal(400, err.status) end
                    local one = doc and completions.read_answer(doc, cx)
                    if one then json.encode(completions.write_answer(one, cx)) end
                    if doc and ok then json.encode(completions.write_request(err, context.new({ lossy = "allow" }))) end
                end
            end
        end)
    end
end)
