local retry = require("claw.retry")

local function half() return 0.5 end

local function rules(own, global)
    local problems = {}
    local made = retry.compile(global, own, 60000, "routes[0]", problems)
    assert.same({}, problems)
    return made
end

-- A failed try: fields over a first try with another candidate left.
local function failed(fields)
    local a = { kind = "connect", n = 1, left = 1, index = 1, elapsed_ms = 0 }
    for key, v in pairs(fields) do a[key] = v end
    if a.status and not fields.kind then a.kind = "http_" .. a.status end
    return a
end

local function decide(fields, made, tried, next_one, known)
    local action, after = retry.decide(made or rules(), failed(fields), tried, next_one, known or 2, half)
    return action, after
end

describe("claw.retry", function()
    describe("with another candidate left", function()
        local cases = {
            { {}, "next" }, { { kind = "tls" }, "next" }, { { kind = "timeout_first_byte" }, "next" },
            { { kind = "eof" }, "next" }, { { kind = "stream_error" }, "next" },
            { { kind = "stream_error", status = 200 }, "next" },
            { { status = 429 }, "next" }, { { status = 500 }, "next" }, { { status = 502 }, "next" },
            { { status = 503 }, "next" }, { { status = 504 }, "next" }, { { status = 529 }, "next" },
            { { status = 401 }, "next" }, { { status = 403 }, "next" },
            { { status = 400 }, "stop" }, { { status = 404 }, "stop" }, { { status = 422 }, "stop" },
            { { status = 501 }, "stop" }, { { kind = "stall" }, "stop" },
            { { kind = "bad_response" }, "next" }, { { kind = "bad_response", left = 0 }, "stop" },
            { { kind = "deadline" }, "stop" }, { { kind = "client_gone" }, "stop" },
            { { status = 429, retry_after_ms = 90000 }, "next" }, { { n = 2 }, "stop" },
        }
        for i, case in ipairs(cases) do
            it(("case %d: %s"):format(i, case[1].kind or case[1].status or "connect"), function()
                assert.same({ case[2], 0 }, { decide(case[1]) })
            end)
        end
    end)

    describe("with none left", function()
        local one = 1
        local cases = {
            { { n = 1 }, "same", 250 }, { { n = 1, status = 429, retry_after_ms = 1200 }, "same", 1200 },
            { { n = 1, status = 429, retry_after_ms = 61000 }, "stop", 0 }, { { n = 2 }, "stop", 0 },
            { { n = 1, status = 401 }, "stop", 0 }, { { n = 1, kind = "tls" }, "stop", 0 },
            { { n = 1, status = 400 }, "stop", 0 },
        }
        for i, case in ipairs(cases) do
            it("case " .. i, function()
                case[1].left = 0
                assert.same({ case[2], case[3] }, { decide(case[1], nil, nil, nil, one) })
            end)
        end
    end)

    it("tries every candidate when attempts is not given, and caps hard when it is", function()
        assert.equal("next", (decide({ n = 2 }, rules(), nil, nil, 3)))
        assert.equal("stop", (decide({ n = 3 }, rules(), nil, nil, 3)))
        assert.equal("stop", (decide({ n = 2 }, rules({ attempts = 2 }), nil, nil, 3)))
        assert.equal("stop", (decide({ n = 1 }, rules({ attempts = 1 }), nil, nil, 3)))
        assert.equal("stop", (decide({ n = 2, attempts_max = 2 }, rules(), nil, nil, 3)))
    end)

    it("waits longer each time round, and not past the total time", function()
        local made = rules({ attempts = 10, total_timeout_seconds = 3 })
        local waits = {}
        for n = 2, 5 do waits[#waits + 1] = select(2, decide({ n = n, left = 0 }, made, nil, nil, 2)) end
        assert.same({ 250, 500, 1000, 2000 }, waits)
        assert.equal("stop", (decide({ n = 3, left = 0, elapsed_ms = 2600 }, made, nil, nil, 2)))
        assert.equal("stop", (decide({ n = 1, elapsed_ms = 3000 }, made)))
        assert.equal("next", (decide({ n = 1, elapsed_ms = 70000 })))
    end)

    it("takes kinds, statuses and classes, the route over the global, key by key", function()
        local made = rules({ on = { "5xx", "stall" } }, { on = { 429 }, backoff_ms = 100 })
        assert.equal(100, made.backoff_ms)
        assert.equal("next", (decide({ status = 507 }, made)))
        assert.equal("next", (decide({ kind = "stall" }, made)))
        assert.equal("stop", (decide({ status = 429 }, made)))
        assert.equal("stop", (decide({}, made)))
        assert.equal("stop", (decide({ status = 400 }, rules({ on = { "4xx" } }))))
        assert.equal("next", (decide({ status = 429 }, rules({ on = { "rate_limited" } }))))
        assert.equal("next", (decide({ status = 503 }, rules({ on = { "http_503" } }))))
    end)

    it("goes on with another key of the same upstream at once, while there is one", function()
        for _, status in ipairs({ 401, 403, 429 }) do
            local a = { status = status, other_keys = 2, left = 1, retry_after_ms = 9000 }
            assert.same({ "same", 0 }, { (decide(a)), (select(2, decide(a))) })
            a.other_keys = 0
            assert.equal("next", (decide(a)))
        end
        assert.equal("next", (decide({ status = 503, other_keys = 2, left = 1 })))
        assert.equal("stop", (decide({ status = 429, other_keys = 2 }, rules({ on = { 503 } }))))
    end)

    it("counts a try with another key as one, and as no failing over", function()
        local third = { status = 429, other_keys = 1, rotations = 2, n = 3, left = 1 }
        assert.equal("same", (decide(third)))
        assert.equal("next", (decide({ status = 503, rotations = 2, n = 3, left = 1 })))
        assert.equal("stop", (decide({ status = 503, rotations = 1, n = 3, left = 1 })))
        assert.equal("stop", (decide(third, rules({ attempts = 3 }))))
    end)

    it("names what it cannot listen for", function()
        local problems = {}
        retry.compile({ on = { "conect", 4 } }, nil, 1, "routes[0]", problems)
        assert.equal("retry.on[0]", problems[1].path)
        assert.truthy(problems[1].message:find('did you mean "connect"', 1, true))
        assert.equal("retry.on[1]", problems[2].path)
        retry.compile(nil, { on = { "x" } }, 1, "routes[3]", problems)
        assert.equal("routes[3].retry.on[0]", problems[3].path)
    end)

    describe("a prompt that does not fit or is refused", function()
        local too_long = { status = 400, body = "context_length_exceeded" }
        local refused = { status = 400, body = "content_filter" }
        local small, large = { context_window = 8000 }, { context_window = 128000 }

        it("goes on only to who says it can take it", function()
            assert.equal("next", (decide(too_long, nil, small, large)))
            assert.equal("stop", (decide(too_long, nil, large, small)))
            assert.equal("stop", (decide(too_long, nil, small, {})))
            assert.equal("stop", (decide(too_long, nil, {}, large)))
            assert.equal("stop", (decide(too_long, nil, small, nil)))
            assert.equal("next", (decide(refused, nil, {}, { capabilities = { content_policy = true } })))
            assert.equal("stop", (decide(refused, nil, {}, { capabilities = {} })))
            assert.equal("stop", (decide(refused, nil, {}, {})))
        end)
    end)
end)
