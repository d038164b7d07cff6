local context = require("support.context")
local gemini = require("claw.protocols.gemini")
local json = require("claw.json")
local meaning = require("support.meaning")

local function read(body, cx)
    return gemini.read_request(context.doc(body), cx or context.new())
end

local function write(request, cx)
    request.system, request.turns = request.system or {}, request.turns or { { role = "user", parts = { { kind = "text", text = "Hi" } } } }
    return json.decode(json.encode((gemini.write_request(request, cx or context.new()))))
end

local function turn(role, ...)
    return { role = role, parts = { ... } }
end

local function text(t)
    return { kind = "text", text = t }
end

describe("a request of Gemini's", function()
    it("is read in both spellings alike", function()
        local camel = read('{"systemInstruction":{"parts":[{"text":"Be brief."}]},"contents":[{"role":"user","parts":[{"text":"a"},'
            .. '{"inlineData":{"mimeType":"image/png","data":"AAAA"}}]},{"role":"model","parts":[{"functionCall":{"name":"f","args":{"x":1}}}]},'
            .. '{"role":"function","parts":[{"functionResponse":{"name":"f","response":{"output":"ok"}}}]}],'
            .. '"generationConfig":{"topP":0.5,"topK":3,"maxOutputTokens":10,"stopSequences":["x"],"thinkingConfig":{"thinkingBudget":'
                .. '99,"includeThoughts":true}},'
            .. '"toolConfig":{"functionCallingConfig":{"mode":"ANY","allowedFunctionNames":["f"]}},'
            .. '"tools":[{"functionDeclarations":[{"name":"f","parametersJsonSchema":{"type":"object"}}]},{"googleSearch":{}}]}')
        local snake = read('{"system_instruction":{"parts":[{"text":"Be brief."}]},"contents":[{"role":"user","parts":[{"text":"a"},'
            .. '{"inline_data":{"mime_type":"image/png","data":"AAAA"}}]},{"role":"model","parts":[{"function_call":{"name":"f","args":{"x":1}}}]},'
            .. '{"role":"function","parts":[{"function_response":{"name":"f","response":{"output":"ok"}}}]}],'
            .. '"generation_config":{"top_p":0.5,"top_k":3,"max_output_tokens":10,"stop_sequences":["x"],"thinking_config":{"thinking_budget":'
                .. '99,"include_thoughts":true}},'
            .. '"tool_config":{"function_calling_config":{"mode":"ANY","allowed_function_names":["f"]}},'
            .. '"tools":[{"function_declarations":[{"name":"f","parameters_json_schema":{"type":"object"}}]},{"google_search":{}}]}')
        assert.same({ "googleSearch", "google_search" }, { camel.tools[2].spelt, snake.tools[2].spelt })
        snake.tools[2].spelt = camel.tools[2].spelt
        assert.same(meaning.plain(camel), meaning.plain(snake))
        assert.same({ text("Be brief.") }, camel.system)
        assert.equal("assistant", camel.turns[2].role)
        assert.equal(camel.turns[2].parts[1].id, camel.turns[3].parts[1].id)
        assert.same({ kind = "image", data = "AAAA", media_type = "image/png" }, camel.turns[1].parts[2])
        assert.same({ mode = "tool", name = "f" }, camel.tool_choice)
        assert.same({ budget = 99, show = true }, camel.reasoning)
        assert.equal("web_search", camel.tools[2].kind)
        assert.same({ 0.5, 3, 10, { "x" } }, { camel.top_p, camel.top_k, camel.max_tokens, camel.stop })
    end)

    it("gives calls without ids some, and finds whose a result is by name and order", function()
        local r = read('{"contents":[{"role":"model","parts":[{"functionCall":{"name":"a"}},{"functionCall":{"name":"b"}},'
            .. '{"functionCall":{"name":"a"}}]},'
            .. '{"parts":[{"functionResponse":{"name":"b","response":{"error":"no"}}},{"functionResponse":{"name":"a","response":{"x":1}}},'
            .. '{"functionResponse":{"name":"a","response":{"result":[1]}}}]}]}')
        local calls, results = r.turns[1].parts, r.turns[2].parts
        assert.same({ calls[2].id, calls[1].id, calls[3].id }, { results[1].id, results[2].id, results[3].id })
        assert.is_true(results[1].error)
        assert.same({ "no", '{"x":1}', "[1]" }, { results[1].parts[1].text, results[2].parts[1].text, results[3].parts[1].text })
        assert.equal("{}", tostring(calls[1].input))
    end)

    it("bears very many calls of one name, and a schema that is one long word", function()
        local calls, results = {}, {}
        for i = 1, 5000 do calls[i], results[i] = '{"functionCall":{"name":"a"}}', '{"functionResponse":{"name":"a","response":{}}}' end
        local started = os.clock()
        local r = read('{"contents":[{"role":"model","parts":[' .. table.concat(calls, ",") .. ']},{"parts":[' .. table.concat(results, ",")
            .. ']}],"tools":[{"functionDeclarations":[{"name":"f","parameters":{"description":"m' .. ("a"):rep(100000) .. '"}}]}]}')
        assert.equal(r.turns[1].parts[5000].id, r.turns[2].parts[5000].id)
        assert.is_true(os.clock() - started < 10)
    end)

    it("has its schemas put into JSON Schema's words, and nothing else touched", function()
        local r = read('{"contents":[],"tools":[{"functionDeclarations":[{"name":"f","parameters":{"type":"OBJECT","propertyOrdering":'
            .. '["type"],"properties":'
            .. '{"type":{"type":"STRING","nullable":true,"maxLength":"7"},"list":{"type":"ARRAY","items":{"type":"INTEGER"}}},"required":["type"]}},'
            .. '{"name":"g","parameters":{"type":"object",  "properties":{"n":{"type":"number","maximum":12345678901234567890}}}}]}]}')
        assert.equal('{"type":"object","properties":{"type":{"type":["string","null"],"maxLength":7},"list":{"type":"array","items":'
            .. '{"type":"integer"}}},"required":["type"]}',
            tostring(r.tools[1].schema))
        assert.equal('{"type":"object",  "properties":{"n":{"type":"number","maximum":12345678901234567890}}}', tostring(r.tools[2].schema))
    end)

    it("says in other protocols' words what its tools' modes and formats are", function()
        local function with(mode, names)
            return read({ contents = json.array(), tools = { { functionDeclarations = { { name = "a" }, { name = "b" } } } },
                toolConfig = { functionCallingConfig = { mode = mode, allowedFunctionNames = names } } })
        end
        assert.same({ mode = "none" }, with("NONE").tool_choice)
        assert.same({ mode = "auto" }, with("VALIDATED").tool_choice)
        local some = with("ANY", { "b", "c" })
        assert.same({ mode = "required" }, some.tool_choice)
        assert.same({ { name = "b" } }, some.tools)
        assert.same({ kind = "json" }, read('{"contents":[],"generationConfig":{"responseMimeType":"application/json"}}').format)
        local schema = read('{"contents":[],"generationConfig":{"responseMimeType":"application/json","responseSchema":{"type":"STRING"}}}').format
        assert.equal('{"type":"string"}', tostring(schema.schema))
        assert.is_true(read('{"contents":[],"generationConfig":{"thinkingConfig":{"thinkingBudget":0}}}').reasoning.off)
        assert.equal("low", read('{"contents":[],"generationConfig":{"thinkingConfig":{"thinkingLevel":"LOW"}}}').reasoning.effort)
    end)

    it("is refused elsewhere for what only Google has", function()
        local r = read('{"contents":[{"parts":[{"text":"x"}]}],"cachedContent":"cachedContents/1","safetySettings":[{"category":"C"}]}')
        local cx = context.new()
        local ok, raised = pcall(require("claw.protocols.openai_chat").write_request, r, cx)
        assert.is_false(ok)
        assert.truthy(raised.param:find("cachedContent", 1, true))
        local body = write(r)
        assert.equal("cachedContents/1", body.cachedContent)
        assert.same({ { category = "C" } }, body.safetySettings)
        assert.has_error(function() read('{"contents":5}') end)
        assert.has_error(function() read('{}') end)
    end)
end)

describe("a request for Gemini", function()
    it("has turns of a role together, and results in the order of their calls", function()
        local body = write({ turns = { turn("user", text("go")), turn("assistant", { kind = "call", id = "1", name = "a",
            input = context.doc("{}") }),
            turn("assistant", { kind = "call", id = "2", name = "b", input = '{"x":1}' }),
            turn("user", { kind = "result", id = "2", parts = { text("two") } }), turn("user", { kind = "result", id = "1", error = true,
                parts = { text("one") } }, text("and?")) } })
        assert.same({ { role = "user", parts = { { text = "go" } } },
            { role = "model", parts = { { functionCall = { name = "a", args = {} } }, { functionCall = { name = "b", args = { x = 1 } } } } },
            { role = "user", parts = { { functionResponse = { name = "a", response = { error = "one" } } },
                { functionResponse = { name = "b", response = { output = "two" } } }, { text = "and?" } } } }, body.contents)
    end)

    it("gives Gemini 3 ids, and a signature for calls of others", function()
        local turns = { turn("assistant", { kind = "call", id = "1", name = "a", input = "{}" }, { kind = "call", id = "2", name = "a",
            input = "{}" }),
            turn("user", { kind = "result", id = "1", parts = { { kind = "image", data = "AA", media_type = "image/png" } } }) }
        local parts = write({ turns = turns }, context.new({ model = "gemini-3-pro" })).contents
        assert.equal("1", parts[1].parts[1].functionCall.id)
        assert.equal("skip_thought_signature_validator", parts[1].parts[1].thoughtSignature)
        assert.is_nil(parts[1].parts[2].thoughtSignature)
        assert.equal("image/png", parts[2].parts[1].functionResponse.parts[1].inlineData.mimeType)
        parts = write({ turns = turns }, context.new({ model = "gemini-3-pro", provider = { call_ids = false } })).contents
        assert.is_nil(parts[1].parts[1].functionCall.id)
        parts = write({ turns = turns }, context.new({ model = "gemini-2.5-pro" })).contents
        assert.is_nil(parts[1].parts[1].thoughtSignature)
        assert.equal("image/png", parts[2].parts[2].inlineData.mimeType)
    end)

    it("has signatures of its own only, also where a dialect carried them in front", function()
        local body = write({ turns = { turn("assistant", { kind = "thinking", text = "mine", signature = "S1", origin = "gemini" },
            { kind = "thinking", text = "theirs", signature = "S2", origin = "anthropic" }, { kind = "redacted", data = "R", origin = "openai" },
                text("x"),
            { kind = "thinking", text = "", signature = "S3", origin = "gemini" }, { kind = "call", id = "1", name = "f", input = "{}" }) } })
        assert.same({ { text = "mine", thought = true, thoughtSignature = "S1" }, { text = "x" },
            { functionCall = { name = "f", args = {} }, thoughtSignature = "S3" } }, body.contents[1].parts)
    end)

    it("carries a whole JSON Schema as it is, and knows server tools by kind", function()
        local schema = '{"$ref":"#/$defs/a",  "$defs":{"a":{"const":1,"oneOf":[{}],"additionalProperties":false}}}'
        local r = { system = {}, turns = { turn("user", text("x")) }, tools = { { name = "f", schema = context.doc(schema) },
            { server = context.doc('{"type":"web_search_20250305","name":"web_search"}'), kind = "web_search_20250305", origin = "anthropic" } },
            tool_choice = { mode = "tool", name = "f" }, format = { kind = "schema", schema = context.doc(schema) } }
        local body = gemini.write_request(r, context.new())
        assert.equal(schema, tostring(body.tools[1].functionDeclarations[1].parametersJsonSchema))
        assert.equal("{}", tostring(body.tools[2].googleSearch))
        assert.same({ mode = "ANY", allowedFunctionNames = { "f" } }, body.toolConfig.functionCallingConfig)
        assert.equal(schema, tostring(body.generationConfig.responseJsonSchema))
        r.tools = { { server = context.doc("{}"), kind = "computer", origin = "anthropic" } }
        assert.has_error(function() gemini.write_request(r, context.new()) end)
    end)

    it("thinks as its model can", function()
        local function thinking(model, reasoning)
            local config = write({ reasoning = reasoning }, context.new({ model = model })).generationConfig
            return config and config.thinkingConfig
        end
        assert.same({ thinkingBudget = 24576 }, thinking("gemini-2.5-flash", { effort = "high" }))
        assert.same({ thinkingBudget = 0 }, thinking("gemini-2.5-flash", { off = true }))
        assert.same({ thinkingBudget = 128, includeThoughts = true }, thinking("gemini-2.5-pro", { effort = "none", show = true }))
        assert.same({ thinkingBudget = 32768 }, thinking("gemini-2.5-pro", { budget = 60000 }))
        assert.same({ thinkingBudget = -1, includeThoughts = true }, thinking("gemini-2.5-flash-lite", { show = true }))
        assert.same({ thinkingLevel = "low" }, thinking("gemini-3-pro-preview", { effort = "minimal" }))
        assert.same({ thinkingLevel = "high" }, thinking("gemini-3-pro-preview", { effort = "medium" }))
        assert.same({ thinkingLevel = "medium" }, thinking("gemini-3-flash", { effort = "medium" }))
        assert.is_nil(thinking("gemini-2.0-flash", { effort = "high" }))
    end)

    it("does not drop in silence", function()
        local cx = context.new({ lossy = "allow" })
        write({ logit_bias = context.doc('{"1":2}'), user = "u", store = true, verbosity = "low", parallel = false, service_tier = "flex",
            rest = { x = 1, y = json.null },
            tools = { { name = "f", strict = true } }, stop = { "1", "2", "3", "4", "5", "6" } }, cx)
        assert.equal("tools.strict,parallel_tool_calls,stop,logit_bias,user,service_tier,store,verbosity,x", context.dropped(cx))
        for _, part in ipairs({ { kind = "image", url = "https://x.org/a.png" }, { kind = "document", file_id = "f", origin = "openai" },
            { kind = "server_call", raw = context.doc("{}"), origin = "anthropic" }, { kind = "other", raw = context.doc("{}"), what = "z" } }) do
            local ok, raised = pcall(write, { turns = { turn("user", part) } })
            assert.is_false(ok)
            assert.equal(400, raised.status)
        end
        local fetched = write({ turns = { turn("user", { kind = "image", url = "https://x.org/a.png?s=1" }) } },
            context.new({ provider = { remote_files = true } }))
        assert.same({ fileUri = "https://x.org/a.png?s=1", mimeType = "image/png" }, fetched.contents[1].parts[1].fileData)
    end)

    it("has at least one turn", function()
        local body = write({ system = { text("Only this.") }, turns = {} })
        assert.is_nil(body.systemInstruction)
        assert.same({ { role = "user", parts = { { text = "Only this." } } } }, body.contents)
        body = write({ system = { text("s") }, turns = { turn("user", text("a")), turn("system", text("note")) } })
        assert.same({ parts = { { text = "s" } } }, body.systemInstruction)
        assert.same({ { role = "user", parts = { { text = "a" }, { text = "note" } } } }, body.contents)
    end)
end)
