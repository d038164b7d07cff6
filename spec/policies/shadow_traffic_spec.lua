local json = require("claw.json")
local testing = require("openclaw.testing")

local function load(settings)
    return testing.load("policies/shadow_traffic.lua", { conf = { policies = { settings = { shadow_traffic = settings } } } })
end

local function request(id)
    return testing.request({ id = id, body = { model = "m", stream = true, messages = { { role = "user", content = "hi" } } } })
end

describe("policies/shadow_traffic", function()
    before_each(testing.reset)

    it("sends a copy behind the client's back", function()
        local p = load({ to = "candidate", percent = 100, model = "new" })
        testing.fetch(function()
            testing.clock:advance(250)
            return { status = 200, body = { usage = { completion_tokens = 5 } } }
        end)
        local result = p:run("request", request("r1"))
        assert.is_false(result.changed)
        assert.equal(1, #p.calls)
        assert.same({ "candidate", "/chat/completions", "POST", 60000 },
            { p.calls[1].upstream, p.calls[1].path, p.calls[1].method, p.calls[1].timeout_ms })
        assert.same({ model = "new", messages = { { role = "user", content = "hi" } } }, json.decode(p.calls[1].body))
        assert.same({ policy = "shadow_traffic", request = "r1", to = "candidate", ms = 250, status = 200, output_tokens = 5 },
            result.logs[1].fields)
    end)

    it("sends once, though the request is tried again", function()
        local p = load({ to = "candidate", percent = 100 })
        testing.fetch({ ["candidate/chat/completions"] = { status = 503, body = "<html>" } })
        local req = request("r1")
        p:run("request", req)
        p:run("request", req)
        assert.equal(1, #p.calls)
        assert.equal("m", json.decode(p.calls[1].body).model)
    end)

    it("takes a part of the requests, and none without an upstream or a body", function()
        testing.fetch(function() return nil, "refused", "ECONNECT" end)
        local p = load({ to = "candidate", percent = 30 })
        for i = 1, 500 do p:run("request", request("id-" .. i)) end
        assert.is_true(#p.calls > 90 and #p.calls < 210, #p.calls)
        assert.equal("ECONNECT", p.logs[1].fields.code)
        p = load({ percent = 100 })
        p:run("request", request("r"))
        assert.equal(0, #p.calls)
        p = load({ to = "candidate", percent = 100 })
        p:run("request", testing.request({ body = "text" }))
        assert.equal(0, #p.calls)
    end)
end)
