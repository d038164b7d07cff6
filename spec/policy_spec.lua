local claw = require("claw")
local fake_core = require("support.fake_core")
local phases = require("claw.phases")
local policy = require("claw.policy")

-- The policy and the problems of a source, as "line: message".
local function load_source(source)
    local core, problems = fake_core.new(), {}
    local made = policy.load({ name = "x", file = "policies/x.lua", source = source, origin = "dir" }, core,
        claw.services(core, {})("x"), {}, problems)
    for i, p in ipairs(problems) do
        assert.equal("policies/x.lua", p.file)
        problems[i] = p.line .. ": " .. p.message
    end
    return made, problems
end

describe("claw.policy", function()
    it("takes a table of hooks", function()
        for _, hook in ipairs(phases.names) do
            local made, problems = load_source("return { name = 'x', api = 1, on_error = 'skip', " .. hook .. " = function() end }")
            assert.same({}, problems)
            assert.is_function(made.hooks[hook])
            assert.is_true(made.skip)
        end
        local made = load_source("return { api = 1 }")
        assert.same({}, made.hooks)
        assert.is_false(made.skip)
    end)

    it("takes a function", function()
        assert.is_function(load_source("return function() end").fn)
    end)

    local bad = {
        { "return { api = 1, admitt = function() end }", '1: unknown key admitt (did you mean "admit"?)' },
        { "return { api = 1, [1] = 2 }", "1: unknown key 1" },
        { "return { api = 2 }", "1: api must be 1, not 2" }, { "return {}", "1: api is missing: write api = 1" },
        { "return { api = 1, name = 'y' }", '1: name is "y", but the file is policies/x.lua' },
        { "return { api = 1, on_error = 'retry' }", '1: on_error must be "fail" or "skip"' },
        { "return { api = 1, route = 'a' }", "1: route must be a function, not a string" },
        { "", "1: the file must return its policy, a table; it returned nothing" },
        { "return 5", "1: the file must return its policy, a table; it returned a number" },
        { "\n\nlocal x = nil + 1", "3: attempt to perform arithmetic on a nil value" },
        { "\nreturn {", "2: unexpected symbol near '<eof>'" },
        { "return io.open('/etc/passwd')", "1: attempt to index global 'io' (a nil value)" },
        { "error({})", "1: an error that is a table value" },
    }
    for _, case in ipairs(bad) do
        it("refuses " .. case[1]:gsub("\n", " "), function()
            local made, problems = load_source(case[1])
            assert.is_nil(made)
            assert.equal(1, #problems)
            assert.equal(case[2], problems[1]:sub(1, #case[2]))
        end)
    end

    it("reads file and line out of a message", function()
        assert.same({ file = "policies/a-b.lua", line = 12, message = "x: y" },
            policy.problem("policies/a-b.lua", "policies/a-b.lua:12: x: y"))
        assert.same({ file = "p.lua", line = 1, message = "other.lua:3: z" }, policy.problem("p.lua", "other.lua:3: z"))
    end)
end)
