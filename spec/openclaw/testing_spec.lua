local json = require("claw.json")
local testing = require("openclaw.testing")

local function load(source, opts)
    opts = opts or {}
    opts.source = "local P = { name = 'x', api = 1 }\n" .. source .. "\nreturn P"
    return testing.load("policies/x.lua", opts)
end

local function message_of(fn, ...)
    local ok, message = pcall(fn, ...)
    assert.is_false(ok)
    return message
end

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
        end)
    end)

    describe("a request", function()
        it("is what the client sent", function()
            local p = load([[function P.log(req) return { id = req.id, path = req.path, q = req.query, method = req.method,
                model = req.model, stream = req.stream, ip = req.client.ip, tier = req.client.tier, route = req.route,
                a = req.client.headers["X-A"], b = req.client.header("x-b"), c = req.client:header("x-c"),
                first = req.body.messages[1].content } end]])
            local req = testing.request({ id = "r1", method = "PUT", path = "/v1/x?a=1", headers = { ["x-a"] = "1", ["X-B"] = { "2", "3" } },
                body = '{"model":"m","stream":true,"messages":[{"content":"hi"}]}', client = { ip = "10.0.0.1", tier = "gold" }, route = "r" })
            assert.same({ id = "r1", path = "/v1/x", q = "a=1", method = "PUT", model = "m", stream = true, ip = "10.0.0.1", tier = "gold",
                route = "r", a = "1", b = "2, 3", first = "hi" }, p:run("log", req).fields)
            assert.equal("a=b%20c&d=1", testing.request({ query = { a = "b c", d = 1 } }).query)
        end)

        it("cannot be changed but where the proxy lets it", function()
            local p = load("function P.request(req, body) return body[1](req) end")
            local function try(code)
                local q = load("function P.admit(req) " .. code .. " end")
                return message_of(q.run, q, "admit", testing.request({ body = {}, upstream = { name = "u" } }))
            end
            assert.is_not_nil(p)
            assert.equal("policies/x.lua:2: req.foo cannot be assigned: use req.ctx for notes of your own", try("req.foo = 1"))
            assert.equal("policies/x.lua:2: req.body cannot be assigned: change or return the hook's body argument", try("req.body = 1"))
            assert.truthy(try("req.client.ip = 1"):find("req.client.ip cannot be assigned: what the client sent", 1, true))
            assert.truthy(try("req.upstream.model = 1"):find("only path and headers[name] can be set", 1, true))
            assert.truthy(try("req.upstream.path = 'x'"):find("x.lua:2: req.upstream.path: must begin with /", 1, true))
            assert.truthy(try("req.upstream.headers.host = 'x'"):find("a field the proxy writes itself", 1, true))
            assert.truthy(try("req.body.a = 1"):find("read-only", 1, true))
        end)

        it("has the fields of the C one", function()
            local file = assert(io.open((os.getenv("CLAW_ROOT") or ".") .. "/core/script/api_req.c"))
            local text = file:read("*a"):match("fields%[%] = (%b{})")
            file:close()
            local known = {}
            for _, names in pairs(require("openclaw.request").FIELDS) do
                for _, name in ipairs(names) do known[name] = true end
            end
            local n = 0
            for name in text:gmatch('{"([%w_]+)", F_') do
                n = n + 1
                assert.is_true(known[name], name)
            end
            assert.is_true(n > 15)
        end)

        it("can be recorded, as -explain takes it", function()
            local path = os.tmpname()
            local function recorded(text)
                local file = assert(io.open(path, "w"))
                file:write(text)
                file:close()
                return testing.request(path)
            end
            local p = load("function P.request(req, body) body.x = 1 end")
            local req = recorded('{"method":"POST","path":"/v1/embeddings?k=v","headers":{"X-T":"a"},"body":{"n": 1.0e0 ,"model":"m"}}')
            assert.same({ "/v1/embeddings", "k=v", "a", "m" }, { req.path, req.query, req.client.headers["x-t"], req.model })
            assert.equal('{"n":1.0e0,"model":"m","x":1}', p:run("request", req).body)
            req = recorded(' {"model":"gpt-4", "messages":[]}')
            assert.same({ "POST", "/v1/chat/completions", "gpt-4" }, { req.method, req.path, req.model })
            assert.equal("GET", recorded('{"path":"/v1/models"}').method)
            assert.truthy(message_of(recorded, "{"):find("unexpected end of text at byte 1", 1, true))
            os.remove(path)
        end)

        it("dies", function()
            local p = load("local kept function P.request(req, body) kept = kept or { req, body } end " ..
                "function P.log(req) return { kept[1].id } end function P.admit() return kept[2].a end")
            local req = testing.request({ body = { a = 1 } })
            p:run("request", req)
            testing.over(req)
            local other = testing.request()
            assert.equal("policies/x.lua:2: the request is over: req cannot be used any more", message_of(p.run, p, "log", other))
            assert.truthy(message_of(p.run, p, "admit", other):find("its documents cannot be used", 1, true))
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

    describe("services", function()
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

        it("the store keeps, counts and forgets", function()
            local source = [[function P.admit(req)
                local s, key = claw.store, req.client.headers.key
                assert(s.get(key) == nil)
                assert(s.incr(key, 2, { ttl_ms = 100 }) == 2 and s.incr(key) == 3 and s.get(key) == 3)
                assert(s.set("a", "x") and s.add("a", "y") == false and s.add("b", true) and s.get("b") == true)
                assert(s.cas("a", "y", "z") == false and s.cas("a", "x", "z") and s.get("a") == "z")
                s.delete("a") s.delete("b") s.delete("never")
                assert(s.get("a") == nil)
                local ok, message, code = s.set("big", ("x"):rep(65537))
                assert(ok == nil and code == "ETOO_LARGE", message)
                assert(select(3, s.incr(key)) == nil and s.set("t", "text") and select(3, s.incr("t")) == "EINVAL")
                s.set("common", 1, { shared = true })
                s.delete("t")
            end
            function P.log(req) return { v = claw.store.get(req.client.headers.key), c = claw.store.get("common", { shared = true }) } end]]
            local shared = testing.store()
            local p = load(source, { store = shared })
            local other = testing.load("policies/y.lua", { source = (("local P = { api = 1 }\n" .. source .. "\nreturn P")), store = shared })
            local req = testing.request({ headers = { key = "k" } })
            p:run("admit", req)
            assert.same({ v = 4, c = 1 }, p:run("log", req).fields)
            assert.same({ c = 1 }, other:run("log", req).fields)
            testing.clock:advance(99)
            assert.equal(4, p:run("log", req).fields.v)
            testing.clock:advance(1)
            assert.is_nil(p:run("log", req).fields.v)
            p = load("function P.admit() claw.store.set('a', {}) end")
            assert.equal("policies/x.lua:2: claw.store.set: a value is a string, a number or a boolean, not a table",
                message_of(p.run, p, "admit", req))
        end)

        it("state and logs are the policy's", function()
            local p = load("function P.admit(req) claw.state(req).a = 1 claw.log('warn', 'seen', { n = 1 }) end")
            local req = testing.request()
            local result = p:run("admit", req)
            assert.same({ a = 1 }, p.claw.state(req))
            assert.same({ { level = "warn", message = "seen", fields = { n = 1, policy = "x" } } }, result.logs)
        end)
    end)
end)
