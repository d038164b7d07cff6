local kit = require("support.kit")
local testing = require("openclaw.testing")

local load, message_of = kit.load, kit.message_of

describe("openclaw.outside", function()
    before_each(testing.reset)

    it("time passes when it is told to", function()
        local p = load("function P.request() claw.time.sleep(1500) end "
            .. "function P.log() return { ms = claw.time.now_ms(), s = claw.time.now() } end")
        local before = p:run("log", testing.request()).fields
        testing.clock:advance(2000)
        p:run("request", testing.request({ body = {} }))
        assert.same({ ms = before.ms + 3500, s = before.s + 3 }, p:run("log", testing.request()).fields)
    end)

    it("waiting is refused where a hook may not wait", function()
        for _, call in ipairs({ "time.sleep(1)", "http.fetch('http://x')", "task.spawn(print)", "task.wait()" }) do
            local p = load("function P.event() claw." .. call .. " end")
            assert.equal(("policies/x.lua:2: claw.%s may not be called in event "
                .. "(allowed in: admit, route, request, retry, response)"):format(call:match("^[%w.]+")),
                message_of(p.stream, p, testing.request(), { "data: x" }))
        end
    end)

    it("fetch asks the test", function()
        local p = load([[function P.admit(req)
            local answer, message, code = claw.http.fetch("http://auth/check", {
                method = "POST", body = { a = 1 }, headers = { k = "v" } })
            if not answer then return { deny = 503, code = code, message = message } end
            if answer.status ~= 200 then return { deny = 401, code = "no", message = answer.body } end
        end function P.retry() claw.http.fetch{ upstream = "u", path = "/p" } end]])
        local seen
        testing.fetch(function(request)
            seen = request
            return { status = 403, body = { why = "x" } }
        end)
        local result = p:run("admit", testing.request())
        assert.equal('{"why":"x"}', result.denied.message)
        assert.same({ url = "http://auth/check", method = "POST", body = '{"a":1}', headers = { k = "v", ["content-type"] = "application/json" },
            timeout_ms = 5000 }, seen)
        testing.fetch({ ["http://auth/check"] = { status = 200 }, ["u/p"] = "text" })
        assert.is_nil(p:run("admit", testing.request()).denied)
        p:run("retry", testing.request())
        assert.same({ "POST", "POST", "GET" }, { p.calls[1].method, p.calls[2].method, p.calls[3].method })
        testing.fetch(function() return nil, "no answer in 5000 ms", "ETIMEOUT" end)
        assert.same({ status = 503, code = "ETIMEOUT", message = "no answer in 5000 ms" }, p:run("admit", testing.request()).denied)
        testing.fetch(nil)
        assert.equal("the test has no answer for claw.http.fetch of http://auth/check", message_of(p.run, p, "admit", testing.request()))
        p = load("function P.admit() claw.http.fetch('http://x', { time = 1 }) end")
        assert.truthy(message_of(p.run, p, "admit", testing.request()):find("x.lua:2: claw.http.fetch: there is no option time", 1, true))
    end)

    it("tasks run in order", function()
        local p = load([[function P.request(req, body)
            local a = claw.task.spawn(function(n) claw.time.sleep(10) return n, "second" end, 1)
            local b = claw.task.spawn(function() error("boom") end)
            body.one = { claw.task.wait(a) }
            local x, y = claw.task.wait(a, a)
            body.both = { x, y }
            local _, message, code = claw.task.wait(b)
            body.failed = { message, code }
            claw.task.background(function() claw.time.sleep(5) claw.log("info", "behind") error("late") end)
            claw.log("info", "hook")
        end]])
        local result = p:run("request", testing.request({ body = "{}" }))
        assert.same({ 1, "second" }, { unpack(result.json.one) })
        assert.same({ 1, 1 }, { unpack(result.json.both) })
        assert.same({ "policies/x.lua:4: boom", "EPOLICY" }, { unpack(result.json.failed) })
        local said = {}
        for i, line in ipairs(result.logs) do said[i] = line.message end
        assert.same({ "a task of a policy failed", "hook", "behind", "a task of a policy failed" }, said)
    end)

    it("state and logs are the policy's", function()
        local p = load("function P.admit(req) claw.state(req).a = 1 claw.log('warn', 'seen', { n = 1 }) end")
        local req = testing.request()
        local result = p:run("admit", req)
        assert.same({ a = 1 }, p.claw.state(req))
        assert.same({ { level = "warn", message = "seen", fields = { n = 1, policy = "x" } } }, result.logs)
    end)
end)
