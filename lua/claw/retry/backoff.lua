-- backoff: how long to wait before the same candidate is tried again. Pure.

local M = {}

-- k: waits so far (0 for the first). Doubles from backoff_ms up to max_backoff_ms, spread by ± jitter.
function M.wait_ms(rules, k, random)
    local base = math.min(rules.backoff_ms * 2 ^ math.min(k, 30), rules.max_backoff_ms)
    local spread = 1 + rules.jitter * (2 * random() - 1)
    return math.floor(base * spread + 0.5)
end

return M
