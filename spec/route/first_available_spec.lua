local candidates = require("support.candidates")
local choose = require("claw.route.first_available")()

describe("claw.route.first_available", function()
    it("keeps the order of the file", function()
        local list = candidates.list("a", "b", "c")
        for _ = 1, 3 do assert.equal("a b c", candidates.names(choose(list))) end
    end)
end)
