local seal = require("claw.protocols.seal")

describe("claw.protocols.seal", function()
    it("puts a family in front of what is not the field's own, and takes it off", function()
        for _, case in ipairs({ { "abc", "openai", "abc" }, { "abc", "anthropic", "anthropic:abc" }, { "abc", "anthropic", "anthropic:redacted:abc",
            true }, { "a:b", "gemini", "gemini:a:b" } }) do
            local sealed = seal.seal(case[1], case[2], "openai", case[4])
            assert.equal(case[3], sealed)
            assert.same({ case[1], case[2], case[4] or false }, { seal.open(sealed, "openai") })
        end
        assert.same({ "x", "other", false }, { seal.open(seal.seal("x", "martian", "openai"), "openai") })
        assert.same({ "https://x", "openai", false }, { seal.open("https://x", "openai") })
    end)
end)
