local testing = require("openclaw.testing")

local function names(content, rules)
    local p = testing.load("policies/keyword_routing.lua", { conf = { policies = { settings = { keyword_routing = {
        rules = rules or { { words = { "billing", "credit note" }, to = "strong" }, { words = { "c++" }, to = "code" } } } } } } })
    local body = content ~= nil and { messages = { { role = "user", content = "billing" }, { role = "user", content = content } } } or nil
    return table.concat(p:run("route", testing.request({ body = body }), { "cheap", "strong", "code" }).names, " ")
end

describe("policies/keyword_routing", function()
    for content, expected in pairs({
        ["A question about Billing."] = "strong cheap code", ["my credit note, please"] = "strong cheap code",
        ["rebilling"] = "cheap strong code", ["hello"] = "cheap strong code", ["billing in c++ "] = "strong cheap code",
    }) do
        it("sends " .. content, function() assert.equal(expected, names(content)) end)
    end

    it("reads the text parts of a message", function()
        assert.equal("strong cheap code", names({ { type = "image_url" }, { type = "text", text = "the billing" } }))
    end)

    it("leaves alone what has no messages, and upstreams the route has not", function()
        assert.equal("cheap strong code", names(nil))
        assert.equal("cheap strong code", names(testing.null))
        assert.equal("cheap strong code", names("billing", { { words = { "billing" }, to = "elsewhere" } }))
    end)

    it("refuses a rule that is none", function()
        assert.error_matches(function() names("x", { { words = "billing", to = "strong" } }) end, "init: rules%[1%] wants words and to")
    end)
end)
