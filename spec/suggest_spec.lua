local suggest = require("claw.suggest")

describe("claw.suggest", function()
    local names = { "round_robin", "failover", "canary" }

    it("finds what was meant", function()
        assert.equal("round_robin", suggest.nearest("roundrobin", names))
        assert.equal("failover", suggest.nearest("failvoer", names))
        assert.equal("canary", suggest.nearest("Canary", names))
        assert.equal("round_robin", suggest.nearest("round", names))
    end)

    it("does not guess", function()
        assert.is_nil(suggest.nearest("sticky", names))
        assert.is_nil(suggest.nearest(("x"):rep(1000), names))
        assert.is_nil(suggest.nearest("x", {}))
    end)

    it("words it", function()
        assert.equal(' (did you mean "canary"?)', suggest.hint("canari", names))
        assert.equal("", suggest.hint("zzzzzzzz", names))
    end)

    it("sorts keys", function()
        assert.same({ "1", "a", "b" }, suggest.keys({ b = 1, a = 2, 3 }))
    end)
end)
