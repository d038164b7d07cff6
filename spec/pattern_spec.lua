local pattern = require("claw.pattern")

describe("claw.pattern", function()
    for _, good in ipairs({ "", "abc", "^a.*$", "[%w_]+", "[]]", "[^]]", "(a)(b)%1", "%bxy", "%f[%w]x", "%%", "a-", "()",
        "[%]]", "[a-z%-]" }) do
        it(("takes %q"):format(good), function() assert.is_nil(pattern.problem(good)) end)
    end
    for _, bad in ipairs({ "%", "a%", "[", "[a", "[^", "[]", "a(b", "b)", "%b", "%bx", "%f", "%fx", "(()", "[%" }) do
        it(("refuses %q"):format(bad), function() assert.is_string(pattern.problem(bad)) end)
    end
end)
