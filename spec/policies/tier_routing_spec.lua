local testing = require("openclaw.testing")

local p = testing.load("policies/tier_routing.lua", { conf = { policies = { settings = { tier_routing = {
    tiers = { premium = { "fast", "standard" }, free = { "standard" } } } } } } })

local function names(given)
    return table.concat(p:run("route", testing.request(given), { "standard", "fast" }).names, " ")
end

describe("policies/tier_routing", function()
    it("gives premium clients the fast one first, and others not at all", function()
        assert.equal("fast standard", names({ client = { tier = "premium" } }))
        assert.equal("fast standard", names({ headers = { ["X-Client-Tier"] = "premium" } }))
        assert.equal("standard", names({ client = { tier = "free" }, headers = { ["x-client-tier"] = "premium" } }))
        assert.equal("standard", names())
        assert.equal("standard", names({ client = { tier = "unheard of" } }))
    end)

    it("says the tier in the log", function()
        assert.same({ tier = "premium" }, p:run("log", testing.request({ client = { tier = "premium" } })).fields)
        assert.same({ tier = "free" }, p:run("log", testing.request()).fields)
    end)

    it("does nothing without tiers", function()
        local bare = testing.load("policies/tier_routing.lua")
        assert.same({ "a", "b" }, bare:run("route", testing.request(), { "a", "b" }).names)
    end)
end)
