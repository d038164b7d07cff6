local context = require("claw.protocols.context")
local support = require("support.context")

local function refusal(fn, ...)
    local ok, raised = pcall(fn, ...)
    assert.is_false(ok)
    return raised
end

describe("claw.protocols.context", function()
    it("lists hints and refuses the rest, unless told otherwise", function()
        local cx = support.new()
        cx.drop("top_k", "hint", "it has none")
        assert.same({ { field = "top_k", class = "hint", why = "it has none" } }, cx.dropped)
        for _, class in ipairs({ "content", "tool", "schema" }) do
            local raised = refusal(cx.drop, "messages[2].content[0]", class, "no audio")
            assert.equal(400, raised.status)
            assert.equal("messages[2].content[0]", raised.param)
            assert.truthy(raised.message:find('"messages[2].content[0]"', 1, true))
            assert.truthy(raised.message:find("no audio", 1, true))
        end
        assert.equal("top_k", context.header(cx))
    end)

    it("lists all with allow, refuses all with refuse", function()
        local cx = support.new({ lossy = "allow" })
        cx.drop("a", "tool")
        cx.drop("b", "hint")
        cx.drop("a", "tool")
        assert.equal("a,b", context.header(cx))
        assert.equal(400, refusal(support.new({ lossy = "refuse" }).drop, "b", "hint").status)
    end)

    it("refuses nothing once there is an answer", function()
        for _, lossy in ipairs({ "refuse", "allow" }) do
            local cx = support.new({ lossy = lossy, answering = true })
            cx.drop("x", "content")
            assert.equal("x", context.header(cx))
        end
    end)

    it("bounds the list, and keeps out of a name what a header must not have", function()
        local cx = support.new()
        for i = 1, 100 do cx.drop("f" .. i, "hint") end
        assert.equal(32, #cx.dropped)
        cx = support.new()
        cx.drop("a\r\nx-evil: 1" .. ("y"):rep(100), "hint")
        assert.equal("a??x-evil??1" .. ("y"):rep(52), context.header(cx))
        assert.is_nil(context.header(support.new()))
    end)

    it("makes ids that are unique, and the same in every run", function()
        local cx, again, seen = support.new(), support.new(), {}
        for _ = 1, 100 do
            local id = cx.id("call_")
            assert.truthy(id:find("^call_%w+$"))
            assert.equal(5 + 24, #id)
            assert.is_nil(seen[id])
            seen[id] = true
            assert.equal(id, again.id("call_"))
        end
        assert.not_equal(support.new({ unique = "other-1" }).id(""), support.new().id(""))
    end)

    it("walks a document whose member is called each", function()
        local keys = {}
        for key in support.new().each(support.doc('{"each":1,"table":2}')) do keys[#keys + 1] = key end
        assert.same({ "each", "table" }, keys)
    end)
end)
