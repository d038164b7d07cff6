local build = require("support.build")
local protocols = require("claw.protocols")
local translate = require("claw.translate")

-- What goes in comes out with marks, so that a test sees who did what.
local spoken = {
    read_request = function(body, cx)
        if body.bad then cx.refuse("it is bad", "bad") end
        if body.broken then error(body.broken == true and "oops" or body.broken) end
        if body.odd then cx.drop("odd", body.odd, "nobody knows it") end
        return { text = body.text, include_usage = true }
    end,
    write_answer = function(answer) return { said = answer.text } end,
    writer = function()
        return function(ev)
            if ev.on == "start" or ev.on == "part" then return {} end
            if ev.on == "text" then return { { type = "t", data = { text = ev.text } } } end
            return ev.on == "end" and { { data = "[DONE]" } } or {}
        end
    end,
    write_error = function(err) return { wrong = err.message, kind = err.kind } end,
    write_error_event = function(err) return { type = "error", data = { wrong = err.message } } end,
}
local upstream = {
    write_request = function(request) return { prompt = request.text, model = request.model, s = request.stream } end,
    read_answer = function(body)
        if body.error then return { error = { message = body.error, status = body.status } } end
        if not body.out then return nil, "it has no out" end
        return { text = body.out, parts = { { kind = "text", text = body.out } }, usage = { input = 3, output = 4 } }
    end,
    reader = function()
        return function(ev)
            if not ev then return { { on = "error", err = { message = "cut" } } } end
            if ev.data == "boom" then error("boom") end
            if ev.data == "err" then return { { on = "error", err = { message = "too much", kind = "overloaded" } } } end
            if ev.data == "part" then return { { on = "part", index = 0, part = { kind = "text" } } } end
            if ev.data:find("^%+") then return { { on = "text", index = 0, text = ev.data:sub(2) } } end
            if ev.data == "end" then return { { on = "usage", usage = { input = 1, output = 2 } }, { on = "end" } } end
            return { { on = "text", text = ev.data } }
        end
    end,
    read_error = function(status, body)
        if body == "raise" then error("no") end
        return { status = status, kind = "server", message = body }
    end,
}

describe("claw.translate", function()
    local engine, core, r

    local get = protocols.get
    setup(function()
        protocols.get = function(name) return ({ openai_chat = spoken, cohere_chat = upstream })[name] end
    end)
    teardown(function() protocols.get = get end)

    local function asks_for_a_stream() r.stream = true end

    local function routed(body, policies, conf)
        conf = conf or {}
        engine, core = build.engine({
            conf = { upstreams = { c = { type = "cohere", base_url = "https://c/v2", lossy = conf.lossy } },
                routes = { { id = "r", strategy = { upstream = "c" }, policies = policies and { "p" },
                    lossy = conf.route_lossy } } },
            policies = policies and { p = policies },
        })
        r = { body = body, model = "asked", stream = false, id = ("a"):rep(32), ctx = {} }
        local _, list, _, number = engine.route(r, "POST", conf.path or "/v1/chat/completions", "asked", false)
        return list[1].mask, number
    end

    it("has C call in for what is translated, and for nothing else", function()
        assert.equal(7, (routed({})))
        assert.same({ 0, 1 }, { routed({}, nil, { path = "/v1/embeddings" }) })
        assert.same({ 0, 1 }, { routed({}, nil, { path = "/other" }) })
    end)

    it("writes the request in the upstream's protocol, with the model that is sent", function()
        routed({ text = "hi" })
        assert.same({ { prompt = "hi", model = "sent", s = false }, "cohere_chat" }, { engine.request(r, 1, "sent") })
    end)

    it("comes behind policies, and leaves bodies of theirs with a path alone", function()
        routed({ text = "hi" }, "return { api = 1, request = function(req, body) return { text = 'made' } end }")
        assert.equal("made", (engine.request(r, 1, "m")).prompt)
        routed({ text = "hi" }, [[return { api = 1, request = function(req, body)
            req.set_path = "/own" return { own = true } end,
            response = function(req, body) return { seen = body.out } end }]])
        assert.equal('{"own":true}', tostring((engine.request(r, 1, "m"))))
        r.answer = { out = "x" }
        assert.equal('{"seen":"x"}', (engine.response(r, 1)))
        assert.is_nil(engine.event(r, 1, "", "x"))
        assert.is_nil(engine.event(r, 1, "", nil))
    end)

    it("refuses what cannot be said, and tells what was left out", function()
        routed({ bad = true })
        assert.same({ false, "untranslatable", "it is bad", "bad" }, { engine.request(r, 1, "m") })
        routed({ odd = "hint" })
        assert.equal("odd", (select(3, engine.request(r, 1, "m"))))
        routed({ odd = "content" })
        assert.equal("odd", (select(4, engine.request(r, 1, "m"))))
        routed({ odd = "content" }, nil, { lossy = "allow" })
        assert.equal("odd", (select(3, engine.request(r, 1, "m"))))
        routed({ odd = "hint" }, nil, { lossy = "allow", route_lossy = "refuse" })
        assert.equal("untranslatable", (select(2, engine.request(r, 1, "m"))))
    end)

    it("tells a fault of its own as one, with the place in the log only", function()
        routed({ broken = true })
        local first, code, message = engine.request(r, 1, "m")
        assert.same({ false, "translation" }, { first, code })
        assert.is_nil(message:find("oops"))
        local line = core.logged[#core.logged]
        assert.truthy(line.fields.error:find("oops") and line.fields.traceback)
    end)

    it("tells apart what there is no memory for, and logs nothing", function()
        routed({ broken = "not enough memory (policies.memory_mb)" })
        local first, code = engine.request(r, 1, "m")
        assert.same({ false, "too_large" }, { first, code })
        routed({ broken = "the request needs more memory than it may have" })
        assert.equal("too_large", (select(2, engine.request(r, 1, "m"))))
        assert.equal(0, #core.logged)
    end)

    it("reads the answer before policies do", function()
        routed({}, "return { api = 1, response = function(req, body) body.said = body.said .. '!' end }")
        engine.request(r, 1, "m")
        r.answer = { out = "x" }
        assert.equal('{"said":"x!"}', tostring((engine.response(r, 1))))
        assert.same({ 3, nil, 4 }, { r.used[1], r.used[2], r.used[3] })
    end)

    it("knows what is no answer, and an error in the place of one", function()
        routed({})
        engine.request(r, 1, "m")
        r.answer = { other = 1 }
        assert.same({ false, "The upstream's answer could not be read: it has no out." }, { engine.response(r, 1) })
        r.answer = "<html>"
        assert.same({ false, "The upstream's answer could not be read: it is no JSON." }, { engine.response(r, 1) })
        r.answer = { error = "no", status = 403 }
        assert.same({ { wrong = "no" }, 403 }, { engine.response(r, 1) })
        r.answer = { error = "no", status = 200 }
        assert.same({ { wrong = "no" }, 502 }, { engine.response(r, 1) })
        assert.equal("no", engine.error(r, 1, 502, "").wrong)
        engine.request(r, 1, "m")
        assert.same({ wrong = "text", kind = "server" }, engine.error(r, 1, 500, "text"))
        assert.same("The upstream answered with status 500.", engine.error(r, 1, 500, "raise").wrong)
    end)

    it("makes the client's events, in front of policies", function()
        routed({}, "return { api = 1, event = function(req, ev) return { type = ev.type, data = ev.data .. '.' } end }")
        asks_for_a_stream()
        engine.request(r, 1, "m")
        assert.same({ { type = "t", data = '{"text":"a"}.' } }, engine.event(r, 1, "", "a"))
        assert.same({ { data = "[DONE]." } }, engine.event(r, 1, "", "end"))
        assert.same({ 1, nil, 2 }, { r.used[1], r.used[2], r.used[3] })
    end)

    it("tells an error at the head, one behind it, and a cut", function()
        local function started(first)
            routed({})
            asks_for_a_stream()
            engine.request(r, 1, "m")
            if first then engine.event(r, 1, "", first) end
        end
        started()
        assert.same({ "too much", 529 }, { engine.event(r, 1, "", "err") })
        assert.same({ wrong = "too much", kind = "overloaded" }, engine.error(r, 1, 529, "event: error"))
        started("a")
        assert.same({ { type = "error", data = { wrong = "too much" } } }, engine.event(r, 1, "", "err"))
        assert.same({}, engine.event(r, 1, "", "more"))
        assert.same({}, engine.event(r, 1, "", nil))
        started("a")
        assert.equal("cut", engine.event(r, 1, "", nil))
        started("a")
        assert.equal("the upstream's stream could not be read", engine.event(r, 1, "", "boom"))
    end)

    it("makes events of a whole answer for who asked for a stream", function()
        routed({}, "return { api = 1, event = function(req, ev) return { type = ev.type, data = ev.data .. '.' } end }")
        asks_for_a_stream()
        engine.request(r, 1, "m")
        assert.same({ { type = "t", data = '{"text":"a"}.' }, { data = "[DONE]." } }, engine.event(r, 1, nil, '{"out":"a"}'))
        assert.same({ 3, nil, 4 }, { r.used[1], r.used[2], r.used[3] })
        engine.request(r, 1, "m")
        assert.same({ "no", 403 }, { engine.event(r, 1, nil, '{"error":"no","status":403}') })
        engine.request(r, 1, "m")
        assert.same({ "The upstream's answer could not be read: it has no out." }, { engine.event(r, 1, nil, '{"x":1}') })
        engine.request(r, 1, "m")
        assert.same({ "The upstream's answer could not be read: it is no JSON." }, { engine.event(r, 1, nil, "<html>") })
    end)

    it("gathers events for who asked for no stream", function()
        routed({}, "return { api = 1, response = function(req, body) body.said = body.said .. '!' end }")
        engine.request(r, 1, "m")
        local write = spoken.write_answer
        spoken.write_answer = function(answer) return { said = answer.parts[1].text } end
        for _, data in ipairs({ "part", "+a", "+b" }) do assert.same({}, engine.event(r, 1, "", data)) end
        engine.event(r, 1, "", "end")
        assert.equal('{"said":"ab!"}', tostring((engine.response(r, 1))))
        spoken.write_answer = write
        engine.request(r, 1, "m")
        engine.event(r, 1, "", "part")
        assert.same({ "too much", 529 }, { engine.event(r, 1, "", "err") })
    end)

    it("tells the upstream's protocol the sent model's longest answer", function()
        engine, core = build.engine({ conf = { upstreams = { c = { type = "cohere", base_url = "https://c/v2" } },
            routes = { { id = "r", strategy = { upstream = "c" } } } } })
        local seen
        local write = upstream.write_request
        upstream.write_request = function(_, cx)
            seen = { cx.provider.max_output, cx.provider.family }
            return {}
        end
        r = { body = {}, model = "asked", stream = false, id = ("a"):rep(32), ctx = {} }
        engine.route(r, "POST", "/v1/chat/completions", "asked", false)
        engine.request(r, 1, "command-r")
        assert.same({ 4096, "cohere" }, seen)
        engine.request(r, 1, "nobody")
        assert.same({ nil, "cohere" }, { seen[1], seen[2] })
        upstream.write_request = write
    end)

    it("finds no pair where none is needed or possible", function()
        local head = { protocols = { "x" }, paths = {} }
        assert.is_nil(translate.pair(nil, head))
        assert.is_nil(translate.pair("openai_chat", head))
        assert.is_nil(translate.pair("openai_chat", { protocols = {}, paths = {} }))
        assert.is_nil(translate.pair("openai_chat", { protocols = { "openai_chat" }, paths = { openai_chat = {} } }))
    end)
end)
