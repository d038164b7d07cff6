local providers = require("claw.providers")

describe("claw.providers", function()
    for _, name in ipairs(providers.NAMES) do
        it(name .. " is data of the right shape", function()
            local t = providers.tables[name]
            for key in pairs(t) do assert.truthy(({ auth = 1, headers = 1, keep_v1 = 1 })[key], key) end
            if t.auth then
                assert.truthy(t.auth.header:match("^[a-z-]+$"))
                assert.is_string(t.auth.prefix)
            else
                assert.is_false(t.auth)
            end
            for _, header in ipairs(t.headers or {}) do
                assert.equal(2, #header)
                assert.truthy(header[1]:match("^[a-z-]+$"))
            end
        end)
    end

    it("sends each its key where it looks for it", function()
        local expected = { openai = "authorization", anthropic = "x-api-key", gemini = "x-goog-api-key", azure = "api-key" }
        for name, header in pairs(expected) do assert.equal(header, providers.upstream(name).auth.header) end
        assert.is_false(providers.upstream("mock").auth)
    end)

    it("keeps /v1 below a base URL without a path", function()
        assert.is_true(providers.upstream("generic", "http://localhost:11434").keep_v1)
        assert.is_true(providers.upstream("generic", "http://localhost:11434/").keep_v1)
        assert.is_false(providers.upstream("generic", "http://localhost:11434/v1").keep_v1)
        assert.is_false(providers.upstream("openai").keep_v1)
        assert.is_false(providers.upstream("perplexity", "https://api.perplexity.ai").keep_v1)
        assert.is_true(providers.upstream("mock").keep_v1)
    end)

    it("suggests", function()
        local none, message = providers.upstream("antropic")
        assert.is_nil(none)
        assert.equal('unknown provider type "antropic" (did you mean "anthropic"?)', message)
    end)
end)
