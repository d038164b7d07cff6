-- policy: a policy file becomes a checked table of hooks.
--
-- The table: name (the file's), api = 1, hooks (claw.phases), on_error = "fail" | "skip". Unknown keys are problems.
-- A file may return a function instead, when a transformation names it: the function is that side's hook.

local hooks = require("claw.hooks")
local phases = require("claw.phases")
local sandbox = require("claw.sandbox")
local suggest = require("claw.suggest")

local M = {}

M.API = 1

local FIELDS = { "name", "api", "on_error" }
local KNOWN = {}
for _, name in ipairs(FIELDS) do KNOWN[#KNOWN + 1] = name end
for _, name in ipairs(phases.names) do KNOWN[#KNOWN + 1] = name end

-- "policies/x.lua:12: message" as a problem.
function M.problem(file, message)
    message = tostring(message)
    local line, text = message:match("^" .. file:gsub("%p", "%%%0") .. ":(%d+): (.*)$")
    return { file = file, line = tonumber(line) or 1, message = text or message }
end

local function check_field(policy, key, value)
    if key == "name" then
        if value ~= policy.name then
            return ('name is "%s", but the file is %s'):format(tostring(value), policy.file)
        end
    elseif key == "api" then
        if value ~= M.API then return ("api must be %d, not %s"):format(M.API, tostring(value)) end
    elseif key == "on_error" then
        if value ~= "fail" and value ~= "skip" then return 'on_error must be "fail" or "skip"' end
    elseif not phases.by_name[key] then
        return ("unknown key %s%s"):format(tostring(key), suggest.hint(tostring(key), KNOWN))
    elseif type(value) ~= "function" then
        return ("%s must be a function, not a %s"):format(key, type(value))
    end
    return nil
end

local function check_table(policy, result, problems)
    local before = #problems
    if result.api == nil then
        problems[#problems + 1] = M.problem(policy.file, ("api is missing: write api = %d"):format(M.API))
    end
    for key, value in pairs(result) do
        local message = check_field(policy, key, value)
        if message then problems[#problems + 1] = M.problem(policy.file, message) end
    end
    if #problems > before then return nil end
    policy.skip = result.on_error == "skip"
    for _, name in ipairs(phases.names) do policy.hooks[name] = result[name] end
    return policy
end

-- source: { name, file, source, origin }; claw: the policy's services; libs: the files of policies/lib. A policy
-- { name, file, origin, skip, hooks, fn (when the file returned a function) }, or nil with problems filled.
function M.load(source, core, claw, libs, problems)
    local policy = { name = source.name, file = source.file, origin = source.origin, hooks = {} }
    local chunk, message = core.load(source.source, "@" .. source.file)
    if not chunk then
        problems[#problems + 1] = M.problem(source.file, message)
        return nil
    end
    core.setfenv(chunk, sandbox.environment(claw, core, libs))
    local ok, result = hooks.protect(core, true, chunk)
    if not ok then
        problems[#problems + 1] = M.problem(source.file, result.message)
        return nil
    end
    if type(result) == "function" then
        policy.fn = result
        return policy
    elseif type(result) ~= "table" then
        problems[#problems + 1] = M.problem(source.file,
            ("the file must return its policy, a table; it returned %s"):format(result == nil and "nothing"
                or "a " .. type(result)))
        return nil
    end
    return check_table(policy, result, problems)
end

-- init in every VM of a generation, selftest where the generation is proved: an error is a problem.
function M.start(core, policy, conf, prove, problems)
    for _, name in ipairs({ "init", "selftest" }) do
        local hook = policy.hooks[name]
        if hook and (name == "init" or prove) then
            phases.now = name
            local ok, failure = hooks.protect(core, true, hook, name == "init" and conf or nil)
            phases.now = nil
            if not ok then
                local p = M.problem(policy.file, failure.message)
                p.message = name .. ": " .. p.message
                problems[#problems + 1] = p
            end
        end
    end
end

return M
