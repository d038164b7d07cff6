local build = require("support.build")

local REAL = "return { api = 1, request = function(req, body) body.real = true end }"

local function engine(hooks, extra)
    local conf = { upstreams = { a = {}, b = {} }, policies = { shadow = { "s*" } },
        routes = { { id = "r", strategy = { type = "failover", upstreams = { "a", "b" } } } } }
    for key, value in pairs(extra or {}) do conf[key] = value end
    return build.engine({ conf = conf, policies = { s = "return { api = 1, " .. hooks .. " }", real = REAL } })
end

local function shadow_lines(core)
    local out = {}
    for _, line in ipairs(core.logged) do
        local f = line.fields
        if line.message == "shadow decision" then out[#out + 1] = ("%s: %s / %s"):format(f.hook, f.real, f.shadow) end
    end
    return out
end

describe("claw.shadow", function()
    it("costs nothing when no policy is in shadow", function()
        local made = build.engine({ conf = { upstreams = { a = {} }, routes = { { id = "r", strategy = { upstreams = { "a" } } } } },
            policies = { real = REAL } })
        assert.is_false(made.hooks.admit)
        local _, list = build.chat(made, "m")
        assert.is_nil(list.plan.route.shadow)
        assert.is_true(list.plan.route.simple)
        assert.is_nil(list.plan[1].shadow_retry)
    end)

    it("compares admissions with the real one", function()
        local made, core = engine("admit = function(req) return req.deny end")
        assert.is_true(made.hooks.admit)
        assert.is_nil(made.admit({ deny = { deny = 403 }, id = "7" }))
        assert.is_nil(made.admit({}))
        assert.same({ "admit: pass / deny 403 denied" }, shadow_lines(core))
        assert.equal("7", core.logged[1].fields.request_id)
        assert.same({ "s admit true", "s admit false" }, core.counted)
    end)

    it("compares answers by their status", function()
        local made, core = engine("admit = function(req) return { say = 'hello' } end")
        assert.is_nil(made.admit({ id = "7" }))
        assert.same({ "admit: pass / answer 200" }, shadow_lines(core))
    end)

    it("compares orders, of a strategy and of a route", function()
        local made, core = engine("choose = function(list) return { list[2] } end, route = function() return 'b' end")
        assert.equal("a b", (build.chat(made, "m")))
        assert.same({ "choose: a, b / b", "route: a, b / b, a" }, shadow_lines(core))
    end)

    it("gives request hooks a copy, and tells paths without values", function()
        local made, core = engine("request = function(req, body) body.model = 'secret words' req.set_path = '/x' req.ctx.n = 1 end")
        local r = { body = { model = "m" }, ctx = {} }
        build.chat(made, "m", r)
        local out = made.request(r, 1, "m")
        assert.equal("m", out.model)
        assert.is_true(out.real)
        assert.is_nil(r.set_path)
        assert.same({}, r.ctx)
        assert.same({ "request: unchanged / changes ~ model, path" }, shadow_lines(core))
    end)

    it("compares what comes after a failed try", function()
        local made, core = engine("retry = function(req, attempt) return { after_ms = 5 } end")
        local r = {}
        build.chat(made, "m", r)
        assert.equal("next", (made.retry(r, { n = 1, left = 1, index = 1, status = 503, kind = "http_503", again = true })))
        assert.same({ "retry: next / same after 5 ms" }, shadow_lines(core))
    end)

    it("logs and counts errors, which fail nothing", function()
        local made, core = engine("admit = function() error('oh') end, route = function() return 'nobody' end")
        assert.is_nil(made.admit({}))
        assert.equal("a b", (build.chat(made, "m")))
        assert.same({ "s admit error", "s route error" }, core.counted)
        assert.equal("a policy failed in shadow", core.logged[1].message)
        assert.truthy(core.logged[1].fields.error:find("policies/s.lua:1: oh", 1, true))
    end)

    it("stops at an answer that would be a very long text", function()
        local made, core = engine("request = function() local t = { 1 } for _ = 1, 60 do t = { t, t } end return t end")
        core.check = function() error("stopped", 0) end
        local r = { body = { model = "m" }, ctx = {} }
        build.chat(made, "m", r)
        made.request(r, 1, "m")
        assert.same({ "s request error" }, core.counted)
        assert.equal("stopped", core.logged[1].fields.error)
    end)

    it("runs where it is placed only", function()
        local made, core = engine("admit = function() return { deny = 403 } end", { routes = {
            { id = "r", match = { path = "/v1/chat/completions" }, policies = { "s" }, strategy = { upstreams = { "a" } } },
            { id = "rest", strategy = { upstreams = { "b" } } } } })
        assert.is_false(made.hooks.admit)
        made.route({}, "POST", "/other", "m", false)
        assert.same({}, core.counted)
        build.chat(made, "m")
        assert.same({ "s admit true" }, core.counted)
    end)
end)
