-- The annotations (lua/openclaw/claw.d.lua) and the page made of them hold what the library has: no more, no less.

local phases = require("claw.phases")
local reference = require("openclaw.reference")
local request = require("openclaw.request")
local testing = require("openclaw.testing")

local function read(path)
    local file = assert(io.open((os.getenv("CLAW_ROOT") or ".") .. "/" .. path))
    local text = file:read("*a")
    file:close()
    return text
end

local declarations = read("lua/openclaw/claw.d.lua")
local declared = reference.declared(declarations)

local function class(name)
    for _, c in ipairs(declared.classes) do
        if c.class == name then return c end
    end
end

local function names_of(fields)
    local out = {}
    for _, f in ipairs(fields) do out[(f.name:gsub("%?$", ""))] = true end
    return out
end

local function set(list)
    local out = {}
    for _, name in ipairs(list) do out[name] = true end
    return out
end

describe("openclaw.reference", function()
    it("has every function of claw, and no other", function()
        local there = reference.functions_of(testing.load("policies/x.lua", { source = "return { api = 1 }" }).claw)
        local here = {}
        for _, f in ipairs(declared.functions) do here[f.name] = true end
        for name in pairs(names_of(class("claw.route").fields)) do here["claw.route." .. name] = true end
        assert.same(there, here)
    end)

    it("has every function that the proxy has", function()
        local here = reference.functions_of(testing.load("policies/x.lua", { source = "return { api = 1 }" }).claw)
        for name in pairs(reference.functions_of(reference.proxy_services())) do
            assert.is_true(here[name], name .. " is not in the kit")
        end
    end)

    it("has the arguments' names and types", function()
        for _, f in ipairs(declared.functions) do
            local names = {}
            for i, p in ipairs(f.params) do
                names[i] = p.name:gsub("%?$", "")
                assert.is_true(p.type ~= "", f.name)
            end
            assert.equal(f.args, table.concat(names, ", "))
        end
    end)

    it("has every hook with its arguments", function()
        local fields = {}
        for _, f in ipairs(class("claw.Policy").fields) do fields[f.name:gsub("%?$", "")] = f.type end
        assert.is_not_nil(fields.name and fields.api and fields.on_error)
        fields.name, fields.api, fields.on_error = nil, nil, nil
        for _, phase in ipairs(phases.list) do
            local args = {}
            local inside = assert(fields[phase.hook], phase.hook):match("^fun(%b())"):gsub("fun%b():?", "function")
            for name in inside:gmatch("([%w_]+):") do args[#args + 1] = name end
            assert.same(phase.args, args)
            fields[phase.hook] = nil
        end
        assert.same({}, fields)
    end)

    it("has the fields of req", function()
        assert.same(set(request.FIELDS.req), names_of(class("claw.Req").fields))
        assert.same(set(request.FIELDS["req.client"]), names_of(class("claw.Client").fields))
        assert.same(set(request.FIELDS["req.upstream"]), names_of(class("claw.Upstream").fields))
    end)

    it("is the page in docs: else run make docs", function()
        local text = reference.text(declarations, reference.functions_of(reference.proxy_services()))
        assert.is_true(text == read("docs/policy-reference.md"), "docs/policy-reference.md is old: run make docs")
    end)

    it("agrees with the table of services on what waits", function()
        for _, service in ipairs(phases.services or {}) do
            local found
            for _, f in ipairs(declared.functions) do
                if f.name == service.name then found = f end
            end
            assert.is_not_nil(found, service.name)
            local waits = table.concat(found.doc, "\n"):find("%f[%w]Waits%.") ~= nil
            assert.equal(service.waits or false, waits, service.name)
        end
    end)

    it("says where a function may be called, and what the proxy has not yet", function()
        local text = reference.text("---Does.\n---Waits.\n---@param a string what\n---@return integer? n how many\nfunction claw.x.y(a) end\n"
            .. "---@class c\n---@field a fun(x: string, y: { z: integer }): string|nil, number tells\nlocal c\n", {})
        assert.truthy(text:find("### claw.x.y(a)\n\nDoes.\n\n- `a` `string`: what\n- Returns: `n` `integer?` (how many)\n"
            .. "- Hooks: `admit`, `route`, `request`, `retry`, `response`; waits\n- **Not in this version", 1, true), text)
        assert.truthy(text:find("| `a` | `fun(x: string, y: { z: integer }): string\\|nil, number` | tells |", 1, true), text)
    end)
end)
