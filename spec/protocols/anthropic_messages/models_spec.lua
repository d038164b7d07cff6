local models = require("claw.protocols.anthropic_messages.models")

describe("anthropic_messages.models", function()
    it("knows by its name what a model takes", function()
        local old = { "claude-3-7-sonnet-20250219", "claude-3-5-haiku-latest", "claude-sonnet-4-20250514", "claude-opus-4-1",
            "claude-haiku-4-5@20251001",
            "anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-3-opus-20240229", "anthropic/claude-3.7-sonnet", "anthropic/claude-opus-4.5" }
        local new = { "claude-opus-4-6", "claude-sonnet-4-6", "claude-sonnet-5", "anthropic.claude-opus-4-6-v1:0", "claude-opus-4-7", "my-alias", "",
            "claude-latest", "claude-opus-5-20270101", "anthropic/claude-opus-4.6" }
        for _, name in ipairs(old) do assert.is_false(models.adaptive(name), name) end
        for _, name in ipairs(new) do assert.is_true(models.adaptive(name), name) end
        assert.is_true(models.adaptive(nil))
        assert.is_false(models.xhigh("claude-opus-4-6"))
        assert.is_true(models.xhigh("claude-opus-4-7"))
        assert.is_false(models.one_of_both("claude-sonnet-4-20250514"))
        assert.is_true(models.one_of_both("claude-sonnet-4-5"))
    end)
end)
