local order = require("claw.route.order")
local candidates = require("support.candidates")

local names = candidates.names

describe("claw.route.order", function()
    local list = candidates.list("a", "b", "c")

    it("heads", function()
        local heads = order.heads(list)
        assert.equal("a b c", names(heads[1]))
        assert.equal("b a c", names(heads[2]))
        assert.equal("c a b", names(heads[3]))
        assert.equal(heads, order.heads(list))
    end)

    it("turns", function()
        local turns = order.turns(list)
        assert.equal("a b c", names(turns[1]))
        assert.equal("b c a", names(turns[2]))
        assert.equal("c a b", names(turns[3]))
        assert.equal(turns, order.turns(list))
        assert.same({}, order.turns({}))
    end)

    it("by score, equals in the circle's order", function()
        assert.equal("b c a", names(order.by(list, { 3, 1, 2 })))
        assert.equal("a b c", names(order.by(list, { 1, 1, 1 })))
        assert.equal("c a b", names(order.by(list, { 1, 1, 1 }, 3)))
        assert.equal("b a c", names(order.by(list, { 2, 1, 2 }, 1)))
        assert.equal("b c a", names(order.by(list, { 2, 1, 2 }, 3)))
        assert.equal("a c b", names(order.by(list, { 1, math.huge, 2 }, 2)))
    end)

    it("gives at most LIMIT", function()
        local many = {}
        for i = 1, 40 do many[i] = { name = tostring(i) } end
        assert.equal(order.LIMIT, #order.heads(many)[40])
        assert.equal("40", order.heads(many)[40][1].name)
        assert.equal(order.LIMIT, #order.turns(many)[30])
        local scores = {}
        for i = 1, 40 do scores[i] = 40 - i end
        local by = order.by(many, scores)
        assert.equal(order.LIMIT, #by)
        assert.equal("40", by[1].name)
    end)

    it("remembers per list, and finds a copy's memory", function()
        local memory = order.memory(function() return {} end)
        local state = memory(list)
        assert.equal(state, memory(list))
        assert.equal(state, memory(candidates.list("a", "b", "c")))
        assert.not_equal(state, memory(candidates.list("a", "c", "b")))
        assert.not_equal(state, memory(candidates.list("a", "b")))
    end)

    it("forgets rather than grow without end", function()
        local made = 0
        local memory = order.memory(function()
            made = made + 1
            return {}
        end)
        for i = 1, 5000 do memory(candidates.list("x" .. i)) end
        assert.equal(5000, made)
    end)
end)
