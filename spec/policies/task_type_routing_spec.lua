local testing = require("openclaw.testing")

local p = testing.load("policies/task_type_routing.lua", { conf = { policies = { settings = { task_type_routing = {
    tasks = { blog_post = { to = "quality", model = "gpt-4o" }, caption = { to = "fast" } } } } } } })

local function route(body)
    return p:run("route", testing.request({ body = body }), { { "fast", model = "small" }, "quality" })
end

describe("policies/task_type_routing", function()
    it("orders by task, and sets the model", function()
        local result = route({ task_type = "blog_post" })
        assert.same({ "quality", "fast" }, result.names)
        assert.equal("gpt-4o", result.candidates[1].model)
        assert.equal("small", result.candidates[2].model)
        assert.same({ "fast", "quality" }, route({ metadata = { task_type = "caption" } }).names)
        assert.equal("small", route({ task_type = "caption" }).candidates[1].model)
    end)

    it("leaves the order for what it does not know", function()
        assert.same({ "fast", "quality" }, route({ task_type = "poem" }).names)
        assert.same({ "fast", "quality" }, route({ task_type = 5 }).names)
        assert.same({ "fast", "quality" }, route({}).names)
        assert.same({ "fast", "quality" }, route(nil).names)
    end)

    it("keeps the field to itself", function()
        local body = '{"task_type":"blog_post", "n": 1.0}'
        assert.equal('{"n":1.0}', p:run("request", testing.request({ body = body })).body)
        assert.is_false(p:run("request", testing.request({ body = '{"n":1}' })).changed)
        assert.is_false(p:run("request", testing.request({ body = "[1]" })).changed)
    end)

    it("is logged", function()
        assert.same({ task_type = "poem" }, p:run("log", testing.request({ body = { task_type = "poem" } })).fields)
    end)
end)
