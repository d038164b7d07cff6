-- router: from a request to an ordered list of candidates.
--
-- What does not change is decided once: which routes a path and method can meet (a bucket), which of them a model
-- picks, who of the route serves the model. These are kept in bounded tables, so that the usual request is three table
-- reads and the strategy. Answers are tables that are used again: they must be read at once and not be changed.

local admit = require("claw.admit")
local candidates = require("claw.candidates")
local dialect = require("claw.dialect")
local hooks = require("claw.hooks")
local match = require("claw.match")
local models = require("claw.models")
local order = require("claw.route.order")
local plans = require("claw.plan")
local shadow = require("claw.shadow")
local view_of = require("claw.routes").view_of
local transform = require("claw.transform")

local M = {}

M.MEMO = 1000       -- entries of each table that a client's paths and models can fill
M.MODEL_BYTES = 128 -- longer names are not kept
M.QUIET = 4096      -- lists with a number

local function sorted(routes)
    local out = { unpack(routes) }
    table.sort(out, function(a, b)
        if a.priority ~= b.priority then return a.priority > b.priority end
        local before = match.before(a.match, b.match)
        if before ~= nil then return before end
        return a.index < b.index
    end)
    return out
end

-- GET /v1/models, /v1beta/models (Gemini's), either with /{id}, and /api/tags (Ollama's) are answered here, unless a
-- route asks for that very path. An answer's `anthropic` is for who says by anthropic-version that it speaks so.
local function models_answer(known, method, path)
    if method ~= "GET" then return nil end
    if path == "/api/tags" then return { status = 200, body = models.listing(known, "ollama") } end
    local version, rest = path:match("^/(v1[beta]*)/models(.*)$")
    if version ~= "v1" and version ~= "v1beta" then return nil end
    local kind = version == "v1" and "openai" or "gemini"
    local function answer(made, ...)
        local body = made(known, ...)
        return body and { status = 200, body = body }
    end
    if rest == "" then
        local said = answer(models.listing, kind)
        if kind == "openai" then said.anthropic = models.listing(known, "anthropic") end
        return said
    end
    local id = rest:match("^/(.+)$")
    if not id then return nil end
    id = id:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
    local said = answer(models.single, id, kind)
    if said and kind == "openai" then said.anthropic = models.single(known, id, "anthropic") end
    return said or { code = "model_not_found",
        message = ('The model "%s" is not known; known: %s'):format(id:sub(1, 100), models.names(known)) }
end

-- What a client is told that may not use every model; nil: it may, or nobody knows who it is.
local function models_for(self, r, method, path)
    local core, out = self.core, {}
    if not (core.client and core.client(r, "name")) then return nil end
    for _, k in ipairs(self.known) do
        if core.may_model(r, k.id) then out[#out + 1] = k end
    end
    return #out < #self.known and models_answer(out, method, path) or nil
end

-- How a count of tokens is told in the dialects that ask for it.
local COUNTS = { anthropic_count_tokens = '{"input_tokens":%d}', gemini_count_tokens = '{"totalTokens":%d}' }

-- Nobody can be asked: who is to serve the request does not count in this dialect. The estimate is what there is.
local function counted(self, spoken, r, first)
    local head = self.heads[first.index]
    if not head or #head.protocols == 0 or head.paths[spoken] then return nil end
    return COUNTS[spoken]:format(self.core.estimate(r))
end

local function make_bucket(routes, known, method, path)
    local bucket = { routes = {}, memo = {}, count = 0, static = true }
    bucket.dialect = method == "POST" and dialect.of(path) or false
    bucket.counts = COUNTS[bucket.dialect] ~= nil
    local exact = false
    for _, route in ipairs(routes) do
        local m = route.match
        if (not m.path or m.path(path)) and (not m.methods or m.methods[method]) then
            exact = exact or m.exact_path == path
            bucket.routes[#bucket.routes + 1] = route
            if #m.tests > 0 then
                bucket.static = false
            elseif #m.model == 0 then
                break -- nothing behind it can win
            end
        end
    end
    if not exact and #known > 0 then bucket.answer = models_answer(known, method, path) end
    if #bucket.routes == 0 then
        bucket.message = ("No route matches %s %s"):format(method, path:sub(1, 200))
    else
        bucket.message = ("No route matches this %s %s"):format(method, path:sub(1, 200))
    end
    return bucket
end

local function pick(bucket, r, model)
    for _, route in ipairs(bucket.routes) do
        local m = route.match
        if match.all(m.model, r, model) and match.all(m.tests, r, model) then return route end
    end
    return false
end

-- ---- the path for routes with anything that is decided per request

local COPIED = { "index", "name", "type", "model", "region", "weight", "percentage", "context_window" }

local function copy(t)
    if not t then return nil end
    local out = {}
    for key, value in pairs(t) do out[key] = value end
    return out
end

-- Policies get copies: what they do to them stays theirs.
local function copies(list)
    local out = {}
    for i, c in ipairs(list) do
        local twin = { price = copy(c.price), capabilities = copy(c.capabilities) }
        for _, key in ipairs(COPIED) do twin[key] = c[key] end
        out[i] = twin
    end
    return out
end

local function names_of(list)
    local out = {}
    for i, c in ipairs(list) do out[i] = c.name end
    return table.concat(out, ", ")
end

local function find_named(list, name)
    for _, c in ipairs(list) do
        if c.name == name then return c end
    end
    return nil
end

-- One entry of a policy's list: a name, or a candidate whose model may be another.
local function resolve_one(entry, list)
    local name = type(entry) == "table" and entry.name or entry
    local c = find_named(list, name)
    if not c then return nil end
    local model = type(entry) == "table" and entry.model
    if type(model) == "string" and model ~= c.model then
        c = copy(c)
        c.model = model
    end
    return c
end

local PERCENTILES = { p50 = true, p75 = true, p90 = true, p95 = true, p99 = true }

local function is_hedge(v)
    if type(v) == "number" then return v >= 1 and v <= 86400000 end
    return v == nil or v == false or PERCENTILES[v] == true
end

-- A policy's answer as candidates; nil, what was expected. A bare name goes first, the others stay behind it. What it
-- says of hedging stays with the list.
local function resolve(answer, list)
    local expected = "candidates of this route (" .. names_of(list) .. ")"
    if type(answer) == "string" then
        local first = find_named(list, answer)
        if not first then return nil, expected end
        local out = { first }
        for _, c in ipairs(list) do
            if c ~= first then out[#out + 1] = c end
        end
        return out
    end
    if type(answer) ~= "table" then return nil, "an ordered list of " .. expected end
    if not is_hedge(answer.hedge) then
        return nil, "its hedge to be false, milliseconds or one of p50, p75, p90, p95, p99"
    end
    local out, seen = { hedge = answer.hedge, as_is = answer.as_is == true or nil }, {}
    for i = 1, #answer do
        local c = resolve_one(answer[i], list)
        if not c then return nil, expected end
        local key = c.name .. "\n" .. (c.model or "")
        if not seen[key] and #out < order.LIMIT then
            seen[key] = true
            out[#out + 1] = c
        end
    end
    return out
end

-- For openclaw.testing too.
M.copies, M.resolve = copies, resolve

local function choose(self, route, list)
    local chooser = route.chooser
    if not chooser then return route.choose(list, self.facts, self.core.random) end
    local answer = hooks.call(self.core, chooser, "choose", nil, copies(list), copy(self.facts), self.core.random)
    local resolved, expected = resolve(answer, list)
    if resolved then return resolved end
    if answer ~= nil or not chooser.policy.skip then
        hooks.fail(self.core, chooser.policy, hooks.wrong(chooser.policy, "choose", expected, answer))
    end
    return order.turns(list)[1]
end

local function reordered(self, route, list, r, model, stream)
    list = { hedge = list.hedge, as_is = list.as_is, unpack(list) }
    for _, entry in ipairs(route.reorder) do
        local answer = hooks.call(self.core, entry, "route", nil, self.request_of(r, model, stream), copies(list))
        if answer ~= nil then
            local resolved, expected = resolve(answer, list)
            if resolved then
                if resolved.hedge == nil then resolved.hedge = list.hedge end
                list = resolved
            else
                hooks.fail(self.core, entry.policy, hooks.wrong(entry.policy, "route", expected, answer))
            end
        end
    end
    return list
end

-- What policies in shadow make of a step of `slow`.
local function shadowed(self, route, hook, r, model, stream, list, decided)
    local entries = route.shadow[hook]
    if not entries then return end
    local req = self.request_of(r, model, stream)
    shadow.order(self.core, entries, hook, req, shadow.order_text(decided), list, resolve, function()
        if hook == "route" then return req, copies(list) end
        return copies(list), copy(self.facts), self.core.random
    end)
end

-- The plan for the per-request transformations that match now; one per set of them is kept.
local function plan_now(route, view, r, method, path, model)
    local active, key = {}, {}
    for i, t in ipairs(route.transformations) do
        if t.dynamic and transform.applies(t, r, method, path, model) then
            active[t] = true
            key[#key + 1] = i
        end
    end
    if #key == 0 then return view.plan end
    key = table.concat(key, ",")
    local plan = view.plans[key]
    if not plan then
        if view.plan_count >= 256 then view.plans, view.plan_count = {}, 0 end
        plan = plans.new(route, active, view.dialect)
        view.plans[key], view.plan_count = plan, view.plan_count + 1
    end
    return plan
end

-- The list as C gets it: of this request alone, so that masks and the plan can be put in.
local function finished(list, plan)
    local out = { plan = plan, hedge = list.hedge, as_is = list.as_is }
    for i = 1, #list do
        local c = list[i]
        local mask = plan[c.index].mask
        if c.mask ~= mask then
            c = copy(c)
            c.mask = mask
        end
        out[i] = c
    end
    return out
end

-- Hooks may wait in here while other requests are routed: what is shared (facts, the strategies' lists) is bound and
-- used between two hooks, and copied before the next one.
local function slow(self, route, eligible, r, method, path, model, stream)
    local said = #route.admit > 0 and admit.run(self.core, route.admit, self.request_of(r)) or nil
    if route.shadow and route.shadow.admit then
        shadow.admit(self.core, route.shadow.admit, self.request_of(r), said)
    end
    if said and said.answered then
        return false, said.status, said.body, said.content_type, said.policy, route.index
    end
    if said then return nil, "denied", said.message, said.status, said.code, route.index end
    local list, reasons = eligible.candidates, eligible.reasons
    self.bind(r, model, stream)
    if route.filters.dynamic then list, reasons = candidates.now(eligible, route.filters, self.facts) end
    local eligible_now = list
    if #list > 0 then list = choose(self, route, list) end
    if route.shadow and #list > 0 then shadowed(self, route, "choose", r, model, stream, eligible_now, list) end
    if #list > 0 and route.waits then
        local before = { hedge = list.hedge, as_is = list.as_is, unpack(list) }
        list = reordered(self, route, before, r, model, stream)
        if route.shadow then shadowed(self, route, "route", r, model, stream, before, list) end
    end
    if #list == 0 then
        local none = candidates.reasons_text(reasons)
        local message = #reasons > 0 and none or none .. ": nobody was chosen"
        return nil, "no_upstream", message, nil, nil, route.index
    end
    if route.only_first then list = { list[1] } end
    local spoken = method == "POST" and path:sub(-5) == "okens" and dialect.of(path)
    local count = COUNTS[spoken] and counted(self, spoken, r, list[1])
    if count then return false, 200, count, nil, nil, route.index end
    list = finished(list, plan_now(route, eligible.view, r, method, path, model))
    self.state[r] = list
    return route.index, list, list.plan.mask
end

-- ---- the router

local function eligible_for(self, route, view, model)
    local eligible = candidates.of(route, model, view.plan, self.prices, self.known)
    eligible.view = view
    if not model then
        view.unnamed = eligible
    elseif view.eligible_count < M.MEMO and #model <= M.MODEL_BYTES then
        view.eligible[model], view.eligible_count = eligible, view.eligible_count + 1
    end
    return eligible
end

local function bucket_for(self, method, path)
    local bucket = make_bucket(self.routes, self.known, method, path)
    if self.bucket_count < M.MEMO and #path <= 1024 then
        self.buckets[method] = self.buckets[method] or {}
        self.buckets[method][path], self.bucket_count = bucket, self.bucket_count + 1
    end
    return bucket
end

local function route_for(bucket, r, model)
    local route = pick(bucket, r, model)
    if bucket.static and model and bucket.count < M.MEMO and #model <= M.MODEL_BYTES then
        bucket.memo[model], bucket.count = route, bucket.count + 1
    end
    return route
end

-- A list that no hook is concerned with gets a number, under which C keeps what it read of it: the next time C reads
-- nothing, and settles the request by itself, at the candidate's price. 0: there is none. A list belongs to one route.
local function numbered(self, plan, list)
    if not list.kept then return 0 end
    local quiet, all = 0, self.quiet
    local loud = plan.mask > 0 or #all >= M.QUIET
    for i = 1, #list do loud = loud or list[i].mask > 0 end
    if not loud then
        quiet = #all + 1
        all[quiet] = list
        list.plan = plan
    end
    list.quiet = quiet
    return quiet
end

-- env: { core, routes (compiled), known, prices, facts, bind, request_of }. Returns the router; its state[r] is the
-- list of a request, with its plan, until the request is finished.
function M.new(env)
    local self = {
        core = env.core, heads = env.heads or {}, routes = sorted(env.routes), known = env.known,
        prices = env.prices, facts = env.facts,
        bind = env.bind, request_of = env.request_of, state = {}, quiet = {}, buckets = {}, bucket_count = 0,
    }
    local state, facts, bind, random = self.state, env.facts, env.bind, env.core.random

    -- See the contract at the top of claw.engine.
    function self.route(r, method, path, model, stream)
        local of_method = self.buckets[method]
        local bucket = of_method and of_method[path] or bucket_for(self, method, path)
        local answer = bucket.answer
        if answer then
            answer = models_for(self, r, method, path) or answer
            if answer.code then return nil, answer.code, answer.message end
            local anthropic = answer.anthropic and self.core.header(r, "anthropic-version")
            return false, answer.status, anthropic and answer.anthropic or answer.body
        end
        local route = model and bucket.memo[model]
        if route == nil then route = route_for(bucket, r, model) end
        if not route then return nil, "no_route", bucket.message end

        local view = route.views[bucket.dialect] or view_of(route, bucket.dialect)
        local eligible = view.unnamed
        if model then eligible = view.eligible[model] end
        eligible = eligible or eligible_for(self, route, view, model)
        if eligible.code then return nil, eligible.code, eligible.message, nil, nil, route.index end
        if not route.simple then
            if route.waits then return true, route, eligible end
            return slow(self, route, eligible, r, method, path, model, stream)
        end

        bind(r, model, stream)
        local list = route.choose(eligible.candidates, facts, random)
        local first = list[1]
        if not first then
            return nil, "no_upstream", "No upstream available: every weight is 0", nil, nil, route.index
        end
        local count = bucket.counts and counted(self, bucket.dialect, r, first)
        if count then return false, 200, count, nil, nil, route.index end
        if route.only_first then list = first.alone end
        local quiet = list.quiet or numbered(self, view.plan, list)
        if quiet > 0 then return route.index, list, 0, quiet end
        list.plan = view.plan
        state[r] = list
        return route.index, list, view.plan.mask
    end

    function self.decide(route, eligible, r, method, path, model, stream)
        return slow(self, route, eligible, r, method, path, model, stream)
    end
    return self
end

return M
