local fake_core = require("support.fake_core")
local sandbox = require("claw.sandbox")

local function environment(claw, libs)
    return sandbox.environment(claw or { version = "1", json = {} }, fake_core.new(), libs)
end

local function run(source, env)
    local chunk = assert(loadstring(source))
    return setfenv(chunk, env or environment())()
end

local function raises(source, text, env)
    local ok, message = pcall(run, source, env)
    assert.is_false(ok, source)
    assert.truthy(tostring(message):find(text, 1, true), tostring(message))
end

describe("claw.sandbox", function()
    for _, name in ipairs({ "io", "debug", "package", "load", "loadstring", "loadfile", "dofile", "getfenv", "setfenv", "module",
        "jit", "collectgarbage", "getmetatable", "setmetatable", "rawset", "rawget", "rawequal", "newproxy", "print", "ffi" }) do
        it("has no " .. name, function() assert.is_nil(run("return " .. name)) end)
    end

    for _, name in ipairs({ "os.execute", "os.exit", "os.getenv", "os.remove", "os.rename", "os.tmpname", "os.setlocale",
        "string.dump", "math.randomseed" }) do
        it("has no " .. name, function() assert.is_nil(run("return " .. name)) end)
    end

    for _, name in ipairs({ "assert", "error", "ipairs", "next", "pairs", "pcall", "select", "tonumber", "tostring", "type",
        "unpack", "xpcall", "os.time", "os.clock", "os.date", "string.find", "table.sort", "math.floor", "claw.version",
        "coroutine.create", "coroutine.resume", "coroutine.running", "coroutine.status", "coroutine.wrap", "coroutine.yield" }) do
        it("has " .. name, function() assert.is_not_nil(run("return " .. name)) end)
    end

    it("lets no global be written, and says what to do instead", function()
        raises("x = 1", "global 'x' may not be written: use local, or claw.state(req)")
        raises("function helper() end", "global 'helper' may not be written")
        raises("_G.x = 1", "global 'x' may not be written")
        raises("string = nil", "global 'string' may not be written")
        raises("x = 1", "or claw.store for what outlives a request", environment({ store = {} }))
        assert.is_nil(rawget(_G, "x"))
    end)

    it("lets a coroutine of its own be yielded, and no hook", function()
        assert.equal(7, run("return coroutine.wrap(function() coroutine.yield(7) end)()"))
        local core = fake_core.new({ hooked = function() return true end })
        raises("coroutine.yield(7)", "]:1: coroutine.yield: a hook may not be yielded", sandbox.environment({}, core))
    end)

    it("lets no library and no service be written", function()
        for _, place in ipairs({ "string.find", "table.sort", "math.pi", "os.time", "coroutine.wrap", "claw.version", "claw.json.x" }) do
            raises(place .. " = 1", "may not be written: it is read-only")
        end
        assert.is_true(run("local f = string.find table.insert(string, 1) return string.find == f"))
        assert.is_function(string.find)
    end)

    it("gives each file tables of its own", function()
        local claw = { json = {} }
        local one, two = environment(claw), environment(claw)
        run("table.insert(string, 'mark') table.insert(claw.json, 'mark') table.insert(_G, 'mark')", one)
        assert.is_true(run("return string[1] == nil and claw.json[1] == nil and _G[1] == nil", two))
        assert.is_nil(rawget(string, 1) or claw.json[1])
        for _, library in ipairs({ "string", "table", "math", "os", "coroutine", "claw", "_G" }) do
            assert.are_not.equal(run("return " .. library, one), run("return " .. library, two))
        end
    end)

    it("requires claw and pure modules only", function()
        assert.is_true(run("return require('claw').version == '1'"))
        assert.is_true(run("return require('claw.glob').compile('a*')('ab')"))
        assert.is_true(run("return require('claw.json').encode == claw.json.encode", environment({ json = { encode = function() end } })))
        assert.is_true(run("return require('claw.json').is_array(require('claw.json').array())"))
        raises("require('claw.glob').compile = nil", "read-only")
        assert.is_function(require("claw.glob").compile)
        for _, name in ipairs({ "claw.engine", "claw.sandbox", "ffi", "os", "io", "cjson", "claw.nothing", "lib", "lib/x", "lib.X", "lib.a.b" }) do
            raises(("return require(%q)"):format(name), "a policy may require")
        end
        raises("require({})", "a policy may require")
        raises("require('lib.nothing')", "there is no policies/lib/nothing.lua")
    end)

    it("runs a file of lib once, with an environment of its own", function()
        local libs = {
            shared = { file = "policies/lib/shared.lua", source = "local n = 0 return { count = function() n = n + 1 return n end }" },
            outer = { file = "policies/lib/outer.lua", source = "return require('lib.shared').count()" },
            nothing = { file = "policies/lib/nothing.lua", source = "local x = claw.version" },
            writes = { file = "policies/lib/writes.lua", source = "\nleaked = 1" },
            wrong = { file = "policies/lib/wrong.lua", source = "return (" },
            one = { file = "policies/lib/one.lua", source = "return require('lib.two')" },
            two = { file = "policies/lib/two.lua", source = "return require('lib.one')" },
        }
        local env = environment(nil, libs)
        assert.equal(3, run("require('lib.shared').count() require('lib.outer') return require('lib.shared').count()", env))
        assert.equal(1, run("return require('lib.shared').count()", environment(nil, libs)))
        assert.is_true(run("return require('lib.nothing')", env))
        raises("require('lib.writes')", "policies/lib/writes.lua:2: global 'leaked' may not be written", env)
        raises("require('lib.wrong')", "policies/lib/wrong.lua:1:", env)
        raises("require('lib.one')", "policies/lib/one.lua requires itself", env)
    end)

    it("handles errors in xpcall", function()
        local env = environment()
        assert.same({ true, 1, 2 }, { run("return xpcall(function(...) return ... end, error, 1, 2)", env) })
        assert.same({ false, "seen x" }, { run("return xpcall(error, function(e) return 'seen ' .. e end, 'x')", env) })
        assert.is_false((run("return xpcall(error, function(e) error(e) end, 'x')", env)))
        assert.is_false((run("return xpcall(error, nil, 'x')", env)))
    end)

    it("looks at the budget while it sorts", function()
        local core, checks = fake_core.new(), 0
        function core.check() checks = checks + 1 end
        local env = sandbox.environment({}, core)
        assert.is_true(run("local t = {} for i = 1, 5000 do t[i] = -i end table.sort(t) return t[1] == -5000 and t[5000] == -1", env))
        assert.is_true(checks > 5)
        assert.is_true(run("local t = { 1, 3, 2 } table.sort(t, function(a, b) return a > b end) return t[1] == 3", env))
    end)
end)
