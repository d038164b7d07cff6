local testing = require("openclaw.testing")

local function run(settings, request, candidates)
    local p = testing.load("policies/hedged.lua", { conf = { policies = { settings = { hedged = settings } } } })
    return p:run("route", testing.request(request), candidates or { "near", "far" })
end

describe("policies/hedged", function()
    it("hedges everybody, and leaves the order", function()
        local result = run({})
        assert.equal("p95", result.hedge)
        assert.same({ "near", "far" }, result.names)
        assert.equal(250, run({ after = 250 }).hedge)
    end)

    it("hedges who is meant, and leaves the others to the route", function()
        local settings = { header = "x-priority", is = "high" }
        assert.equal("p95", run(settings, { headers = { ["X-Priority"] = "high" } }).hedge)
        assert.is_nil(run(settings, { headers = { ["x-priority"] = "low" } }).hedge)
        assert.is_nil(run(settings).hedge)
        assert.equal("p95", run({ header = "x-priority" }, { headers = { ["x-priority"] = "any" } }).hedge)
        settings.others = false
        assert.is_false(run(settings).hedge)
    end)

    it("does not pay twice for long answers", function()
        assert.equal("p95", run({ max_tokens = 100 }, { body = { max_tokens = 100 } }).hedge)
        assert.is_nil(run({ max_tokens = 100 }, { body = { max_tokens = 101 } }).hedge)
        assert.is_nil(run({ max_tokens = 100 }, { body = {} }).hedge)
        assert.is_nil(run({ max_tokens = 100 }, { body = "[1]" }).hedge)
    end)

    it("has nothing to say where one can be asked only", function()
        assert.is_nil(run({}, nil, { "near" }).hedge)
    end)
end)
