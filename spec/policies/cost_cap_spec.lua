local testing = require("openclaw.testing")

local function load(settings)
    return testing.load("policies/cost_cap.lua", { conf = { policies = { settings = { cost_cap = settings } } } })
end

describe("policies/cost_cap", function()
    before_each(testing.reset)
    local ann = { client = { ip = "10.0.0.1" } }

    local function spend(p, micros, who)
        p:run("cost", testing.request(who or ann), { input = 1, cost_micros = micros })
    end
    local function denied(p, who)
        return p:run("admit", testing.request(who or ann)).denied
    end

    it("lets nobody spend more than the cap", function()
        local p = load({ usd_per_day = 1 })
        assert.is_nil(denied(p))
        spend(p, 999999)
        assert.is_nil(denied(p))
        spend(p, 1)
        assert.same({ status = 429, code = "budget_exceeded", message = "The budget of 1 USD a day is used up" }, denied(p))
    end)

    it("counts each client by itself, and has caps of their own", function()
        local p = load({ usd_per_day = 1, clients = { batch = 50 } })
        local batch = { client = { ip = "10.0.0.1", name = "batch" } }
        spend(p, 2000000)
        spend(p, 49000000, batch)
        assert.is_not_nil(denied(p))
        assert.is_nil(denied(p, batch))
        spend(p, 1000000, batch)
        assert.is_not_nil(denied(p, batch))
    end)

    it("begins again the next day, and keeps nothing for long", function()
        local p = load({ usd_per_day = 1 })
        spend(p, 5000000)
        testing.clock:advance(86400 * 1000)
        assert.is_nil(denied(p))
        testing.clock:advance(86400 * 1000)
        denied(p)
        p:run("admit", testing.request(ann))
        for key in pairs(p.store.entries) do assert.is_nil(p.store:get(key)) end
    end)

    it("takes who it is from a header", function()
        local p = load({ usd_per_day = 1, header = "x-team" })
        spend(p, 1000000, { headers = { ["x-team"] = "a" } })
        assert.is_not_nil(denied(p, { headers = { ["x-team"] = "a" } }))
        assert.is_nil(denied(p, { headers = { ["x-team"] = "b" } }))
    end)

    it("leaves the cost as it is, and does not count what has none", function()
        local p = load({})
        assert.equal(7, p:run("cost", testing.request(ann), { cost_micros = 7 }).cost_micros)
        p:run("cost", testing.request(), {})
    end)
end)
