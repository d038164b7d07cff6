local testing = require("openclaw.testing")

local URL = "http://auth/check"

local function load(settings)
    settings.endpoint = settings.endpoint or URL
    return testing.load("policies/external_auth.lua", { conf = { policies = { settings = { external_auth = settings } } } })
end

local function admit(p, credentials, path)
    return p:run("admit", testing.request({ method = "GET", path = path, headers = { Authorization = credentials } }))
end

describe("policies/external_auth", function()
    before_each(testing.reset)

    it("asks, and keeps the answer for a while", function()
        local p = load({ keep_ms = 1000 })
        testing.fetch({ [URL] = { status = 204 } })
        assert.is_nil(admit(p, "Bearer a", "/v1/models").denied)
        assert.is_nil(admit(p, "Bearer a", "/v1/models").denied)
        assert.equal(1, #p.calls)
        assert.same({ authorization = "Bearer a", ["x-original-method"] = "GET", ["x-original-path"] = "/v1/models" }, p.calls[1].headers)
        admit(p, "Bearer a", "/other")
        admit(p, "Bearer b", "/v1/models")
        assert.equal(3, #p.calls)
        testing.clock:advance(1000)
        admit(p, "Bearer a", "/v1/models")
        assert.equal(4, #p.calls)
    end)

    it("refuses who is refused, and who shows nothing", function()
        local p = load({})
        testing.fetch({ [URL] = { status = 403 } })
        assert.same({ status = 401, code = "unauthorized", message = "The credentials were refused" }, admit(p, "x").denied)
        assert.is_not_nil(admit(p, "x").denied)
        assert.equal(1, #p.calls)
        assert.equal(401, admit(p, nil).denied.status)
        assert.equal(1, #p.calls)
    end)

    it("is closed, or open, while nobody answers", function()
        testing.fetch(function() return nil, "no answer in 2000 ms", "ETIMEOUT" end)
        local result = admit(load({}), "x")
        assert.equal(503, result.denied.status)
        assert.equal("no answer in 2000 ms", result.logs[1].fields.message)
        assert.is_nil(admit(load({ fail_open = true }), "x").denied)
        testing.fetch({ [URL] = { status = 500 } })
        assert.equal("status 500", admit(load({}), "x").logs[1].fields.message)
    end)

    it("keeps no credentials, and wants to know whom to ask", function()
        local p = load({})
        testing.fetch({ [URL] = { status = 200 } })
        admit(p, "Bearer very-secret")
        for key in pairs(p.store.entries) do assert.is_nil(key:find("secret")) end
        assert.error_matches(function() testing.load("policies/external_auth.lua") end, "init: .* wants an endpoint")
    end)
end)
