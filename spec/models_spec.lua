local cjson = require("cjson")
local models = require("claw.models")

local function compile(node)
    local problems = {}
    return models.compile(node, "upstreams.x", problems), problems
end

describe("claw.models", function()
    it("takes what is listed, globbed or mapped, and anything when nothing is listed", function()
        local m = compile({ models = { "gpt-4", { name = "gpt-4o", context_window = 128000 }, "ft:*" },
            model_map = { fast = "gpt-4o", same = "same", ["claude-*"] = "gpt-4" } })
        for asked, expected in pairs({ ["gpt-4"] = { true }, ["gpt-4o"] = { true }, ["ft:abc"] = { true },
            fast = { true, "gpt-4o" }, same = { true }, ["claude-3"] = { true, "gpt-4" }, other = { false },
            ["GPT-4"] = { false } }) do
            assert.same(expected, { models.takes(m, asked) })
        end
        assert.is_true(models.takes(compile({}), "whatever"))
        assert.is_true(models.takes(compile({ models = {} }), "whatever"))
    end)

    it("asks the longest glob of a map first", function()
        local m = compile({ model_map = { ["*"] = "c", ["gpt-*"] = "a", ["gpt-4*"] = "b" } })
        assert.same({ true, "b" }, { models.takes(m, "gpt-4o") })
        assert.same({ true, "a" }, { models.takes(m, "gpt-3") })
        assert.same({ true, "c" }, { models.takes(m, "x") })
    end)

    it("knows an upstream's own model", function()
        assert.equal("claude-3", models.own(compile({ models = { "x*", "claude-3", "claude-2" } })))
        assert.equal("mistral:7b", models.own(compile({ models = { "mistral" }, model_map = { mistral = "mistral:7b" } })))
        assert.is_nil(models.own(compile({ models = { "x*" } })))
        assert.is_nil(models.own(compile({})))
    end)

    it("finds a model's details by the name sent, then by the name asked", function()
        local m = compile({ models = { { name = "a", context_window = 1 }, { name = "b*", context_window = 2 } } })
        assert.equal(1, models.details(m, "a", "z").context_window)
        assert.equal(1, models.details(m, "z", "a").context_window)
        assert.equal(2, models.details(m, "bcd", "z").context_window)
        assert.is_nil(models.details(m, "z", nil))
    end)

    it("refuses what is no model", function()
        local _, problems = compile({ models = { 5, { weight = 1 }, "" }, model_map = { a = 1 } })
        local places = {}
        for i, p in ipairs(problems) do places[i] = p.path end
        assert.same({ "upstreams.x.models[0]", "upstreams.x.models[1]", "upstreams.x.models[2]",
            "upstreams.x.model_map.a" }, places)
    end)

    describe("listing", function()
        local known = models.known({
            { type = "openai", models = compile({ models = { "gpt-4", "ft:*" }, model_map = { fast = "gpt-4" } }) },
            { type = "anthropic", models = compile({ models = { "claude-3", "gpt-4" } }) },
        })

        it("names each once, in order, without globs", function()
            local names = {}
            for i, k in ipairs(known) do names[i] = { k.id, k.owner } end
            assert.same({ { "gpt-4", "openai" }, { "fast", "openai" }, { "claude-3", "anthropic" } }, names)
            assert.same({ 8192, 8192 }, { known[2].context, known[2].output })
            assert.is_nil(known[3].context)
            assert.equal("gpt-4, fast, claude-3", models.names(known))
            assert.equal("gpt-4, and 2 more", models.names(known, 1))
        end)

        it("is what each dialect's clients read", function()
            local body = cjson.decode(models.listing(known, "openai"))
            assert.equal("list", body.object)
            assert.same({ id = "gpt-4", object = "model", created = 0, owned_by = "openai", context_window = 8192,
                max_output_tokens = 8192 }, body.data[1])
            body = cjson.decode(models.listing(known, "anthropic"))
            assert.is_false(body.has_more)
            assert.equal("claude-3", body.last_id)
            assert.equal("claude-3", body.data[3].display_name)
            assert.same({ "model", 8192, 8192 }, { body.data[1].type, body.data[1].max_input_tokens, body.data[1].max_tokens })
            body = cjson.decode(models.listing(known, "gemini"))
            assert.equal("models/gpt-4", body.models[1].name)
            assert.same({ 8192, 8192 }, { body.models[1].inputTokenLimit, body.models[1].outputTokenLimit })
            assert.equal('"data":[]', models.listing({}, "openai"):match('"data":%[%]'))
        end)

        it("gives one", function()
            assert.equal("fast", cjson.decode(models.single(known, "fast", "openai")).id)
            assert.is_nil(models.single(known, "none", "openai"))
        end)
    end)
end)
