local candidates = require("support.candidates")
local fake_facts = require("openclaw.facts")
local sticky = require("claw.route.sticky")

local function first(choose, list, key)
    return choose(list, fake_facts(nil, { client = key }), math.random)[1].name
end

describe("claw.route.sticky", function()
    local list = candidates.list("a", "b", "c", "d")

    it("keeps a key where it is, and spreads keys", function()
        local choose, shares = sticky(), {}
        for i = 1, 4000 do
            local name = first(choose, list, "client-" .. i)
            shares[name] = (shares[name] or 0) + 1
            if i % 100 == 0 then assert.equal(name, first(sticky(), list, "client-" .. i)) end
        end
        for _, name in ipairs({ "a", "b", "c", "d" }) do
            assert.is_true(math.abs(shares[name] - 1000) < 200, name .. " " .. shares[name])
        end
    end)

    it("moves only the keys of who leaves", function()
        local choose, fewer = sticky(), candidates.list("a", "b", "d")
        for i = 1, 500 do
            local before = first(choose, list, "k" .. i)
            if before ~= "c" then assert.equal(before, first(choose, fewer, "k" .. i)) end
        end
    end)

    it("honours weights", function()
        local weighted, shares = candidates.list({ "a", weight = 3 }, "b", { "off", weight = 0 }), {}
        local choose = sticky()
        for i = 1, 4000 do
            local name = first(choose, weighted, "k" .. i)
            shares[name] = (shares[name] or 0) + 1
        end
        assert.is_true(math.abs(shares.a - 3000) < 250, shares.a)
        assert.is_nil(shares.off)
    end)

    it("takes turns without a key", function()
        local choose = sticky({ on = "header:x" })
        local shares = candidates.shares(40, function() return choose(list, fake_facts(), math.random) end)
        assert.same({ a = 10, b = 10, c = 10, d = 10 }, shares)
    end)
end)
