local expressions = require("openclaw.expressions")
local testing = require("openclaw.testing")

local POLICY = [[
return { name = "p", api = 1, admit = function(req)
    local out = assert(req.client.headers["x-do"])
    return { deny = 418, message = claw.json.encode({ claw.re[out](unpack(claw.json.decode(req.client.headers["x-args"]))) }) }
end }]]

local function re(fn, args)
    local p = testing.load("policies/p.lua", { source = POLICY })
    return p:run("admit", testing.request({ headers = { ["x-do"] = fn, ["x-args"] = args } })).denied.message
end

describe("openclaw.expressions", function()
    it("is claw.re in tests", function()
        assert.equal("[3,4,\"b\"]", re("find", '["aaab","a(b)",2]'))
        assert.equal("[\"2024\",\"05\"]", re("match", [==[["on 2024-05","(\\d{4})-(\\d\\d)"]]==]))
        assert.equal("[\"[n] and [n]\",2]", re("gsub", [==[["078-05-1120 and 078-05-1121","\\b\\d{3}-\\d{2}-\\d{4}\\b","[n]"]]==]))
        assert.equal("[\"-é-x-\",3]", re("gsub", '["éx","","-"]'))
        assert.equal("[1,1,false,\"a\"]", re("find", '["a","(b)?(a)"]'))
        assert.equal("{}", re("find", '["a","b"]'))
    end)

    it("has the proxy's bounds", function()
        local compiled = expressions.compile("(a+)+$")
        assert.equal("ELIMIT", (select(3, expressions.exec(compiled, ("a"):rep(60000) .. "!", 1))))
        assert.equal("ETOO_LARGE", (select(3, expressions.exec(compiled, ("a"):rep(2 ^ 20 + 1), 1))))
        assert.equal("EUTF8", (select(3, expressions.exec(compiled, "\255", 1))))
        assert.same({}, { expressions.exec(compiled, "b", 3) })
        for pattern, text in pairs({ ["("] = "closing parenthesis", [("(a)"):rep(33)] = "32 captures", [("a"):rep(4097)] = "4096 bytes",
            ["\\C"] = "\\C" }) do
            local made, message, place = expressions.compile(pattern)
            assert.is_nil(made)
            assert.truthy(message:find(text, 1, true) and place >= 1, message)
        end
    end)

    it("says what is missing, and only when it is needed", function()
        local mine = package.loaded["openclaw.expressions"]
        package.loaded["openclaw.expressions"] = nil
        local other, ffi = require("openclaw.expressions"), require("ffi")
        local cdef = ffi.cdef
        ffi.cdef = function() end
        other.names = { "no-such-library" }
        local ok, message = pcall(other.compile, "a")
        ffi.cdef, package.loaded["openclaw.expressions"] = cdef, mine
        assert.is_false(ok)
        assert.equal("claw.re: there is no libpcre2-8 on this machine (Debian: apt install libpcre2-8-0)", message)
    end)
end)
