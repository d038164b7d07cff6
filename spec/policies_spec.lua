local build = require("support.build")
local claw = require("claw")
local policies = require("claw.policies")
local strategies = require("claw.route")

local EMPTY = "return { api = 1 }"

local function load_all(opts)
    opts.conf = opts.conf or {}
    opts.conf.upstreams = { a = {} }
    local spec, problems = build.spec(opts), {}
    local all = policies.load(spec, claw.services(spec.core, {}), strategies.strategies, problems)
    local names = {}
    for i, p in ipairs(all.always) do names[i] = p.name end
    return table.concat(names, " "), problems, all
end

describe("claw.policies", function()
    local sources = { a = EMPTY, b = EMPTY, c = EMPTY, d = EMPTY }

    it("runs all files of the folder that nobody names elsewhere", function()
        assert.equal("a b c d", (load_all({ policies = sources })))
        assert.equal("c", (load_all({ policies = sources, conf = {
            routes = { { strategy = { type = "a" }, policies = { "b" } } },
            transformations = { { request = { script = "policies/d.lua" } } },
        } })))
    end)

    it("keeps the list's order, then the names'", function()
        local function always(list)
            return (load_all({ policies = sources, conf = { policies = { always = list }, routes = { { policies = { "b" }, strategy = {} } } } }))
        end
        assert.equal("d a c", always({ "d", "*" }))
        assert.equal("d b a c", always({ "d", "b", "*" }))
        assert.equal("", always({}))
        assert.equal("c", always({ "c*", "c" }))
    end)

    it("takes a shipped one only when it is named, and the user's own first", function()
        local shipped = { guard = EMPTY, a = "error('the shipped one')" }
        assert.equal("a", (load_all({ policies = { a = EMPTY }, builtin = shipped })))
        assert.equal("guard", (load_all({ policies = {}, builtin = { guard = EMPTY }, conf = { policies = { always = { "guard" } } } })))
        assert.equal("", (load_all({ builtin = { guard = EMPTY } })))
        local _, problems, all = load_all({ builtin = { guard = EMPTY }, conf = { routes = { { policies = { "guard" }, strategy = {} } } } })
        assert.same({}, problems)
        assert.equal("builtin", all.by_name.guard.origin)
    end)

    it("refuses unknown names, and functions that nothing calls", function()
        local _, problems = load_all({ policies = { guard = EMPTY }, conf = { policies = { always = { "gaurd" } } } })
        assert.same({ { path = "policies.always[0]", message = 'there is no policy "gaurd" (did you mean "guard"?)' } }, problems)
        _, problems = load_all({ policies = { f = "return function() end" } })
        assert.equal("policies/f.lua", problems[1].file)
        _, problems = load_all({ policies = { f = "return function() end" }, conf = { transformations = { { request = { script = "f" } } } } })
        assert.same({}, problems)
    end)

    it("checks files that nothing runs", function()
        local _, problems = load_all({ policies = { broken = "(" }, conf = { policies = { always = {} } } })
        assert.equal(1, #problems)
    end)
end)
