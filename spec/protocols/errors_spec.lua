local errors = require("claw.protocols.errors")

describe("claw.protocols.errors", function()
    it("knows the kind by the most telling word", function()
        local cases = {
            { 400, "context_length_exceeded", "invalid_request_error", "x", "context_window" },
            { 400, nil, "invalid_request_error", "This model's maximum context length is 8 tokens", "context_window" },
            { 400, nil, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum", "context_window" },
            { 413, nil, nil, nil, "too_large" },
            { 400, "content_filter", nil, "x", "content_policy" },
            { 429, "insufficient_quota", "insufficient_quota", "x", "billing" },
            { 429, "rate_limit_exceeded", "requests", "x", "rate_limit" },
            { 402, nil, nil, "credits", "billing" },
            { 401, "invalid_api_key", "invalid_request_error", "x", "authentication" },
            { 403, nil, nil, nil, "permission" },
            { 404, "model_not_found", "invalid_request_error", "x", "not_found" },
            { 529, nil, "overloaded_error", "Overloaded", "overloaded" },
            { 529, nil, "api_error", "x", "overloaded" },
            { 503, nil, nil, nil, "overloaded" },
            { nil, nil, "overloaded_error", "Overloaded", "overloaded" },
            { 504, nil, nil, nil, "timeout" },
            { 500, nil, "api_error", "x", "server" },
            { 502, nil, nil, nil, "server" },
            { 422, nil, nil, "x", "invalid_request" },
            { 418, nil, nil, "x", "invalid_request" },
            { nil, nil, nil, nil, "server" },
        }
        for i, c in ipairs(cases) do assert.equal(c[5], errors.kind(c[1], c[2], c[3], c[4]), "case " .. i) end
    end)

    it("has a status for each kind", function()
        for kind, status in pairs(errors.STATUS) do
            assert.truthy(status >= 400 and status < 600, kind)
        end
    end)

    it("takes keys out of messages", function()
        assert.equal("Incorrect API key provided: sk-***. You can", errors.scrub("Incorrect API key provided: sk-proj-abcdEFGH12345678. You can"))
        assert.equal("key sk-*** is bad", errors.scrub("key sk-ab******************cdef is bad"))
        assert.equal("sk-ant is a prefix", errors.scrub("sk-ant is a prefix"))
        assert.equal("gsk_*** and flags-and-options-sk-abcdefgh", errors.scrub("gsk_abcdefghijklmnop and flags-and-options-sk-abcdefgh"))
        assert.equal("key AIza***, bad", errors.scrub("key AIzaSyA1234567890abcdef, bad"))
        assert.equal(4000, #errors.scrub(("a"):rep(10000)))
    end)

    it("repeats plain words, never a page", function()
        assert.equal("upstream connect error", errors.plain(503, " upstream connect error\n"))
        assert.equal("the upstream answered 503", errors.plain(503, "<!DOCTYPE html><html></html>"))
        assert.equal("the upstream answered 502", errors.plain(502, ""))
        assert.equal("the upstream answered 502", errors.plain(502, ("x"):rep(501)))
        assert.equal("the upstream answered 502", errors.plain(502, nil))
    end)
end)
