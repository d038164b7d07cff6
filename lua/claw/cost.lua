-- cost: tokens to money. Pure. Prices are whole pico-dollars (1e-12 USD) a token, money is whole micro-dollars:
-- 30 USD a million tokens is 30,000,000 pico-dollars a token, and sums stay exact below 2^53.

local M = {}

local floor = math.floor

-- YAML keys of a price, and what each becomes.
local TOKEN_KEYS = {
    input = "cost_per_million_input_tokens",
    output = "cost_per_million_output_tokens",
    cached_input = "cost_per_million_cached_input_tokens",
    cache_write = "cost_per_million_cache_write_tokens",
}

local function whole(n)
    return floor(n * 1e6 + 0.5)
end

-- A catalog's entry as a price; `long_…` is what a prompt past long_above tokens costs, all of it.
local function from_catalog(known)
    local out = {}
    for name, key in pairs(TOKEN_KEYS) do out[name] = known[key] and whole(known[key]) end
    if known.long then
        out.long_above = known.long.above
        out.long_input = whole(known.long.cost_per_million_input_tokens)
        out.long_output = whole(known.long.cost_per_million_output_tokens)
        out.long_cached = whole(known.long.cost_per_million_cached_input_tokens)
    end
    return out
end

-- The price of a model at an upstream, key by key from the first that says: its `models` entry (details), the upstream
-- (base, already in pico-dollars), the general `prices` (listed). When none of them has a price, what the catalog says
-- (known: claw.catalog). nil when nothing is known.
function M.price(details, base, listed, known)
    local out = {}
    for name, key in pairs(TOKEN_KEYS) do
        local given = details and details[key] or not (base and base[name]) and listed and listed[key]
        out[name] = given and whole(given) or base and base[name]
    end
    local given = details and details.cost_per_request
        or not (base and base.request_micros) and listed and listed.cost_per_request
    local per_request = given and whole(given) or base and base.request_micros
    if next(out) == nil and known then out = from_catalog(known) end
    out.request_micros = per_request
    if next(out) == nil then return nil end
    return out
end

-- Whole micro-dollars of an answer, rounded half up. input includes the tokens read from a cache (cached) and those
-- written to it (cache_write), output the reasoning ones. nil when there is no price, or no usage to apply it to.
-- core/script/decide.c charges the same way.
function M.charge(price, input, cached, output, cache_write)
    if not price then return nil end
    local per_token = price.input or price.output
    if not input and not output or not per_token then
        return not per_token and price.request_micros or nil
    end
    input, output = input or 0, output or 0
    cached = math.min(cached or 0, input)
    local written = math.min(cache_write or 0, input - cached)
    local long = price.long_above and input > price.long_above
    local input_price = long and price.long_input or price.input or 0
    local cached_price = long and price.long_cached or price.cached_input or input_price
    local write_price = price.cache_write or input_price
    if long and price.cache_write and price.input and price.input > 0 then
        write_price = floor(price.cache_write * input_price / price.input + 0.5)
    end
    local pico = (input - cached - written) * input_price + cached * cached_price + written * write_price
        + output * (long and price.long_output or price.output or 0)
    return floor(pico / 1e6 + 0.5) + (price.request_micros or 0)
end

-- For comparing candidates: a fraction of micro-dollars, nil without a price.
function M.estimate(price, input, output)
    if not price then return nil end
    return (input * (price.input or 0) + output * (price.output or 0)) / 1e6 + (price.request_micros or 0)
end

return M
