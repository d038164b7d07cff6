-- sandbox: what a policy file sees. Each file has a table of globals of its own, made from this list.

local M = {}

local PLAIN = {
    "assert", "error", "ipairs", "next", "pairs", "pcall", "select", "tonumber", "tostring", "type", "unpack", "xpcall",
}
local LIBRARIES = {
    string = { "byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "rep", "reverse", "sub",
        "upper" },
    table = { "concat", "insert", "maxn", "remove", "sort" },
    math = { "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod", "frexp",
        "huge", "ldexp", "log", "log10", "max", "min", "modf", "pi", "pow", "rad", "random", "sin", "sinh", "sqrt",
        "tan", "tanh" },
    os = { "time", "clock", "date" },
}
-- Pure modules a policy may require; it gets a copy of the module's table.
local REQUIRABLE = {
    ["claw.base64"] = true, ["claw.cidr"] = true, ["claw.glob"] = true, ["claw.json"] = true,
    ["claw.retry.classify"] = true,
}

local function copy(t)
    local out = {}
    for key, value in pairs(t) do out[key] = value end
    return out
end

-- A new environment. claw: the policy's services; extra names are found nowhere.
function M.environment(claw)
    local env = { claw = claw, _VERSION = _VERSION }
    for _, name in ipairs(PLAIN) do env[name] = _G[name] end
    for library, names in pairs(LIBRARIES) do
        env[library] = {}
        for _, name in ipairs(names) do env[library][name] = _G[library][name] end
    end
    env._G = env
    function env.require(name)
        if name == "claw" then return claw end
        if not REQUIRABLE[name] then
            error(("a policy may require claw and its pure modules, not %q"):format(tostring(name)), 2)
        end
        return copy(require(name))
    end
    return env
end

return M
