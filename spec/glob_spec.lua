local glob = require("claw.glob")

describe("claw.glob", function()
    local cases = {
        { "/v1/chat", "/v1/chat", true }, { "/v1/chat", "/v1/chat/", false }, { "", "", true },
        { "*", "", true }, { "*", "anything/at/all", true },
        { "/v1/*", "/v1/", true }, { "/v1/*", "/v1/a/b", true }, { "/v1/*", "/v1", false },
        { "*/chat", "/v1/chat", true }, { "*/chat", "/v1/chats", false },
        { "/a/*/c", "/a/b/c", true }, { "/a/*/c", "/a//c", true }, { "/a/*/c", "/a/c", false },
        { "ab*ba", "aba", false }, { "ab*ba", "abba", true },
        { "a*b*c", "abc", true }, { "a*b*c", "acb", false }, { "a*b*c", "axxbyyc", true },
        { "gpt-4*", "gpt-4", true }, { "gpt-4*", "gpt-4o-mini", true }, { "gpt-4*", "gpt-3", false },
        { "a.b*", "a.bc", true }, { "a.b*", "axbc", false }, { "**", "x", true }, { "x%*", "x%y", true },
    }
    for _, case in ipairs(cases) do
        it(("%s %s %s"):format(case[1], case[3] and "takes" or "leaves", case[2]), function()
            assert.equal(case[3], glob.compile(case[1])(case[2]))
        end)
    end

    it("tells globs from names, and counts literals", function()
        assert.is_true(glob.is("a*"))
        assert.is_false(glob.is("a?[x]"))
        assert.equal(4, glob.literal("/v1*/*"))
    end)

    it("is linear on hostile text", function()
        local test = glob.compile(("*a"):rep(30) .. "*b")
        local started = os.clock()
        assert.is_false(test(("a"):rep(20000)))
        assert.is_true(os.clock() - started < 1)
    end)
end)
