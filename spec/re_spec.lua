local fake_core = require("support.fake_core")
local re = require("claw.re")

describe("claw.re", function()
    local compiled = 0
    local core = fake_core.new()
    local compile = core.re_compile
    function core.re_compile(pattern)
        compiled = compiled + 1
        return compile(pattern)
    end
    local r = re.new(core)

    it("finds and matches", function()
        assert.same({ 3, 4, "b" }, { r.find("aaab", "a(b)", 2) })
        assert.same({ 3, 3 }, { r.find("aba", "a", -1) })
        assert.same({}, { r.find("a", "b") })
        assert.same({ "ab" }, { r.match("xab", "ab") })
        assert.same({ "b" }, { r.match("xab", "a(b)") })
        assert.same({}, { r.match("x", "y") })
    end)

    it("replaces by texts and functions", function()
        assert.same({ "b-n-n-", 3 }, { r.gsub("banana", "a", "-") })
        assert.same({ "b[a]nana", 1 }, { r.gsub("banana", "a", "[%0]", 1) })
        assert.same({ "nabana", 1 }, { r.gsub("banana", "b(a)(n)", "%2%1b") })
        assert.same({ "bNN", 2 }, { r.gsub("banan", "a(n)", string.upper) })
        assert.same({ "-\195\169-x-", 3 }, { r.gsub("\195\169x", "", "-") })
        assert.same({ "ab", 1 }, { r.gsub("ab", "b", function() return nil end) })
    end)

    it("compiles a pattern once, and forgets all when there are many", function()
        compiled = 0
        for _ = 1, 3 do r.find("x", "once") end
        assert.equal(1, compiled)
        for i = 1, 300 do r.find("x", "p" .. i) end
        r.find("x", "once")
        assert.equal(302, compiled)
    end)

    it("passes limits on, and raises mistakes", function()
        local limited = re.new(fake_core.new({ re_exec = function() return nil, "too much", "ELIMIT" end }))
        assert.same({ nil, "too much", "ELIMIT" }, { limited.find("x", "y") })
        assert.same({ nil, "too much", "ELIMIT" }, { limited.match("x", "y") })
        assert.same({ nil, "too much", "ELIMIT" }, { limited.gsub("x", "y", "z") })
        for _, case in ipairs({
            { function() r.find("x", "(") end, "claw.re.find: bad pattern at 1: no closing" },
            { function() r.find(1, "x") end, "wants a text and a pattern" }, { function() r.find("x", "x", 0.5) end, "init wants" },
            { function() r.gsub("x", "x") end, "wants a replacement" }, { function() r.gsub("x", "x", "", "1") end, "n wants" },
            { function() r.gsub("x", "x", "%a") end, "wants a digit" }, { function() r.gsub("x", "x", "%2") end, "no capture %2" },
            { function() r.gsub("x", "x", function() return {} end) end, "returned a table" },
        }) do
            local ok, message = pcall(case[1])
            assert.is_false(ok)
            assert.truthy(message:find(case[2], 1, true), message)
        end
    end)
end)
