local diff = require("claw.diff")

describe("claw.diff", function()
    it("tells paths that came, went and changed, in order", function()
        assert.same({ "+ a: 1", '- b.c[1]: "y"', '~ b["d e"]: true -> false' },
            diff.texts('{"b":{"c":["x","y"],"d e":true}}', '{"a":1,"b":{"c":["x"],"d e":false}}'))
        assert.same({ "~ x: [1] -> {\"k\":1}" }, diff.texts('{"x":[1]}', '{"x":{"k":1}}'))
        assert.same({}, diff.texts('{"a": 1}', '{"a":1}'))
    end)

    it("tells of texts that are no JSON", function()
        assert.same({ "~ (the body): plain -> other" }, diff.texts("plain", "other"))
        assert.same({ "~ (the body): nothing -> {}" }, diff.texts(nil, "{}"))
    end)

    it("cuts values between characters, and counts what is too much", function()
        assert.equal(("a"):rep(79) .. "…", diff.cut(("a"):rep(79) .. "ä" .. "b"))
        local new = {}
        for i = 1, 50 do new["k" .. i] = i end
        local lines = diff.lines({}, new)
        assert.equal(41, #lines)
        assert.equal("… and 10 more", lines[41])
    end)
end)
