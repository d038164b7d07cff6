local classify = require("claw.retry.classify")

describe("claw.retry.classify", function()
    local cases = {
        { { kind = "connect" }, "connect" }, { { kind = "http_503", status = 503 }, "http_503" },
        { { kind = "http_429", status = 429 }, "rate_limited" }, { { kind = "http_529", status = 529 }, "overloaded" },
        { { kind = "http_401", status = 401 }, "auth" }, { { kind = "http_403", status = 403 }, "auth" },
        { { kind = "http_400", status = 400, body = '{"error":{"code":"context_length_exceeded"}}' }, "context_window" },
        { { status = 400, body = "This model's maximum context length is 8192 tokens" }, "context_window" },
        { { status = 400, body = '{"error":{"message":"prompt is too long: 210000 tokens > 200000 maximum"}}' },
            "context_window" },
        { { status = 400, body = '{"error":{"code":"content_filter"}}' }, "content_policy" },
        { { status = 400, body = '{"error":{"code":"content_policy_violation"}}' }, "content_policy" },
        { { kind = "http_400", status = 400, body = "missing field messages" }, "http_400" },
        { { kind = "http_500", status = 500, body = "content_filter" }, "http_500" },
        { { kind = "stream_error", body = '{"type":"overloaded_error"}' }, "overloaded" },
        { { kind = "stream_error", body = '{"type":"rate_limit_error"}' }, "rate_limited" },
        { { kind = "stream_error", body = "boom" }, "stream_error" }, { { kind = "stream_error" }, "stream_error" },
        { { status = 418 }, "http_418" },
    }
    for i, case in ipairs(cases) do
        it(("case %d: %s"):format(i, case[2]), function() assert.equal(case[2], classify.kind(case[1])) end)
    end
end)
