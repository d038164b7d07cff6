-- From the repository's root: busted examples/own_policy/spec
local testing = require("openclaw.testing")

local p = testing.load("examples/own_policy/policies/keep_it_short.lua",
    { conf = { policies = { settings = { keep_it_short = { max_tokens = 3 } } } } })

local function sent(body)
    return p:run("request", testing.request({ body = body })).json.max_tokens
end

describe("keep_it_short", function()
    it("holds down what is too much, and leaves what is less", function()
        assert.equal(3, sent({ max_tokens = 100 }))
        assert.equal(2, sent({ max_tokens = 2 }))
    end)

    it("counts for who does not ask", function()
        assert.equal(3, sent({ messages = testing.array() }))
        assert.equal(3, sent({ max_tokens = testing.null }))
    end)
end)
