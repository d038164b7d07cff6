local plans = require("claw.plan")

local function policy(name, ...)
    local p = { name = name, hooks = {} }
    for _, hook in ipairs({ ... }) do p.hooks[hook] = function() end end
    return p
end

local function names(chain)
    local out = {}
    for i, entry in ipairs(chain) do out[i] = entry.policy.name end
    return table.concat(out, " ")
end

describe("claw.plan", function()
    local t_policy = policy("t", "request")
    local static = { match = { upstream = function(name) return name == "b" end }, dynamic = false,
        hooks = { request = { policy = t_policy, fn = t_policy.hooks.request } } }
    local dynamic = { match = {}, dynamic = true, hooks = { response = { policy = policy("d"), fn = function() end } } }
    local route = {
        id = "r", policies = { policy("one", "request", "log"), policy("two", "retry", "request", "cost") },
        transformations = { static, dynamic },
        entries = { { upstream = { index = 1, name = "a" } }, { upstream = { index = 3, name = "b" } } },
    }

    it("has the chains of each upstream, and their masks", function()
        local plan = plans.new(route, {})
        assert.equal(route, plan.route)
        assert.equal(16, plan.mask)
        assert.equal("one two", names(plan[1].request))
        assert.equal("one two t", names(plan[3].request))
        assert.equal("two", names(plan[1].retry))
        assert.equal("one", names(plan.log))
        assert.equal("two", names(plan.cost))
        assert.same({ 9, 9 }, { plan[1].mask, plan[3].mask })
        assert.is_nil(plan[2])
    end)

    it("takes in the per-request transformations that match", function()
        local plan = plans.new(route, { [dynamic] = true })
        assert.equal("d", names(plan[1].response))
        assert.equal(11, plan[1].mask)
    end)

    it("is empty without policies", function()
        local plan = plans.new({ id = "r", policies = {}, transformations = {}, entries = route.entries }, {})
        assert.same({ 0, 0 }, { plan.mask, plan[1].mask })
    end)
end)
