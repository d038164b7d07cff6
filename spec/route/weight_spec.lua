local weight = require("claw.route.weight")
local candidates = require("support.candidates")

describe("claw.route.weight", function()
    it("leaves out weight 0, and takes 1 for none", function()
        local t = weight.table_of(candidates.list("a", { "b", weight = 0 }, { "c", weight = 2.5 }))
        assert.equal("a c", candidates.names(t.live))
        assert.same({ 1, 2.5 }, t.weights)
        assert.equal(3.5, t.total)
    end)

    it("picks by the point on the line", function()
        local weights = { 1, 2, 3 }
        for x, i in pairs({ [0] = 1, [0.99] = 1, [1] = 2, [2.99] = 2, [3] = 3, [5.99] = 3, [6] = 3 }) do
            assert.equal(i, weight.pick(weights, x))
        end
    end)
end)
