-- candidates: who of a route may serve a model. Made once per route and model, then kept.

local catalog = require("claw.catalog")
local cost = require("claw.cost")
local models = require("claw.models")

local M = {}

local function set_of(list)
    if type(list) ~= "table" then return nil end
    local out = {}
    for _, name in ipairs(list) do out[name] = true end
    return out
end

local function listed_price(prices, sent, asked)
    local listed = prices.names[sent] or prices.names[asked]
    if listed then return listed end
    for _, entry in ipairs(prices.globs) do
        if sent and entry.test(sent) or asked and entry.test(asked) then return entry.details end
    end
    return nil
end

-- entry: of the strategy's list, { upstream, weight, percentage }; sent: nil as asked; asked: nil when none is.
local function make(entry, sent, asked, plan, prices)
    local u = entry.upstream
    local details = models.details(u.models, sent or asked, asked)
    local known = catalog.find(u.type, sent or asked)
    local c = {
        index = u.index, name = u.name, type = u.type, model = sent, region = u.region,
        weight = entry.weight, percentage = entry.percentage,
        context_window = details and details.context_window or known and known.context_window,
        max_output_tokens = known and known.max_output_tokens,
        capabilities = set_of(details and details.capabilities or known and known.capabilities),
        price = cost.price(details, u.price, listed_price(prices, sent or asked or "", asked or ""), known),
        mask = plan[u.index].mask,
    }
    c.alone = { c, plan = plan, kept = true }
    return c
end
M.make = make

-- Why a candidate is left out by what is known at boot; nil when it is not.
local function left_out(filters, c)
    local regions = filters.region
    if regions and not (c.region and regions[c.region]) then
        return c.region and ("region %s"):format(c.region) or "no region"
    end
    for _, name in ipairs(filters.require) do
        if c.capabilities and not c.capabilities[name] then return "no " .. name end
    end
    return nil
end

-- The filters of a strategy node. region is strict; what a model does not say about itself is taken as fitting.
function M.filters(node)
    local require_list = type(node.require) == "string" and { node.require } or node.require or {}
    local region = type(node.region) == "string" and { node.region } or node.region
    return {
        require = require_list, region = set_of(region),
        max_latency_ms = node.max_latency_ms, min_context = node.min_context,
        dynamic = node.max_latency_ms ~= nil or node.min_context ~= nil,
    }
end

-- Why a candidate is left out by what only the moment tells; nil when it is not.
function M.left_out_now(filters, c, facts)
    if filters.min_context and c.context_window then
        local need = math.max(filters.min_context, facts.input_tokens())
        if c.context_window < need then return ("context window %d < %d"):format(c.context_window, need) end
    end
    if filters.max_latency_ms then
        local ms = facts.latency_ms(c)
        if ms and ms > filters.max_latency_ms then
            return ("slower than %d ms (%d ms)"):format(filters.max_latency_ms, ms)
        end
    end
    return nil
end

function M.reasons_text(reasons)
    if #reasons == 0 then return "No upstream available" end
    return "No upstream available: " .. table.concat(reasons, "; ")
end

local function not_found(route, model, known)
    local shown = #model > 100 and model:sub(1, 100) .. "..." or model
    local names = models.names(known)
    return ('The model "%s" is not listed by any upstream of route %s%s'):format(shown, route.id,
        names ~= "" and "; known: " .. names or "")
end

-- The candidates of a route for a model (nil: the request names none).
-- { candidates, reasons } or { code, message }.
function M.of(route, model, plan, prices, known)
    local out = { candidates = {}, reasons = {}, subsets = {}, subset_count = 0 }
    local listing = 0
    for _, entry in ipairs(route.entries) do
        local u = entry.upstream
        local takes, sent = true, nil
        if model then takes, sent = models.takes(u.models, model) end
        local why
        if takes then
            listing = listing + 1
        else
            why = "unlisted model"
            if route.keep_unlisted then
                sent = models.own(u.models)
                if sent then why = nil else why = "unlisted model, and none of its own" end
            end
        end
        local c = not why and make(entry, sent, model, plan, prices)
        if c then why = left_out(route.filters, c) end
        if why then
            out.reasons[#out.reasons + 1] = u.name .. ": " .. why
        else
            out.candidates[#out.candidates + 1] = c
        end
    end
    if model and listing == 0 then
        out.code, out.message = "model_not_found", not_found(route, model, known)
    elseif #out.candidates == 0 then
        out.code, out.message = "no_upstream", M.reasons_text(out.reasons)
    end
    return out
end

-- Those of `eligible` that pass the filters of the moment: one of a few lists that are kept, and why the others fail.
function M.now(eligible, filters, facts)
    local key, kept, reasons = 0, {}, nil
    for i, c in ipairs(eligible.candidates) do
        local why = M.left_out_now(filters, c, facts)
        if why then
            reasons = reasons or { unpack(eligible.reasons) }
            reasons[#reasons + 1] = c.name .. ": " .. why
        else
            key = key + 2 ^ i
            kept[#kept + 1] = c
        end
    end
    if not reasons then return eligible.candidates, eligible.reasons end
    local subset = eligible.subsets[key]
    if not subset then
        if eligible.subset_count >= 256 then eligible.subsets, eligible.subset_count = {}, 0 end
        subset = kept
        eligible.subsets[key], eligible.subset_count = subset, eligible.subset_count + 1
    end
    return subset, reasons
end

return M
