local value = require("claw.value")

local function test(node, values, opts)
    return assert(value.compile(node, opts)).test(values)
end

describe("claw.value", function()
    local text, glob = { text = true }, { glob = true }
    -- node, values (nil: not there), expected, options
    local cases = {
        { 0, { 0.0 }, true }, { 0, { "0" }, false }, { 0, { "0.0" }, true, text }, { 5, { "five" }, false, text },
        { "gpt-4", { "gpt-4" }, true }, { "gpt-4", { "gpt-4o" }, false }, { "gpt-4", nil, false }, { "a", {}, false },
        { "gpt-*", { "gpt-4" }, false }, { "gpt-*", { "gpt-4" }, true, glob },
        { true, { true }, true }, { true, { "true" }, false }, { true, { "true" }, true, text }, { false, { true }, false },
        { "a", { "b", "a" }, true },
        { { "a", "b" }, { "b" }, true }, { { "a", "b" }, { "c" }, false }, { { 1, "x" }, { 1 }, true },
        { { equals = "a" }, { "a" }, true }, { { ["in"] = { 1, 2 } }, { 2 }, true }, { { ["in"] = { 1 } }, { 2 }, false },
        { { contains = "Billing" }, { "my BILLING question" }, true }, { { contains = "x" }, { "abc" }, false },
        { { contains = { "x", "NEEDLE" } }, { ("-"):rep(65533) .. "NeedLe" .. ("-"):rep(9) }, true },
        { { contains = "needle" }, { ("-"):rep(65536) .. "needle" }, true },
        { { contains = "needle" }, { ("-"):rep(131072) .. "needl" }, false },
        { { contains = "" }, { "" }, true },
        { { contains = { "billing", "invoice" } }, { "an Invoice" }, true }, { { contains = "a.c" }, { "abc" }, false },
        { { contains = "5" }, { 5 }, false }, { { contains = "x" }, nil, false },
        { { matches = "^%d+$" }, { "123" }, true }, { { matches = "^%d+$" }, { "12a" }, false },
        { { matches = { "^a", "z$" } }, { "xyz" }, true },
        { { exists = true }, {}, true }, { { exists = true }, nil, false }, { { exists = false }, nil, true },
        { { exists = false }, { 1 }, false },
        { { gt = 1 }, { 2 }, true }, { { gt = 1 }, { 1 }, false }, { { gte = 1 }, { 1 }, true }, { { lt = 1 }, { 0 }, true },
        { { lte = 1 }, { 1.5 }, false }, { { gt = 1 }, { "2" }, false }, { { gt = 1 }, { "2" }, true, text },
        { { gt = 1 }, { "abc" }, false, text }, { { gt = 1, lt = 5 }, { 0, 9 }, false }, { { gt = 1, lt = 5 }, { 9, 3 }, true },
        { { ["not"] = "a" }, { "b" }, true }, { { ["not"] = "a" }, { "a" }, false }, { { ["not"] = "a" }, nil, true },
        { { ["not"] = { "a", "b" } }, { "b" }, false }, { { ["not"] = { contains = "x" } }, { "axb" }, false },
        { { ["not"] = "a", exists = true }, nil, false }, { { ["not"] = "a", contains = "b" }, { "b" }, true },
    }
    for i, case in ipairs(cases) do
        it(("case %d: %s"):format(i, value.describe(case[1])), function()
            assert.equal(case[3], test(case[1], case[2], case[4]))
        end)
    end

    it("says what is wrong, and where", function()
        for _, bad in ipairs({
            { { containz = "a" }, "contains", "containz" }, { { contains = 5 }, "string", "contains" },
            { { matches = "[" }, "without", "matches" }, { { exists = "yes" }, "true or false", "exists" },
            { { gt = "1" }, "number", "gt" }, { { ["in"] = "a" }, "list", "in" }, { { ["not"] = { gtt = 1 } }, "gt", "not" },
            { {}, "expected" }, { { { "a" } }, "not a map" },
        }) do
            local compiled, message, key = value.compile(bad[1])
            assert.is_nil(compiled)
            assert.truthy(message:find(bad[2], 1, true), message)
            assert.equal(bad[3], key)
        end
    end)

    it("knows how exact it is", function()
        assert.equal("exact", value.compile("a").rank)
        assert.equal("list", value.compile({ "a" }).rank)
        assert.equal("operator", value.compile({ gt = 1 }).rank)
        local g = value.compile("/v1/*", { glob = true })
        assert.equal("glob", g.rank)
        assert.equal(4, g.literal)
    end)
end)
