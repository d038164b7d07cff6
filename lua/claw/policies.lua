-- policies: all policies of a generation: which are loaded, which run always, which are named where.

local glob = require("claw.glob")
local policy = require("claw.policy")
local shadow = require("claw.shadow")
local suggest = require("claw.suggest")
local transform = require("claw.transform")

local M = {}

local SECRETS = { api_key = true, api_keys = true, key = true, key_sha256 = true, token = true, secret = true,
    password = true, url = true, aws = true, service_account = true }

-- The configuration as policies see it in init: without credentials.
local function without_secrets(node)
    if type(node) ~= "table" then return node end
    local out = {}
    for key, value in pairs(node) do
        if not SECRETS[key] then out[key] = without_secrets(value) end
    end
    return out
end
M.without_secrets = without_secrets

-- Names that routes, strategies and transformations use: these do not run "always" unless listed by name.
local function named(conf, routes, built_in)
    local out = {}
    for _, route in ipairs(routes) do
        for _, name in ipairs(route.node.policies or {}) do out[name] = true end
        local kind = route.node.strategy and route.node.strategy.type
        if kind and not built_in[kind] then out[kind] = true end
    end
    for _, t in ipairs(conf.transformations or {}) do
        for _, side in ipairs({ "request", "response" }) do
            local script = t[side] and t[side].script
            if type(script) == "string" then out[transform.script_name(script)] = true end
        end
    end
    return out
end

local function add(out, seen, p)
    if p and not seen[p] then
        seen[p] = true
        out[#out + 1] = p
    end
end

local function always(all, list, taken, problems)
    local out, seen = {}, {}
    for i, word in ipairs(list or { "*" }) do
        if glob.is(word) then
            local test = glob.compile(word)
            for _, name in ipairs(all.names) do
                local p = all.by_name[name]
                if p and p.origin == "dir" and test(name) and not taken[name] then add(out, seen, p) end
            end
        elseif all.by_name[word] == nil then
            problems[#problems + 1] = { path = ("policies.always[%d]"):format(i - 1),
                message = ('there is no policy "%s"%s'):format(word, suggest.hint(word, all.names)) }
        else
            add(out, seen, all.by_name[word])
        end
    end
    return out
end

-- { by_name = name -> policy (false: it has problems), names, always, shadows = are there any in shadow? }
function M.load(spec, services, built_in, problems)
    local conf, libs = spec.conf, {}
    for _, lib in ipairs(spec.libs or {}) do libs[lib.name] = lib end
    local sources, all = {}, { by_name = {}, names = {} }
    for _, source in ipairs(spec.policies or {}) do
        -- A file of the user's wins over a shipped one of the same name.
        if not sources[source.name] then all.names[#all.names + 1] = source.name end
        if not sources[source.name] or source.origin == "dir" then sources[source.name] = source end
    end
    table.sort(all.names)
    local taken = named(conf, spec.routes, built_in)
    local settings = conf.policies or {}
    local wanted = {}
    for name in pairs(taken) do wanted[name] = true end
    for _, list in ipairs({ settings.always or {}, settings.shadow or {} }) do
        for _, word in ipairs(list) do wanted[word] = true end
    end
    for _, name in ipairs(all.names) do
        local source = sources[name]
        if source.origin == "dir" or wanted[name] then
            all.by_name[name] = policy.load(source, spec.core, services(name), libs, problems) or false
        end
    end
    local shadowed = shadow.mark(spec.core, all, settings.shadow, problems)
    all.always, all.shadows = always(all, settings.always, taken, problems), #shadowed > 0
    -- One that stands nowhere else runs on every request.
    local listed = {}
    for _, p in ipairs(all.always) do listed[p] = true end
    for _, name in ipairs(shadowed) do
        local p = all.by_name[name]
        if not taken[name] and not listed[p] then all.always[#all.always + 1] = p end
    end
    for _, p in ipairs(all.always) do
        if p.fn then
            problems[#problems + 1] = policy.problem(p.file,
                "the file returns a function: name it in transformations[].request.script, or return a policy")
        end
    end
    return all
end

-- init and (in the VM that proves the generation) selftest of every policy; only once nothing else is wrong.
function M.start(core, all, conf, prove, problems)
    for _, name in ipairs(all.names) do
        local p = all.by_name[name]
        if p then policy.start(core, p, without_secrets(conf), prove, problems) end
    end
end

return M
