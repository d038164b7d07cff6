local sandbox = require("claw.sandbox")

local function run(source, env)
    local chunk = assert(loadstring(source))
    return setfenv(chunk, env or sandbox.environment({ version = "1" }))()
end

describe("claw.sandbox", function()
    for _, name in ipairs({ "io", "debug", "package", "load", "loadstring", "loadfile", "dofile", "getfenv", "setfenv", "module",
        "jit", "collectgarbage", "getmetatable", "setmetatable", "rawset", "rawget", "rawequal", "newproxy", "print", "ffi", "coroutine" }) do
        it("has no " .. name, function() assert.is_nil(run("return " .. name)) end)
    end

    for _, name in ipairs({ "os.execute", "os.exit", "os.getenv", "os.remove", "os.rename", "os.tmpname", "os.setlocale",
        "string.dump", "math.randomseed" }) do
        it("has no " .. name, function() assert.is_nil(run("return " .. name)) end)
    end

    for _, name in ipairs({ "assert", "error", "ipairs", "next", "pairs", "pcall", "select", "tonumber", "tostring", "type",
        "unpack", "xpcall", "os.time", "os.clock", "os.date", "string.find", "table.sort", "math.floor", "claw.version" }) do
        it("has " .. name, function() assert.is_not_nil(run("return " .. name)) end)
    end

    it("keeps one file's globals and changes from another's", function()
        local one, two = sandbox.environment({}), sandbox.environment({})
        run("x = 1; string.find = nil; math.floor = nil; table.sort = nil", one)
        assert.is_nil(run("return x", two))
        assert.is_function(run("return string.find", two))
        assert.is_function(run("return math.floor", two))
        assert.is_function(string.find)
        assert.is_nil(rawget(_G, "x"))
    end)

    it("requires claw and pure modules only, as copies", function()
        assert.is_true(run("return require('claw').version == '1'"))
        assert.is_true(run("return require('claw.glob').compile('a*')('ab')"))
        run("require('claw.glob').compile = nil")
        assert.is_function(require("claw.glob").compile)
        for _, name in ipairs({ "claw.engine", "claw.sandbox", "ffi", "os", "io", "cjson", "claw.nothing" }) do
            local ok, message = pcall(run, ("return require(%q)"):format(name))
            assert.is_false(ok)
            assert.truthy(message:find("a policy may require", 1, true))
        end
        assert.is_false(pcall(run, "require({})"))
    end)
end)
