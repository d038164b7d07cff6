-- cost: tokens to money. Pure. Prices are whole pico-dollars (1e-12 USD) a token, money is whole micro-dollars:
-- 30 USD a million tokens is 30,000,000 pico-dollars a token, and sums stay exact below 2^53.

local M = {}

local floor = math.floor

-- YAML keys of a price, and what each becomes.
local TOKEN_KEYS = {
    input = "cost_per_million_input_tokens",
    output = "cost_per_million_output_tokens",
    cached_input = "cost_per_million_cached_input_tokens",
}

local function whole(n)
    return floor(n * 1e6 + 0.5)
end

-- The price of a model at an upstream, key by key from the first that says: its `models` entry (details), the upstream
-- (base, already in pico-dollars), the general `prices` (listed). nil when nothing is known.
function M.price(details, base, listed)
    local out = {}
    for name, key in pairs(TOKEN_KEYS) do
        local given = details and details[key] or not (base and base[name]) and listed and listed[key]
        out[name] = given and whole(given) or base and base[name]
    end
    local given = details and details.cost_per_request
        or not (base and base.request_micros) and listed and listed.cost_per_request
    out.request_micros = given and whole(given) or base and base.request_micros
    if next(out) == nil then return nil end
    return out
end

-- Whole micro-dollars of an answer, rounded half up. input includes the cached tokens, output the reasoning ones.
-- nil when there is no price, or no usage to apply it to.
function M.charge(price, input, cached, output)
    if not price then return nil end
    local per_token = price.input or price.output
    if not input and not output or not per_token then
        return not per_token and price.request_micros or nil
    end
    input, output = input or 0, output or 0
    cached = math.min(cached or 0, input)
    local input_price = price.input or 0
    local pico = (input - cached) * input_price + cached * (price.cached_input or input_price)
        + output * (price.output or 0)
    return floor(pico / 1e6 + 0.5) + (price.request_micros or 0)
end

-- For comparing candidates: a fraction of micro-dollars, nil without a price.
function M.estimate(price, input, output)
    if not price then return nil end
    return (input * (price.input or 0) + output * (price.output or 0)) / 1e6 + (price.request_micros or 0)
end

return M
