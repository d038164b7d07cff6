local kit = require("support.kit")
local testing = require("openclaw.testing")

local load, message_of = kit.load, kit.message_of

describe("openclaw.request", function()
    before_each(testing.reset)

    it("is what the client sent", function()
        local p = load([[function P.log(req) return { id = req.id, path = req.path, q = req.query, method = req.method,
            model = req.model, stream = req.stream, ip = req.client.ip, tier = req.client.tier, route = req.route,
            a = req.client.headers["X-A"], b = req.client.header("x-b"), c = req.client:header("x-c"),
            first = req.body.messages[1].content } end]])
        local req = testing.request({ id = "r1", method = "PUT", path = "/v1/x?a=1", headers = { ["x-a"] = "1", ["X-B"] = { "2", "3" } },
            body = '{"model":"m","stream":true,"messages":[{"content":"hi"}]}', client = { ip = "10.0.0.1", tier = "gold" }, route = "r" })
        assert.same({ id = "r1", path = "/v1/x", q = "a=1", method = "PUT", model = "m", stream = true, ip = "10.0.0.1", tier = "gold",
            route = "r", a = "1", b = "2, 3", first = "hi" }, p:run("log", req).fields)
        local gemini = testing.request({ path = "/v1beta/models/g%2E1:streamGenerateContent", body = { contents = {} } })
        assert.same({ "gemini_generate", "g.1", true }, { gemini.dialect, gemini.model, gemini.stream })
        assert.equal("openai_chat", testing.request().dialect)
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
        assert.truthy(try("req.upstream.model = 1"):find("only path, commit and headers[name] can be set", 1, true))
        assert.truthy(try("req.upstream.path = 'x'"):find("x.lua:2: req.upstream.path: must begin with /", 1, true))
        assert.truthy(try("req.upstream.commit = 0"):find('x.lua:2: req.upstream.commit: must be "event", "token" or a whole number', 1, true))
        assert.truthy(try("req.upstream.headers.host = 'x'"):find("a field the proxy writes itself", 1, true))
        assert.truthy(try("req.body.a = 1"):find("read-only", 1, true))
        assert.truthy(try("req.answer.status = 1"):find("only headers[name] can be set", 1, true))
        for _, field in ipairs({ "['X-OpenClaw-Route'] = 'x'", "connection = 'x'", "['a b'] = 'x'", "x = 'a\\r\\nb: c'", "x = {}" }) do
            assert.truthy(try("req.answer.headers" .. (field:find("^%[") and "" or ".") .. field):find("req.answer.headers[", 1, true), field)
        end
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
