-- store: claw.store without a proxy: one table, deadlines by openclaw.clock, no bound of bytes in all.

local clock = require("openclaw.clock")

local M = {}

M.KEY_BYTES, M.VALUE_BYTES, M.EXACT = 256, 64 * 1024, 2 ^ 53

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

local function put(self, key, value, ttl)
    if #key > M.KEY_BYTES + #key:match("^[^\n]*\n") or type(value) == "string" and #value > M.VALUE_BYTES then
        return nil, "a key may have 256 bytes, a value 64 KB", "ETOO_LARGE"
    end
    self.entries[key] = { value = value, deadline = ttl and clock.ms + ttl or nil }
    return true
end

function Store:get(key)
    local entry = live(self, key)
    return entry and entry.value
end

function Store:set(key, value, ttl)
    return put(self, key, value, ttl)
end

-- Only when it is absent: was it?
function Store:add(key, value, ttl)
    if live(self, key) then return false end
    return put(self, key, value, ttl)
end

-- The ttl is given to a counter when it begins, so that a window ends though it is counted in.
function Store:incr(key, by, ttl)
    local entry = live(self, key)
    local value = entry and entry.value or 0
    if type(value) ~= "number" or value ~= math.floor(value) then
        return nil, "what is there is no whole number", "EINVAL"
    elseif math.abs(value + by) >= M.EXACT then
        return nil, "the sum would not be exact: it reaches 2^53", "ERANGE"
    elseif entry then
        entry.value = value + by
        return entry.value
    end
    local done, message, code = put(self, key, by, ttl)
    if not done then return nil, message, code end
    return by
end

-- Without a ttl the end stays what it was.
function Store:cas(key, old, new, ttl)
    local entry = live(self, key)
    if (entry and entry.value) ~= old then return false end
    local deadline = not ttl and entry and entry.deadline
    local done, message, code = put(self, key, new, ttl)
    if done and deadline then self.entries[key].deadline = deadline end
    return done, message, code
end

function Store:delete(key)
    local was = live(self, key) ~= nil
    self.entries[key] = nil
    return was
end

function M.new()
    return setmetatable({ entries = {} }, Store)
end

-- ---- as a policy sees it

local function check_value(name, value, what)
    if value ~= value then error(("claw.store.%s: the %s must not be NaN"):format(name, what), 3) end
    if TYPES[type(value)] then return end
    error(("claw.store.%s: the %s must be a string, a number or a boolean, not a %s"):format(name, what,
        type(value)), 3)
end

-- Where a key lies, and its ttl. can_end: does the function take a ttl_ms?
local function read(policy, name, key, opts, can_end)
    if type(key) ~= "string" then
        error(("claw.store.%s: the key must be a string, not a %s"):format(name, type(key)), 3)
    elseif opts ~= nil and type(opts) ~= "table" then
        error(("claw.store.%s: the options must be a table, not a %s"):format(name, type(opts)), 3)
    end
    for option, value in pairs(opts or {}) do
        if option == "shared" then
            if type(value) ~= "boolean" then
                error(("claw.store.%s: shared must be true or false, not a %s"):format(name, type(value)), 3)
            end
        elseif option ~= "ttl_ms" or not can_end then
            error(("claw.store.%s: unknown option %s (%s)"):format(name, tostring(option),
                can_end and "ttl_ms, shared" or "shared"), 3)
        elseif type(value) ~= "number" or not (value >= 1 and value <= 1e12) then
            error(("claw.store.%s: ttl_ms must be a number from 1 to 1e12"):format(name), 3)
        end
    end
    return (opts and opts.shared and "" or policy) .. "\n" .. key, opts and opts.ttl_ms
end

-- The functions of one policy: its keys are its own, unless { shared = true } is given.
function M.functions(store, policy)
    local F = {}
    function F.get(key, opts)
        return store:get((read(policy, "get", key, opts)))
    end
    function F.set(key, value, opts)
        local place, ttl = read(policy, "set", key, opts, true)
        check_value("set", value, "value")
        return store:set(place, value, ttl)
    end
    function F.add(key, value, opts)
        local place, ttl = read(policy, "add", key, opts, true)
        check_value("add", value, "value")
        return store:add(place, value, ttl)
    end
    function F.incr(key, by, opts)
        local place, ttl = read(policy, "incr", key, opts, true)
        if by == nil then by = 1 end
        if type(by) ~= "number" or by ~= math.floor(by) then
            error(("claw.store.incr: by must be a whole number, not %s"):format(type(by) == "number" and tostring(by)
                or type(by)), 2)
        end
        return store:incr(place, by, ttl)
    end
    function F.cas(key, old, new, opts)
        local place, ttl = read(policy, "cas", key, opts, true)
        check_value("cas", new, "new value")
        if old ~= nil then check_value("cas", old, "old value") end
        return store:cas(place, old, new, ttl)
    end
    function F.delete(key, opts)
        return store:delete((read(policy, "delete", key, opts)))
    end
    return F
end

return M
