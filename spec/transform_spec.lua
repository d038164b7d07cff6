local fake_core = require("support.fake_core")
local transform = require("claw.transform")

local function fn() end
local POLICIES = {
    pair = { file = "policies/pair.lua", hooks = { request = fn, response = fn, event = fn } },
    only = { file = "policies/only.lua", hooks = { request = fn } },
    plain = { file = "policies/plain.lua", hooks = {}, fn = fn },
    broken = false,
}

local function compile(node)
    local problems = {}
    local list = transform.compile({ node }, fake_core.new(), POLICIES, { "only", "pair", "plain" }, problems)
    return list[1], problems
end

local function hooks_of(node)
    local names = {}
    for name in pairs(compile(node).hooks) do names[#names + 1] = name end
    table.sort(names)
    return table.concat(names, " ")
end

describe("claw.transform", function()
    it("knows a script by file name or name", function()
        for _, script in ipairs({ "pair", "pair.lua", "policies/pair.lua", "./x/pair.lua" }) do
            assert.equal("pair", transform.script_name(script))
        end
    end)

    it("runs the hooks of the sides it names; a conversion named once is a pair", function()
        assert.equal("event request response", hooks_of({ request = { script = "pair" } }))
        assert.equal("event response", hooks_of({ response = { script = "pair" } }))
        assert.equal("request", hooks_of({ request = { script = "only" } }))
        assert.equal("request", hooks_of({ request = { script = "plain" } }))
        assert.equal("response", hooks_of({ response = { script = "plain" } }))
        assert.equal("request response", hooks_of({ request = { script = "pair" }, response = { script = "plain" } }))
    end)

    it("is quiet about a policy that has problems of its own", function()
        local _, problems = compile({ request = { script = "broken" } })
        assert.same({}, problems)
    end)

    it("is asked per request only where it must be", function()
        assert.is_false(compile({ match = { upstream_name = "a", route_id = "r" }, request = { script = "only" } }).dynamic)
        for _, match in ipairs({ { path = "/a" }, { method = "GET" }, { model = "m" }, { headers = { h = "1" } } }) do
            assert.is_true(compile({ match = match, request = { script = "only" } }).dynamic)
        end
    end)

    it("concerns upstreams and routes, applies to requests", function()
        local t = compile({ match = { upstream_name = { "a", "b" }, route_id = "r*", method = "POST", model = "m*" },
            request = { script = "only" } })
        assert.is_true(transform.concerns(t, "r1", "b"))
        assert.is_false(transform.concerns(t, "r1", "c"))
        assert.is_false(transform.concerns(t, "x", "a"))
        assert.is_true(transform.applies(t, {}, "POST", "/p", "m1"))
        assert.is_false(transform.applies(t, {}, "GET", "/p", "m1"))
        assert.is_false(transform.applies(t, {}, "POST", "/p", "x"))
    end)
end)
