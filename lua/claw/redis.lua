-- redis: claw.redis, commands to the Redis that state.url names.
--
-- All policies of a worker share one connection: what would change its state, or keep it from others, is refused.

local phases = require("claw.phases")
local suggest = require("claw.suggest")

local M = {}

local TIMEOUT_MS, TIMEOUT_MAX_MS = 1000, 600000
local WORDS_MAX = 1000
local SCRIPT_MAX = 2 ^ 20 -- bytes, as of any command

local REFUSED = {}
for name in ([[
    AUTH HELLO SELECT QUIT RESET CLIENT MONITOR SYNC PSYNC REPLCONF READONLY READWRITE ASKING SHUTDOWN DEBUG
    MULTI EXEC DISCARD WATCH UNWATCH WAIT WAITAOF
    SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE
    BLPOP BRPOP BRPOPLPUSH BLMOVE BLMPOP BZPOPMIN BZPOPMAX BZMPOP
]]):gmatch("%S+") do REFUSED[name] = true end

local function is_whole(v, low, high)
    return type(v) == "number" and v == math.floor(v) and v >= low and v <= high
end

-- The text of one word; the second value says what is wrong.
local function word_of(v)
    if type(v) == "string" then return v end
    if type(v) ~= "number" then return nil, ("a word is a %s: wants texts and numbers"):format(type(v)) end
    if v ~= v or v == math.huge or v == -math.huge then return nil, "a word is no finite number" end
    if v == math.floor(v) and math.abs(v) < 2 ^ 53 then return ("%d"):format(v) end
    return ("%.17g"):format(v)
end

-- A last argument that is a table holds the options.
local function take_options(words)
    local opts = words[#words]
    if type(opts) ~= "table" then return TIMEOUT_MS end
    words[#words] = nil
    for key in pairs(opts) do
        if key ~= "timeout_ms" then
            return nil, ("there is no option %s%s"):format(tostring(key), suggest.hint(tostring(key), { "timeout_ms" }))
        end
    end
    local ms = opts.timeout_ms or TIMEOUT_MS
    if not is_whole(ms, 1, TIMEOUT_MAX_MS) then return nil, "timeout_ms: wants a whole number from 1 to 600000" end
    return ms
end

local function blocks(words)
    for i = 2, #words do
        if words[i]:upper() == "BLOCK" then return true end
    end
    return false
end

-- The words as texts, and the timeout; or nil and what is wrong.
local function command(n, ...)
    local words = { ... }
    for i = 1, n do
        if words[i] == nil then return nil, ("word %d is nil"):format(i) end
    end
    local ms, wrong = take_options(words)
    if not ms then return nil, wrong end
    if #words == 0 or #words > WORDS_MAX then return nil, "wants a command of 1 to 1000 words" end
    for i = 1, #words do
        words[i], wrong = word_of(words[i])
        if wrong then return nil, wrong end
    end
    local name = words[1]:upper()
    if REFUSED[name] or (name:find("^XREAD") and blocks(words)) then
        return nil, name .. " is not possible on a connection that others use, too"
    end
    return words, ms
end

-- What a call gives, with the hook set again.
local function done(service, phase, reply, message, code)
    phases.now = phase
    if code == "EINVAL" then error(service .. ": " .. message, 3) end
    if reply == nil then return nil, message, code end
    return reply
end

local function call_for(core)
    return function(...)
        local phase = phases.check("claw.redis.call", 2)
        local words, ms = command(select("#", ...), ...)
        if not words then error("claw.redis.call: " .. ms, 2) end
        return done("claw.redis.call", phase, core.redis(ms, unpack(words)))
    end
end

local function list_of(v, what)
    if v == nil then return {} end
    if type(v) ~= "table" then error(("claw.redis.script: %s: wants a list"):format(what), 3) end
    return v
end

-- EVALSHA, and EVAL where Redis does not know the script yet.
local function script_for(core)
    local last, last_name
    return function(text, keys, args, opts)
        local phase = phases.check("claw.redis.script", 2)
        if type(text) ~= "string" then error("claw.redis.script: wants the script's text, keys, arguments", 2) end
        if #text > SCRIPT_MAX then error("claw.redis.script: a script has at most 1 MB", 2) end
        keys, args = list_of(keys, "keys"), list_of(args, "args")
        if #keys + #args > WORDS_MAX then error("claw.redis.script: wants at most 1000 keys and arguments", 2) end
        local given = { "EVALSHA", "", #keys }
        for _, key in ipairs(keys) do given[#given + 1] = key end
        for _, arg in ipairs(args) do given[#given + 1] = arg end
        given[#given + 1] = opts == nil and {} or opts -- a key that is a table is no options
        local words, ms = command(#given, unpack(given))
        if not words then error("claw.redis.script: " .. ms, 2) end
        if text ~= last then last, last_name = text, core.sha1(text) end
        words[2] = last_name
        local reply, message, code = core.redis(ms, unpack(words))
        if code == "EREDIS" and message:find("^NOSCRIPT") then
            words[1], words[2] = "EVAL", text
            reply, message, code = core.redis(ms, unpack(words))
        end
        return done("claw.redis.script", phase, reply, message, code)
    end
end

-- The services of one policy.
function M.services(core)
    return { call = call_for(core), script = script_for(core) }
end

return M
