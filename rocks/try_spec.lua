-- Run by `make rock` against the installed rock: nothing of the source tree is on the path.

local testing = require("openclaw.testing")

describe("the installed rock", function()
    it("comes from where it was installed", function()
        assert.truthy(package.searchpath("openclaw.testing", package.path):find("build/rock/share/lua/5.1/", 1, true))
    end)

    it("runs a policy", function()
        local p = testing.load("policies/keep_it_short.lua", { source = [[
            local P = { name = "keep_it_short", api = 1 }
            function P.request(req, body)
                if body.max_tokens == nil then body.max_tokens = 500 end
            end
            return P]] })
        local result = p:run("request", testing.request({ body = '{"messages":[]}' }))
        assert.equal('{"messages":[],"max_tokens":500}', result.body)
    end)
end)
