-- store: claw.store without a proxy: one table, deadlines by openclaw.clock, no bound of bytes in all.

local clock = require("openclaw.clock")

local M = {}

M.KEY_BYTES = 256
M.VALUE_BYTES = 64 * 1024
M.EXACT = 2 ^ 53

local TYPES = { string = true, number = true, boolean = true }

local Store = {}
Store.__index = Store

local function live(self, key)
    local entry = self.entries[key]
    if entry and entry.deadline and clock.ms >= entry.deadline then
        self.entries[key] = nil
        return nil
    end
    return entry
end

local function put(self, key, value, opts)
    if type(value) == "string" and #value > M.VALUE_BYTES then
        return nil, ("a value of %d bytes (%d may be)"):format(#value, M.VALUE_BYTES), "ETOO_LARGE"
    end
    self.entries[key] = { value = value, deadline = opts and opts.ttl_ms and clock.ms + opts.ttl_ms or nil }
    return true
end

function Store:get(key)
    local entry = live(self, key)
    return entry and entry.value
end

function Store:set(key, value, opts)
    return put(self, key, value, opts)
end

-- Only when it is absent: was it?
function Store:add(key, value, opts)
    if live(self, key) then return false end
    return put(self, key, value, opts)
end

-- The ttl is given to a counter when it begins, so that a window ends though it is counted in.
function Store:incr(key, by, opts)
    local entry = live(self, key)
    local value = entry and entry.value or 0
    if type(value) ~= "number" or value ~= math.floor(value) then
        return nil, "what is there is no whole number", "EINVAL"
    end
    if math.abs(value) >= M.EXACT or math.abs(value + by) >= M.EXACT then
        return nil, "the sum would not be exact: it reaches 2^53", "ERANGE"
    end
    if not entry then
        put(self, key, by, opts)
        return by
    end
    entry.value = entry.value + by
    return entry.value
end

function Store:cas(key, old, new, opts)
    if self:get(key) ~= old then return false end
    return put(self, key, new, opts)
end

-- Was something there?
function Store:delete(key)
    local was = live(self, key) ~= nil
    self.entries[key] = nil
    return was
end

function M.new()
    return setmetatable({ entries = {} }, Store)
end

-- ---- as a policy sees it

local function check_key(name, key)
    if type(key) ~= "string" then
        error(("claw.store.%s: a key is a string, not a %s"):format(name, type(key)), 3)
    end
end

local function check_value(name, value)
    if not TYPES[type(value)] then
        error(("claw.store.%s: a value is a string, a number or a boolean, not a %s"):format(name, type(value)), 3)
    end
end

local function check_opts(name, opts)
    if opts == nil then return end
    if type(opts) ~= "table" then error(("claw.store.%s: options are a table"):format(name), 3) end
    local ttl = opts.ttl_ms
    if ttl ~= nil and (type(ttl) ~= "number" or ttl < 1 or ttl ~= math.floor(ttl)) then
        error(("claw.store.%s: ttl_ms is a whole number of at least 1"):format(name), 3)
    end
end

-- The functions of one policy: its keys are its own, unless { shared = true } is given.
function M.functions(store, policy)
    local function place(key, opts)
        return (opts and opts.shared and "shared" or "policy " .. policy) .. "\n" .. key
    end
    local F = {}
    function F.get(key, opts)
        check_key("get", key)
        check_opts("get", opts)
        return store:get(place(key, opts))
    end
    function F.set(key, value, opts)
        check_key("set", key)
        check_value("set", value)
        check_opts("set", opts)
        return store:set(place(key, opts), value, opts)
    end
    function F.add(key, value, opts)
        check_key("add", key)
        check_value("add", value)
        check_opts("add", opts)
        return store:add(place(key, opts), value, opts)
    end
    function F.incr(key, by, opts)
        check_key("incr", key)
        by = by == nil and 1 or by
        if type(by) ~= "number" or by ~= math.floor(by) then
            error("claw.store.incr: wants a whole number", 2)
        end
        check_opts("incr", opts)
        return store:incr(place(key, opts), by, opts)
    end
    function F.cas(key, old, new, opts)
        check_key("cas", key)
        if old ~= nil then check_value("cas", old) end
        check_value("cas", new)
        check_opts("cas", opts)
        return store:cas(place(key, opts), old, new, opts)
    end
    function F.delete(key, opts)
        check_key("delete", key)
        check_opts("delete", opts)
        return store:delete(place(key, opts))
    end
    for name, fn in pairs(F) do
        F[name] = function(key, ...)
            if type(key) == "string" and #key > M.KEY_BYTES then
                return nil, ("a key of %d bytes (%d may be)"):format(#key, M.KEY_BYTES), "ETOO_LARGE"
            end
            return fn(key, ...)
        end
    end
    return F
end

return M
