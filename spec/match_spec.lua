local fake_core = require("support.fake_core")
local match = require("claw.match")

local function compile(node, extra)
    local problems = {}
    local m = match.compile(node, fake_core.new(), "routes[0].match", problems, extra)
    return m, problems
end

local function matches(node, r, method, path, model)
    local m, problems = compile(node)
    assert.same({}, problems)
    return #match.reasons(m, r or {}, method or "POST", path or "/v1/chat/completions", model) == 0
end

describe("claw.match", function()
    local body = {
        model = "gpt-4", temperature = 0.0, stream = true, task_type = "blog_post", tags = { "a", "b" },
        messages = {
            { role = "system", content = "be kind" },
            { role = "user", content = { { type = "text", text = "My Invoice is wrong" }, { type = "image_url" } } },
        },
        metadata = { team = { name = "red" } },
    }
    local r = {
        headers = { ["x-tier"] = "gold", ["x-size"] = "5" }, query = { debug = "1" }, ip = "10.1.2.3", body = body,
    }

    local cases = {
        { {}, true }, { nil, true },
        { { path = "/v1/chat/completions" }, true }, { { path = "/v1/embeddings" }, false }, { { path = "/v1/*" }, true },
        { { path = { "/a", "/v1/chat/completions" } }, true }, { { path = { contains = "chat" } }, true },
        { { method = "post" }, true }, { { method = "GET" }, false }, { { method = { "GET", "POST" } }, true },
        { { method = "*" }, true },
        { { headers = { ["X-Tier"] = "gold" } }, true }, { { headers = { ["X-Tier"] = "Gold" } }, false },
        { { headers = { ["x-size"] = 5 } }, true }, { { headers = { ["x-size"] = { gt = 4 } } }, true },
        { { headers = { ["x-none"] = { exists = false } } }, true }, { { headers = { ["x-none"] = "a" } }, false },
        { { query = { debug = 1 } }, true }, { { query = { debug = { "0", "2" } } }, false },
        { { json_body = { model = "gpt-4" } }, true }, { { json_body = { model = "gpt-4o" } }, false },
        { { json_body = { temperature = 0 } }, true }, { { json_body = { temperature = { lte = 0.2 } } }, true },
        { { json_body = { stream = true } }, true }, { { json_body = { stream = "true" } }, false },
        { { json_body = { task_type = { "blog_post", "seo" } } }, true },
        { { json_body = { ["messages[-1].content"] = { contains = { "billing", "invoice" } } } }, true },
        { { json_body = { ["messages[0].content"] = { contains = "invoice" } } }, false },
        { { json_body = { ["messages[*].content"] = { contains = "KIND" } } }, true },
        { { json_body = { ["metadata.team.name"] = "red" } }, true },
        { { json_body = { metadata = { exists = true } } }, true }, { { json_body = { tools = { exists = true } } }, false },
        { { json_body = { ["tags[*]"] = "b" } }, true },
        { { client = { ip = "10.0.0.0/8" } }, true }, { { client = { ip = { "1.2.3.4", "11.0.0.0/8" } } }, false },
        { { client = { ip = { ["not"] = "10.0.0.0/8" } } }, false }, { { client = { name = "acme" } }, false },
        { { client = { ip = { ["in"] = { "10.1.2.3" } } } }, true },
        { { model = "gpt-4" }, true }, { { model = "gpt-*" }, true }, { { model = { "a", "b" } }, false },
        { { path = "/v1/*", method = "POST", json_body = { model = "gpt-4", temperature = { gt = 0 } } }, false },
    }
    for i, case in ipairs(cases) do
        it(("case %d is %s"):format(i, tostring(case[2])), function()
            assert.equal(case[2], matches(case[1], r, "POST", "/v1/chat/completions", "gpt-4"))
        end)
    end

    it("asks the body for the model when the request line and the body's head named none", function()
        assert.is_true(matches({ json_body = { model = { exists = false } } }, { body = {} }))
        assert.is_true(matches({ json_body = { model = 4 } }, { body = { model = 4 } }))
        assert.is_false(matches({ model = "*" }, { body = {} }))
    end)

    it("asks the core for the client's name and tier when it has clients", function()
        local core = fake_core.new({ client = function(_, field) return ({ name = "acme", tier = "gold" })[field] end })
        local m = match.compile({ client = { tier = "gold", name = { "acme", "x" } } }, core, "m", {})
        assert.is_true(match.all(m.tests, {}, nil))
        assert.is_true(match.all(match.compile({ client = "acme" }, core, "m", {}).tests, {}, nil))
        assert.is_false(match.all(match.compile({ client = { "a", "b" } }, core, "m", {}).tests, {}, nil))
    end)

    it("names what is wrong with its place", function()
        for _, case in ipairs({
            { { json_boddy = {} }, "routes[0].match.json_boddy", 'did you mean "json_body"' },
            { { json_body = { a = { containz = "x" } } }, "routes[0].match.json_body.a.containz", "contains" },
            { { headers = "x" }, "routes[0].match.headers", "map" }, { { method = 5 }, "routes[0].match.method", "method" },
            { { client = { ip = "10.0.0.0/99" } }, "routes[0].match.client.ip", "32 bits" },
            { { client = { nam = "x" } }, "routes[0].match.client.nam", 'did you mean "name"' },
            { { upstream_name = "x" }, "routes[0].match.upstream_name", "unknown key" },
            { { path = { matches = "(" } }, "routes[0].match.path.matches", "without" },
        }) do
            local _, problems = compile(case[1])
            assert.equal(1, #problems)
            assert.equal(case[2], problems[1].path)
            assert.truthy(problems[1].message:find(case[3], 1, true), problems[1].message)
        end
    end)

    it("takes upstream_name and route_id where they make sense", function()
        local m, problems = compile({ upstream_name = "anthropic-*", route_id = { "a", "b" } },
            { "upstream_name", "route_id" })
        assert.same({}, problems)
        assert.is_true(m.upstream("anthropic-claude"))
        assert.is_false(m.upstream("openai"))
        assert.is_true(m.route("b"))
    end)

    it("gives reasons", function()
        local m = compile({ path = "/a", method = "GET", model = "x", headers = { h = "1" } })
        assert.same({ "path is not /a", "method is not GET", "model is not x", "headers.h is not 1" },
            match.reasons(m, {}, "POST", "/b", "y"))
    end)

    describe("specificity", function()
        -- The first of each pair is the more specific.
        local pairs_of = {
            { { path = "/a", method = "GET" }, { path = "/a" } }, { { path = "/a" }, {} },
            { { json_body = { a = 1, b = 2 } }, { path = "/a" } },
            { { path = "/a" }, { path = { "/a", "/b" } } }, { { path = { "/a" } }, { path = { contains = "a" } } },
            { { path = { contains = "a" } }, { path = "/a*" } }, { { path = "/aaa*" }, { path = "/a*" } },
            { { path = "/v1/*", method = "GET" }, { path = "/v1/chat" } },
        }
        for i, pair in ipairs(pairs_of) do
            it("pair " .. i, function()
                assert.is_true(match.before(compile(pair[1]), compile(pair[2])))
                assert.is_false(match.before(compile(pair[2]), compile(pair[1])))
            end)
        end

        it("leaves equals to the order of the file", function()
            assert.is_nil(match.before(compile({ path = "/a" }), compile({ method = "GET" })))
        end)
    end)
end)
