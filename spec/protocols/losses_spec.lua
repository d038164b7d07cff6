local context = require("support.context")
local losses = require("claw.protocols.losses")

describe("claw.protocols.losses", function()
    it("names what says something", function()
        local cx = context.new({ lossy = "allow" })
        losses.fields({ n = 1, seed = 0, logprobs = false, user = "u", store = true }, { "n", "seed", "logprobs", "user", "store" }, cx)
        assert.equal("user,store", context.dropped(cx))
        assert.has_error(function() losses.fields({ n = 2 }, { "n" }, context.new()) end) -- another answer than was asked for
    end)

    it("keeps a client's own fields only when its dialect has them", function()
        local cx, out = context.new(), {}
        losses.rest({ dialect = "openai_chat", rest = { mine = 1, yours = 2 } }, cx, out, { mine = true })
        assert.same({ mine = 1 }, out)
        assert.equal("yours", context.dropped(cx))
    end)

    it("keeps numbers within bounds", function()
        local cx = context.new()
        assert.same({ 0, 1, 0.5 }, { losses.bounded(-1, 0, 1, "a", cx), losses.bounded(2, 0, 1, "b", cx), losses.bounded(0.5, 0, 1, "c", cx) })
        assert.is_nil(losses.bounded(nil, 0, 1, "d", cx))
        assert.equal("a,b", context.dropped(cx))
    end)

    it("makes an object's schema of none", function()
        assert.same({ type = "object", properties = {} }, losses.schema(nil, context.new()))
        local given = context.doc({ type = "object" })
        assert.equal(given, losses.schema(given, context.new()))
    end)
end)
