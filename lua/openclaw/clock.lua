-- clock: time that passes only when it is told to. claw.time, the store's deadlines and claw.time.sleep go by it.

local M = { ms = 0 }

local EPOCH = 1700000000 -- seconds since 1970 at 0 ms

-- Let time pass.
function M:advance(ms)
    self.ms = self.ms + ms
end

function M:reset()
    self.ms = 0
end

function M.now_ms()
    return M.ms
end

function M.now()
    return EPOCH + math.floor(M.ms / 1000)
end

return M
