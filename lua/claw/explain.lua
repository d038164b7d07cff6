-- explain: the decision for one request as a text: each route and why (not), candidates in order, hooks, cost.

local candidates = require("claw.candidates")
local match = require("claw.match")

local M = {}

local CHAINS = { "request", "response", "event", "retry" }

local function usd(micros)
    return ("$%.6f"):format(micros / 1e6)
end

local function routes(out, router, r, q)
    out[#out + 1] = "routes, the most specific first:"
    local chosen
    for _, route in ipairs(router.routes) do
        local reasons = match.reasons(route.match, r, q.method, q.path, q.model)
        local says
        if #reasons > 0 then
            says = "no: " .. table.concat(reasons, "; ")
        elseif chosen then
            says = "matches too, but is less specific"
        else
            chosen, says = route, "matches: chosen"
        end
        local count = route.match.count
        out[#out + 1] = ("  %s (%d %s%s): %s"):format(route.id, count, count == 1 and "criterion" or "criteria",
            route.priority ~= 0 and ", priority " .. route.priority or "", says)
    end
    return chosen
end

local function candidate_line(i, c, q, facts)
    local bits = { ("  %d. %s (%s)"):format(i, c.name, c.type) }
    if c.model then bits[#bits + 1] = "sends model " .. c.model
    elseif q.model then bits[#bits + 1] = "sends the model as asked" end
    if c.weight then bits[#bits + 1] = ("weight %g"):format(c.weight) end
    if c.percentage then bits[#bits + 1] = ("%g%%"):format(c.percentage) end
    local micros = facts.cost_micros(c)
    bits[#bits + 1] = micros and "about " .. usd(micros) or "no price"
    local ms = facts.latency_ms(c)
    if ms then bits[#bits + 1] = ("first byte after about %d ms"):format(ms) end
    return table.concat(bits, ", ")
end

local function hook_names(chain)
    local names = {}
    for i, entry in ipairs(chain) do names[i] = entry.policy.name end
    return table.concat(names, ", ")
end

local function hooks(out, list)
    for _, c in ipairs(list) do
        for _, hook in ipairs(CHAINS) do
            local chain = list.plan[c.index][hook]
            if #chain > 0 then
                out[#out + 1] = ("  %s at %s: %s"):format(hook, c.name, hook_names(chain))
            end
        end
    end
    for _, hook in ipairs({ "cost", "log" }) do
        if #list.plan[hook] > 0 then out[#out + 1] = ("  %s: %s"):format(hook, hook_names(list.plan[hook])) end
    end
end

local function left_out(out, env, route, q)
    local eligible = candidates.of(route, q.model, route.plan, env.prices, env.known)
    local reasons = { unpack(eligible.reasons) }
    for _, c in ipairs(eligible.candidates) do
        local why = candidates.left_out_now(route.filters, c, env.facts)
        if why then reasons[#reasons + 1] = c.name .. ": " .. why end
    end
    for _, reason in ipairs(reasons) do out[#out + 1] = "  -  " .. reason end
end

-- Only which routes match and why not: what the log says of each request at level debug. Decides nothing.
function M.trace(router, r, q)
    local out = {}
    routes(out, router, r, q)
    return table.concat(out, "\n", 2)
end

-- q: { method, path, model, stream }
function M.report(env, router, r, q)
    local out = { ("request: %s %s, model %s%s"):format(q.method, q.path, q.model or "(none)",
        q.stream and ", streaming" or "") }
    local chosen = routes(out, router, r, q)
    local first, list, third = router.route(r, q.method, q.path, q.model, q.stream)
    if first == true then first, list, third = router.decide(list, third, r, q.method, q.path, q.model, q.stream) end
    if first == nil then
        out[#out + 1] = ("decision: refused, %s: %s"):format(list, third)
    elseif first == false then
        out[#out + 1] = ("decision: answered by the proxy with status %d"):format(list)
    end
    if chosen and first ~= false then
        env.bind(r, q.model, q.stream)
        out[#out + 1] = ("candidates of %s (%s), in order:"):format(chosen.id, chosen.strategy)
        for i, c in ipairs(first and list or {}) do out[#out + 1] = candidate_line(i, c, q, env.facts) end
        left_out(out, env, chosen, q)
    end
    if first then
        out[#out + 1] = "hooks:"
        local before = #out
        hooks(out, list)
        if #out == before then out[before] = "hooks: none; the body goes out as it came" end
        out[#out + 1] = ("estimated input: %d tokens"):format(env.facts.input_tokens())
        router.state[r] = nil
    end
    return table.concat(out, "\n") .. "\n"
end

return M
