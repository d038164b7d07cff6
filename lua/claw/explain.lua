-- explain: the decision for one request as a text: each route and why (not), what each policy decided and changed,
-- candidates in order, what a translation would drop at each, hooks, cost.

local caching = require("claw.caching")
local candidates = require("claw.candidates")
local context = require("claw.protocols.context")
local dry = require("claw.dry")
local hooks = require("claw.hooks")
local match = require("claw.match")
local translate = require("claw.translate")
local witness = require("claw.witness")

local M = {}

local CHAINS = { "request", "retry", "response", "event" }

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
    for i, entry in ipairs(chain) do names[i] = entry.policy.name .. (entry.policy.shadow and " (in shadow)" or "") end
    return table.concat(names, ", ")
end

local function later_hooks(out, list)
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

-- ---- translation

-- What becomes of the body at one candidate: a text, and whether it is refused there ("translation": the request fails,
-- nobody else is asked).
local function crossing(core, r, c, chains, q, body)
    local pair = chains.translate
    if chains.unspoken then return "refused: " .. chains.unspoken, true end
    if not pair then return "not translated" end
    if not body then return "refused: The request's body is no JSON object.", true end
    local at, code, message = translate.request(core, r, pair, body, c.model or q.model)
    if not at then return ("speaks %s; refused: %s"):format(pair.name, message), code end
    local dropped = context.header(at.cx)
    return ("speaks %s; drops %s"):format(pair.name, dropped and dropped:gsub(",", ", ") or "nothing")
end

-- For each of the list, of the body as the client sent it: before a policy changes it for the first one.
local function crossings(env, r, q, list)
    local out = { refused = {} }
    local core, body = env.core, nil
    for i, c in ipairs(list) do
        local chains = list.plan[c.index]
        if chains.translate then body = body or core.body(r) or false end
        out[i], out.refused[i] = crossing(core, r, c, chains, q, body)
        out.translates = out.translates or chains.translate ~= nil or chains.unspoken ~= nil
    end
    return out
end

-- The first candidate's, when its request hooks ran: `at` is the attempt they led to, nil when there is none; refused:
-- why it could not be translated.
local function after_hooks(self, env, r, list, at, refused)
    local chains, told = list.plan[list[1].index], self.crossings
    if not self.witness.at or not (chains.translate or chains.unspoken) or #chains.request == 0 then return end
    if env.core.rewritten(r) then
        told[1], told.refused[1] = "a policy sets its path: not translated", nil
    elseif at then
        local dropped = context.header(at.cx)
        local names = dropped and dropped:gsub(",", ", ") or "nothing"
        told[1], told.refused[1] = ("speaks %s; drops %s"):format(chains.translate.name, names), nil
    elseif refused and chains.translate then
        told[1], told.refused[1] = ("speaks %s; refused: %s"):format(chains.translate.name, refused), true
    end
end

local function add_translation(out, self, env, r, list, outcome)
    local dialect = env.core.request(r).dialect
    if not dialect then return end
    self.crossings = self.crossings or crossings(env, r, self.q, list)
    local at = outcome.attempts and outcome.attempts[list[1].index]
    after_hooks(self, env, r, list, at, outcome.text)
    out[#out + 1] = ("translation, of a client that speaks %s:"):format(dialect)
    for i, c in ipairs(list) do out[#out + 1] = ("  %s: %s"):format(c.name, self.crossings[i]) end
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

local function names_of(env)
    return function(index) return env.upstream_names[index] or "?" end
end

-- From here to finish policies run without any network, and are watched. q: { method, path, model, stream }.
function M.begin(env, router, r, q)
    local core = env.core
    local self = { q = q, lines = {}, routes = {} }
    self.chosen = routes(self.routes, router, r, q)
    self.witness = witness.new(core, r, self.lines)
    local leave = dry.enter(core, names_of(env), self.witness.say)
    local log, outer = core.log, hooks.witness
    core.log, hooks.witness = self.witness.log, self.witness
    function self.leave()
        core.log, hooks.witness = log, outer
        leave()
    end
    return self
end

-- The first candidate's turn: its request hooks run next.
function M.attempt(self, env, router, r)
    local list = router.state[r]
    if list then self.crossings = crossings(env, r, self.q, list) end
    self.witness.at = list and list[1] and list[1].name
end

local function decision(self, outcome, list)
    local kind, denied, answered = outcome.kind, self.witness.denied, self.witness.answered
    if kind == "failed" then
        return ("decision: none, %s failed in %s: %s"):format(outcome.policy, outcome.hook, outcome.text)
    elseif answered and kind == "answered" then
        return ("decision: answered by %s with status %d"):format(answered.policy, answered.status)
    elseif denied and kind ~= "routed" then
        return ("decision: denied by %s with status %d"):format(denied.policy, denied.status)
    elseif kind == "refused" then
        return ("decision: refused, %s: %s"):format(outcome.code, outcome.text)
    elseif kind == "answered" then
        return ("decision: answered by the proxy with status %d"):format(outcome.status)
    end
    if not list then return "decision: made" end
    local told = self.crossings
    for i, c in ipairs(list) do
        local refused = told and told.refused[i]
        if not refused then return ("decision: goes to %s first"):format(c.name) end
        if refused == "translation" then
            return "decision: refused, translation: " .. told[i]:gsub("^.-refused: ", "")
        end
    end
    return "decision: refused, untranslatable: " .. told[#list]:gsub("^.-refused: ", "")
end

local function add_hedge(out, route, list)
    local after = list.hedge
    if after == nil then after = route.node.hedge and (route.node.hedge.after or "p95") end
    if not after or not list[2] then return end
    local when = ("longer than %s of its times"):format(after)
    if type(after) == "number" then when = ("for %d ms"):format(after) end
    out[#out + 1] = ("  hedge: %s is asked too when %s is silent %s"):format(list[2].name, list[1].name, when)
end

local function add_candidates(self, out, env, r, list)
    local q, chosen = self.q, self.chosen
    env.bind(r, q.model, q.stream)
    out[#out + 1] = ("candidates of %s (%s), in order:"):format(chosen.id, chosen.strategy)
    for i, c in ipairs(list or {}) do out[#out + 1] = candidate_line(i, c, q, env.facts) end
    if list then add_hedge(out, chosen, list) end
    left_out(out, env, chosen, q)
end

local function add_hooks(out, env, list, translates)
    out[#out + 1] = "hooks:"
    local before = #out
    later_hooks(out, list)
    if #out == before then out[before] = translates and "hooks: none" or "hooks: none; the body goes out as it came" end
    out[#out + 1] = ("estimated input: %d tokens"):format(env.facts.input_tokens())
end

-- The whole report. outcome: { kind = "routed" | "denied" | "refused" | "answered" | "failed", status, code, text,
-- policy, hook, number (of the list; 0: none), limits (lines of those that count it; nil: none do),
-- attempts (those that were translated, by upstream; nil: none were) }.
function M.finish(self, env, router, r, outcome)
    local q, list = self.q, router.state[r] or router.quiet[outcome.number]
    router.state[r] = nil
    self.leave()
    local out = { ("request: %s %s, model %s%s"):format(q.method, q.path, q.model or "(none)",
        q.stream and ", streaming" or "") }
    for _, line in ipairs(self.routes) do out[#out + 1] = line end
    if #self.lines > 0 then out[#out + 1] = "policies, as they ran:" end
    for _, line in ipairs(self.lines) do out[#out + 1] = line end
    if self.chosen and (outcome.kind == "refused" or list) then add_candidates(self, out, env, r, list) end
    if list then
        out[#out + 1] = caching.told(env.conf, env.strategies, r, self.chosen, q)
        if outcome.kind == "routed" then add_translation(out, self, env, r, list, outcome) end
        add_hooks(out, env, list, self.crossings and self.crossings.translates)
    end
    if outcome.limits then out[#out + 1] = "limits:\n" .. outcome.limits:sub(1, -2) end
    out[#out + 1] = decision(self, outcome, list)
    return table.concat(out, "\n") .. "\n"
end

return M
