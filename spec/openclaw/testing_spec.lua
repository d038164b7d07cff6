local json = require("claw.json")
local kit = require("support.kit")
local testing = require("openclaw.testing")

local load, message_of = kit.load, kit.message_of

describe("openclaw.testing", function()
    before_each(testing.reset)

    describe("load", function()
        it("refuses what a generation refuses, in its words", function()
            assert.equal('policies/x.lua:1: unknown key admitt (did you mean "admit"?)', message_of(load, "P.admitt = 1"))
            assert.equal("policies/x.lua:2: init: no settings", message_of(load, "function P.init() error('no settings') end"))
            assert.equal("policies/x.lua:2: selftest: bad", message_of(load, "function P.selftest() error('bad') end"))
            assert.truthy(message_of(load, "io.open('x')"):find("global 'io'", 1, true))
            assert.truthy(message_of(testing.load, "policies/nowhere.lua"):find("no policy: policies/nowhere.lua", 1, true))
        end)

        it("gives init the configuration", function()
            local p = load("local n function P.init(conf) n = conf.n end function P.log() return { n = n } end", { conf = { n = 3 } })
            assert.same({ n = 3 }, p:run("log", testing.request()).fields)
            p = load("local n function P.init(conf) n = conf end function P.log() return n end", { conf = { a = { url = "x", b = 1 } } })
            assert.same({ a = { b = 1 } }, p:run("log", testing.request()).fields) -- without what is called like a secret
        end)
    end)

    describe("run", function()
        it("tells of a missing hook", function()
            assert.truthy(message_of(load("").run, load(""), "log"):find("policies/x.lua has no log hook", 1, true))
            assert.truthy(message_of(load("").run, load(""), "logg"):find("there is no hook logg", 1, true))
        end)

        it("raises a failure with its place, and a verdict that is none", function()
            local p = load("function P.admit(req)\nerror('boom') end\nfunction P.log() return 5 end")
            assert.equal("policies/x.lua:3: boom", message_of(p.run, p, "admit", testing.request()))
            assert.equal("policies/x.lua: log: expected nil or a table of fields, got 5", message_of(p.run, p, "log", testing.request()))
        end)

        it("logs what is to be skipped", function()
            local p = load("P.on_error = 'skip' function P.admit() error('boom') end")
            local result = p:run("admit", testing.request())
            assert.is_nil(result.denied)
            assert.equal("a policy failed and was skipped", result.logs[1].message)
        end)

        it("admit", function()
            local p = load("function P.admit(req) if req.client.headers.bad then return { deny = 403, code = 'no', message = 'go' } end end")
            assert.is_nil(p:run("admit", testing.request()).denied)
            assert.same({ status = 403, code = "no", message = "go" }, p:run("admit", testing.request({ headers = { bad = "1" } })).denied)
        end)

        it("admit, answered", function()
            local p = load("function P.admit(req) return req.body or { say = 'Hi.' } end")
            local answered = p:run("admit", testing.request({ path = "/v1/messages" })).answered
            assert.same({ 200, "application/json", "Hi." }, { answered.status, answered.content_type, answered.json.content[1].text })
            assert.is_nil(answered.events or nil)
            p = load("function P.admit() return { answer = 'no\\n', status = 404, content_type = 'text/x' } end")
            answered = p:run("admit", testing.request()).answered
            assert.same({ 404, "text/x", "no\n" }, { answered.status, answered.content_type, answered.body })
            assert.is_nil(p:run("admit", testing.request()).denied)
            p = load("function P.admit() return { say = 'a', deny = 403 } end")
            assert.truthy(message_of(p.run, p, "admit", testing.request()):find("one of deny, answer and say", 1, true))
        end)

        it("what is set of the answer's head", function()
            local p = load([[function P.admit(req) req.answer.headers["X-A"] = "1" req.answer.headers["x-b"] = nil end
                function P.event(req) req.answer.headers["x-a"] = "2" assert(req.answer.headers["X-a"] == "2") end
                function P.log(req) req.answer.headers.x = "1" end]])
            local req = testing.request()
            assert.same({ ["x-a"] = "1" }, p:run("admit", req).answer.headers)
            assert.same({ ["x-a"] = "2" }, p:run("event", req, testing.chunk("a")).answer.headers)
            assert.truthy(message_of(p.run, p, "event", req, testing.chunk("b")):find("the answer's head has left", 1, true))
            assert.truthy(message_of(p.run, p, "log", req):find("the answer's head has left", 1, true))
        end)

        it("route", function()
            local p = load("function P.route(req, c) if req.model == 'x' then return 'b' elseif req.model == 'y' then return { c[2] } "
                .. "elseif req.model == 'z' then return 'nobody' elseif req.model == 's' then return claw.route.least_busy(c, req) end end",
                { live = { a = { outstanding = 2 }, b = { outstanding = 1 } } })
            local function names(model)
                return p:run("route", testing.request({ body = { model = model } }), { "a", { "b", weight = 2 } }).names
            end
            assert.same({ "a", "b" }, names("w"))
            assert.same({ "b", "a" }, names("x"))
            assert.same({ "b" }, names("y"))
            assert.same({ "b", "a" }, names("s"))
            assert.equal('policies/x.lua: route: expected candidates of this route (a, b), got "nobody"', message_of(names, "z"))
        end)

        it("choose", function()
            local p = load("function P.choose(c, facts, rng) if facts.key('user') then return { c[rng() < 0.5 and 1 or 2] } end end")
            assert.same({ "a" }, p:run("choose", { "a", "b" }, testing.facts(nil, { user = "u" }), testing.rng(1)).names)
            assert.truthy(message_of(p.run, p, "choose", { "a" }):find("choose: expected an ordered list", 1, true))
        end)

        it("request", function()
            local p = load("function P.request(req, body) body.n = body.n + 1 req.upstream.path = '/y' req.upstream.headers['X-A'] = 'b' end")
            local req = testing.request({ body = '{"big":12345678901234567890,"n":1}', upstream = { name = "u", model = "sent" } })
            local result = p:run("request", req)
            assert.equal('{"big":12345678901234567890,"n":2,"model":"sent"}', result.body)
            assert.equal(2, result.json.n)
            assert.same({ path = "/y", headers = { ["x-a"] = "b" } }, result.upstream)
            assert.equal('{"n":6}', p:run("request", testing.request({ upstream = { name = "u" } }), { n = 5 }).body)
            result = load("function P.request(_, body) end"):run("request", testing.request({ body = "{ }" }))
            assert.same({ false, "{ }" }, { result.changed, result.body })
            assert.equal("plain", load("function P.request(_, body) assert(body == nil) return 'plain' end"):run("request",
                testing.request({ body = "no json" })).body)
            p = load("function P.request(_, body) return '{' end")
            assert.truthy(message_of(p.run, p, "request", testing.request({ body = {} })):find(
                "no valid JSON: unexpected end of text at byte 1", 1, true))
            p = load("function P.request(_, body) return 5 end")
            assert.equal("policies/x.lua: request: expected nil or a body (a document, a table or a string), got 5",
                message_of(p.run, p, "request", testing.request({ body = {} })))
        end)

        it("a file that is a function", function()
            local p = testing.load("policies/f.lua", { source = "return function(req, body) body.a = 1 end" })
            assert.equal('{"a":1}', p:run("request", testing.request({ body = "{}" })).body)
        end)

        it("response", function()
            local p = load("function P.response(req, body) if type(body) == 'string' then return body .. '!' end body.seen = true end")
            assert.equal('{"a":1,"seen":true}', p:run("response", testing.request(), { a = 1 }).body)
            assert.equal("<html>!", p:run("response", testing.request(), "<html>").body)
        end)

        it("event and stream", function()
            local p = load([[function P.event(req, ev)
                local s = claw.state(req)
                s.n = (s.n or 0) + 1
                if ev.data == "drop" then return false end
                if ev.data == "two" then return { { data = "a" }, { type = "t", data = "b" } } end
                if ev.data == "bad" then return { type = 5, data = "x" } end
                if ev.data == "[DONE]" then return { data = tostring(s.n) } end
            end]])
            local req = testing.request()
            local out = p:stream(req, { "data: one", { data = { x = json.array() } }, "event: e\ndata: l1\ndata: l2\n\n",
                "data: drop", "data: two", "data: [DONE]" })
            assert.same({ { data = "one" }, { data = '{"x":[]}' }, { type = "e", data = "l1\nl2" }, { data = "a" }, { type = "t", data = "b" },
                { data = "6" } }, out)
            assert.truthy(message_of(p.stream, p, req, { "data: bad" }):find("x.lua: event: expected nil, an event", 1, true))
            assert.equal("Hello", testing.content(load("function P.event() end"):stream(req, {
                 testing.chunk("Hel"), testing.chunk("lo"), "data: [DONE]" })))
        end)

        it("retry", function()
            local p = load("function P.retry(req, a) if a.status == 429 then return { after_ms = 50 } "
                .. "elseif a.status == 400 then return { stop = true } elseif a.status == 503 then return { next = true } end end")
            local function retry(attempt)
                local result = p:run("retry", testing.request(), attempt)
                return { result.action, result.after_ms }
            end
            assert.same({ "next", 0 }, retry())
            assert.same({ "same", 50 }, retry({ status = 429 }))
            assert.same({ "stop", 0 }, retry({ status = 400 }))
            assert.same({ "stop", 0 }, retry({ status = 503, left = 0 }))
        end)

        it("cost and log", function()
            local p = load("function P.cost(req, u) if u.input > 10 then return u.cost_micros * 2 end end "
                .. "function P.log(req) return { route = req.route } end")
            assert.equal(14, p:run("cost", testing.request(), { input = 11, cost_micros = 7 }).cost_micros)
            assert.equal(7, p:run("cost", testing.request(), { input = 1, cost_micros = 7 }).cost_micros)
            assert.same({ route = "chat" }, p:run("log", testing.request({ route = "chat" })).fields)
        end)
    end)

    it("does what lua/README.md shows", function()
        local file = assert(io.open((os.getenv("CLAW_ROOT") or ".") .. "/lua/README.md"))
        local block = file:read("*a"):match("\n## Testing a policy\n.-```lua\n(.-)```")
        file:close()
        assert(loadstring(block))()
    end)
end)
