-- Embeddings of all protocols that have some.

local context = require("support.context")
local json = require("claw.json")
local mutate = require("support.mutate")
local protocols = require("claw.protocols")
local recorded = require("support.recorded")
local written = require("support.written")

local UPSTREAMS = { "openai_embeddings", "gemini_embed", "cohere_embeddings", "ollama_embeddings", "bedrock_embeddings" }
local CLIENTS = { "openai_embeddings", "gemini_embed", "gemini_embed_batch", "ollama_embeddings" }

local function to(name, body, overrides)
    return written.request("openai_embeddings", name, body, overrides)
end

local function answered(name, text, encoding)
    local cx = context.new({ answering = true, request = { encoding = encoding } })
    local a, message = protocols.get(name).read_answer(context.doc(text), cx)
    if not a then return nil, message end
    return json.decode(json.encode(protocols.get("openai_embeddings").write_answer(a, cx))), a
end

describe("a request for embeddings", function()
    local body = { model = "m", input = { "a", "b" }, dimensions = 3, encoding_format = "base64", truncate = "END" }

    it("is written in each protocol", function()
        assert.same({ model = "sent-model", input = { "a", "b" }, dimensions = 3, encoding_format = "base64", truncate = "END" },
            to("openai_embeddings", body))
        assert.same({ model = "sent-model", texts = { "a", "b" }, input_type = "search_document", embedding_types = { "base64" },
            output_dimension = 3, truncate = "END" }, to("cohere_embeddings", body))
        assert.same({ model = "sent-model", input = { "a", "b" }, dimensions = 3, truncate = "END" }, to("ollama_embeddings", body))
        local made, dropped = to("gemini_embed", body)
        assert.same({ model = "models/sent-model", content = { parts = { { text = "b" } } }, outputDimensionality = 3 }, made.requests[2])
        assert.equal("truncate", dropped)
    end)

    it("is written for the models of Bedrock", function()
        local function bedrock(model, input) return (to("bedrock_embeddings", { input = input, dimensions = 256 }, { model = model })) end
        assert.same({ inputText = "a", dimensions = 256 }, bedrock("amazon.titan-embed-text-v2:0", "a"))
        assert.same({ texts = { "a", "b" }, input_type = "search_document", embedding_types = { "float" }, output_dimension = 256 },
            bedrock("cohere.embed-v4:0", { "a", "b" }))
        assert.equal("a", bedrock("amazon.nova-2-multimodal-embeddings-v1:0", "a").singleEmbeddingParams.text.value)
        assert.has_error(function() bedrock("amazon.titan-embed-text-v2:0", { "a", "b" }) end)
    end)

    it("may be tokens only where they are known", function()
        assert.same({ 1, 2 }, to("openai_embeddings", { input = { 1, 2 } }).input)
        assert.same({ { 1 }, { 2 } }, to("openai_embeddings", { input = { { 1 }, { 2 } } }).input)
        for i = 2, #UPSTREAMS do
            local ok, err = pcall(to, UPSTREAMS[i], { input = { 1, 2 } })
            assert.same({ false, 400, "input" }, { ok, err.status, err.param })
        end
    end)

    it("is refused when it says nothing", function()
        for _, bad in ipairs({ { model = "m" }, { input = "" }, { input = json.array() }, { input = { "a", true } },
            { input = "a", encoding_format = "int8" } }) do
            local ok, err = pcall(to, "openai_embeddings", bad)
            assert.same({ false, 400 }, { ok, err.status })
        end
    end)

    it("may come from Google's clients", function()
        assert.equal("a\nb", written.request("gemini_embed", "openai_embeddings",
            { content = { parts = { { text = "a" }, { text = "b" } } }, outputDimensionality = 3, taskType = "RETRIEVAL_QUERY" }).input)
        local body_out, dropped = written.request("gemini_embed_batch", "openai_embeddings",
            { requests = { { model = "models/m", content = { parts = { { text = "a" } } }, outputDimensionality = 3, title = "T" },
                { content = { parts = { { text = "b" } } } } } })
        assert.same({ { "a", "b" }, 3, "title" }, { body_out.input, body_out.dimensions, dropped })
        assert.has_error(function() written.request("gemini_embed", "openai_embeddings", { content = {} }) end)
        assert.has_error(function() written.request("gemini_embed_batch", "openai_embeddings", { requests = {} }) end)
    end)
end)

describe("an answer of embeddings", function()
    it("is in the encoding that was asked for", function()
        local base64 = '{"data":[{"index":1,"embedding":"AACAPw=="},{"index":0,"embedding":"AAAAv83MzD0="}],"model":"m","usage":{"prompt_tokens":5}}'
        local out = answered("openai_embeddings", base64, "float")
        assert.same({ { -0.5, 0.1 }, { 1 } }, { out.data[1].embedding, out.data[2].embedding })
        assert.same({ 0, 1, "m", 5, 5, "list" }, { out.data[1].index, out.data[2].index, out.model, out.usage.prompt_tokens, out.usage.total_tokens,
            out.object })
        assert.equal("AACAPw==", answered("openai_embeddings", base64, "base64").data[2].embedding)
        assert.equal("AAAAv83MzD0=", answered("ollama_embeddings", '{"model":"m","embeddings":[[-0.5,0.1]]}', "base64").data[1].embedding)
    end)

    it("is read from each protocol", function()
        local function first(name, text)
            local out = assert(answered(name, text))
            return { out.data[1].embedding, #out.data, out.usage.prompt_tokens }
        end
        assert.same({ { 1, 2 }, 2, 7 }, first("cohere_embeddings",
            '{"embeddings":{"float":[[1,2],[3,4]]},"meta":{"billed_units":{"input_tokens":7}}}'))
        assert.same({ { 1 }, 1, 0 }, first("cohere_embeddings", '{"embeddings":{"base64":["AACAPw=="]}}'))
        assert.same({ { 1, 2 }, 1, 7 }, first("ollama_embeddings", '{"embeddings":[[1,2]],"prompt_eval_count":7}'))
        assert.same({ { 1, 2 }, 1, 7 }, first("gemini_embed", '{"embedding":{"values":[1,2]},"usageMetadata":{"promptTokenCount":7}}'))
        assert.same({ { 1, 2 }, 2, 0 }, first("gemini_embed_batch", '{"embeddings":[{"values":[1,2]},{"values":[3]}]}'))
        assert.same({ { 1, 2 }, 1, 7 }, first("bedrock_embeddings", '{"embedding":[1,2],"inputTextTokenCount":7}'))
        assert.same({ { 1, 2 }, 1, 0 }, first("bedrock_embeddings", '{"embeddings":[[1,2]]}'))
    end)

    it("is none, or an error", function()
        for _, name in ipairs(UPSTREAMS) do
            for _, text in ipairs({ "{}", "[]", '{"data":[]}', '{"embeddings":5}', '{"embeddings":[5]}', '{"data":[{}]}', '{"embedding":{}}' }) do
                local a, message = answered(name, text)
                assert.is_nil(a)
                assert.is_string(message)
            end
        end
        for _, name in ipairs({ "openai_embeddings", "ollama_embeddings", "gemini_embed" }) do
            assert.truthy(answered(name, '{"error":{"message":"broken"}}').error.message, name)
        end
        assert.equal("broken", answered("cohere_embeddings", '{"message":"broken"}').error.message)
    end)

    it("may go to Google's clients", function()
        local cx = context.new({ answering = true })
        local a = { vectors = { "AACAPw==", { 2 } } }
        assert.same({ embedding = { values = { 1 } } }, protocols.get("gemini_embed").write_answer(a, cx))
        assert.same({ embeddings = { { values = { 1 } }, { values = { 2 } } } }, protocols.get("gemini_embed_batch").write_answer(a, cx))
    end)
end)

describe("embeddings and chat", function()
    it("are never taken for each other", function()
        local translate = require("claw.translate")
        local function pair(dialect, ...) return translate.pair(dialect, { protocols = { ... }, paths = {} }) end
        assert.is_nil(pair("openai_embeddings", "cohere_chat"))
        assert.equal("cohere_embeddings", pair("openai_embeddings", "cohere_chat", "cohere_embeddings").name)
        assert.equal("cohere_chat", pair("openai_completions", "cohere_embeddings", "cohere_chat").name)
        assert.equal("openai_embeddings", pair("gemini_embed", "openai_chat", "openai_embeddings").name)
    end)
end)

describe("recorded embeddings", function()
    if not recorded.folder then return pending(recorded.missing) end
    local OWN = { openai = "openai_embeddings", ollama = "openai_embeddings", gemini = "gemini_embed_batch", bedrock = "bedrock_embeddings" }
    local function read_requests(own, text, whole)
        local doc = context.parse(text)
        local client = doc and protocols.get(own).read_request
        if not client then return end
        for _, name in ipairs(UPSTREAMS) do
            local cx = context.new({ lossy = "allow" })
            local ok, r = pcall(client, doc, cx)
            if whole then assert.is_true(ok) end
            local fine, made = pcall(protocols.get(name).write_request, ok and r, cx)
            if ok and fine then json.encode(made) end
            if not ok then assert.equal(400, r.status) elseif not fine then assert.equal(400, made.status) end
        end
    end
    for _, case in ipairs(recorded.cases(function(c) return c.meta.api == "embeddings" end)) do
        local own = OWN[case.meta.provider]
        it(case.name, function()
            read_requests(own, case.request, case.meta.status == 200)
            if case.meta.status ~= 200 then
                assert.equal("invalid_request", protocols.get(own).read_error(case.meta.status, case.json, context.new()).kind)
            else
                local out, a = assert(answered(own, case.json, "float"))
                assert.truthy(#out.data[1].embedding > 100)
                local again = assert(answered(own, case.json, "base64"))
                assert.equal(#out.data[1].embedding * 4, #require("claw.base64").decode(again.data[1].embedding))
                local back = assert(answered("openai_embeddings", json.encode(again), "float")).data[1].embedding
                for i, v in ipairs(out.data[1].embedding) do assert.truthy(math.abs(v - back[i]) <= math.abs(v) * 1e-7, case.name) end
                assert.truthy(a.vectors[1])
            end
            for round = 1, 40 do
                local rng = mutate.random(round * 7919)
                read_requests(own, mutate.text(case.request, rng))
                local text = mutate.text(case.json, rng)
                local doc = context.parse(text)
                for _, to_client in ipairs(CLIENTS) do
                    local cx = context.new({ answering = true, request = { encoding = "base64" } })
                    local one = doc and protocols.get(own).read_answer(doc, cx)
                    if one then json.encode(protocols.get(to_client).write_answer(one, cx)) end
                end
                assert.truthy(protocols.get(own).read_error(500, text, context.new()).message)
            end
        end)
    end
end)
