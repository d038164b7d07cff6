-- route: the strategies by name. Each module is new(options) -> choose(candidates, facts, rng) -> ordered list,
-- the same shape as a policy's `choose`.

local M = {}

M.NAMES = {
    "round_robin", "weighted_round_robin", "weighted_random", "first_available", "failover", "lowest_cost",
    "lowest_latency", "canary", "least_busy", "sticky",
}

M.strategies = {}
for _, name in ipairs(M.NAMES) do M.strategies[name] = require("claw.route." .. name) end

return M
