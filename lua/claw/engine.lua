-- engine: everything of one generation behind one table, which C calls into.
--
-- new(spec) returns the engine, or nil and the problems of the configuration and the policies. Its fields:
--   hooks.admit, upstreams[i]                              static facts for C
--   admit(r)                                               nil | status, code, message; or false, status,
--                                                          body, content type, policy: who answers
--   route(r, method, path, model, stream)                  route index, candidates, mask [, number] | false, status,
--                                                          body [, content type, policy] | nil, code, message |
--                                                          nil, "denied", message, status, code. The sixth of all
--                                                          but the first: the route that matched (nil: none did).
--                                                          With a number the same three come with it for ever, and
--                                                          finish is not called. Or true, route, eligible: its hooks
--                                                          may wait, decide is to be called
--   decide(route, eligible, r, method, path, model, stream)     as route, without a number
--   request(r, index, model)                               nil | body | body, protocol, dropped (translated) | false,
--                                                          "untranslatable", "too_large" or "translation", message,
--                                                          field
--   response(r, index)                                     nil | body | body, status | false, message (it is none)
--   error(r, index, status, body)                          the body of a translated attempt's error answer
--   event(r, index, type, data)                            nil | false | { { type, data }, … } | message, status (it
--                                                          is an error) | message (a cut, or no answer). data nil: the
--                                                          stream's end; type nil: a whole answer in its place
--   caches(r, index, method, path, model)                  the place of the strategy of caching it is one of; 0: none
--   recast(r, dialect, events or text)                     a whole answer as a table, or events | nil: it cannot be
--   retry(r, attempt, number)                              "next" | "same" | "stop", after_ms
--   finish(r, index, model, input, cached, output, reasoning, cache_write)   micro-dollars | nil, fields | nil
--   trace(r, method, path, model, stream)                  a text: each route and why (not)
--   explain(r, method, path, model, stream)                from here on policies run watched and without any network
--   explain_attempt(r)                                     request is called next
--   explained(r, kind, status, code, text, policy, hook, number, limits)
--                                                          a text: what was decided and why (claw.explain)
-- admit, decide, request, retry and response run on a coroutine that may be suspended in a hook: what they hold across
-- a hook is their own. r is C's handle of a request. Between route and finish the router remembers the list r was
-- given.

local claw = require("claw")
local admission = require("claw.admit")
local caching = require("claw.caching")
local cost = require("claw.cost")
local explain = require("claw.explain")
local facts = require("claw.facts")
local glob = require("claw.glob")
local hooks = require("claw.hooks")
local json = require("claw.json")
local models = require("claw.models")
local plans = require("claw.plan")
local policies = require("claw.policies")
local providers = require("claw.providers")
local retry = require("claw.retry")
local router = require("claw.router")
local routes = require("claw.routes")
local shadow = require("claw.shadow")
local strategies = require("claw.route")
local transform = require("claw.transform")
local translate = require("claw.translate")

local M = {}

local function upstreams_of(spec, problems)
    local out, by_name, names, heads = {}, {}, {}, {}
    local is_list = type(spec.conf.upstreams) == "table" and spec.conf.upstreams[1] ~= nil
    for i, given in ipairs(spec.upstreams) do
        local node = given.node or {}
        local where = is_list and ("upstreams[%d]"):format(i - 1) or "upstreams." .. given.name
        local head, message, key = providers.upstream(given.type, given.url or node.base_url, node)
        if not head then problems[#problems + 1] = { path = where .. "." .. key, message = message } end
        heads[i] = head
        out[i] = {
            index = i, name = given.name, type = given.type, region = node.region, price = given.price,
            models = models.compile(node, where, problems), head = head, lossy = node.lossy,
        }
        by_name[given.name], names[i] = out[i], given.name
    end
    return out, by_name, names, heads
end

-- `prices`: by model, or by a glob of models.
local function prices_of(conf)
    local out = { names = {}, globs = {} }
    for name, details in pairs(conf.prices or {}) do
        if glob.is(name) then
            out.globs[#out.globs + 1] = { text = name, test = glob.compile(name), details = details }
        else
            out.names[name] = details
        end
    end
    table.sort(out.globs, function(a, b)
        local x, y = glob.literal(a.text), glob.literal(b.text)
        if x ~= y then return x > y end
        return a.text < b.text
    end)
    return out
end

-- Everything that is made once. nil when there are problems.
local function build(spec, problems)
    local core, conf = spec.core, spec.conf
    local links = setmetatable({}, { __mode = "k" })
    local env = { core = core, conf = conf, routes = spec.routes, problems = problems, prices = prices_of(conf) }
    env.upstreams, env.by_name, env.upstream_names, env.heads = upstreams_of(spec, problems)
    env.known = models.known(env.upstreams)
    env.policies = policies.load(spec, claw.services(core, links, env.by_name), strategies.strategies, problems)
    env.transformations = transform.compile(conf.transformations, core, env.policies.by_name, env.policies.names,
        problems)
    env.routes = routes.compile(env)
    env.strategies = caching.compile(conf, core, problems)
    env.facts, env.bind = facts.new(core)
    -- The policies' handle of a request. For a route hook what claw.route needs to know is noted beside it (stream is
    -- given): not for every request, since the note is one more object.
    function env.request_of(r, model, stream)
        local req = core.request(r)
        if stream ~= nil then links[req] = { r = r, model = model, stream = stream } end
        return req
    end
    if #problems > 0 then return nil end
    policies.start(core, env.policies, conf, spec.prove ~= false, problems)
    return #problems == 0 and env or nil
end

-- ---- bodies and events

local function check_body(core)
    return function(body)
        if type(body) == "string" or type(body) == "table" or core.is_doc(body) then return nil end
        return "nil or a body (a document, a table or a string)"
    end
end

-- Run a chain over a body. nil: what C has is what is to be sent.
local function transformed(env, check, r, chain, hook, body)
    local core, current = env.core, body
    local req, asked = env.request_of(r), hook == "request" and core.is_doc(body)
    for i = 1, #chain do
        local answer = hooks.call(core, chain[i], hook, check, req, current)
        if type(answer) == "table" then
            core.enter(false)
            local ok, text = pcall(json.encode, answer, core.check)
            core.leave()
            if ok then
                answer = text
            else
                answer = hooks.fail(core, chain[i].policy,
                    hooks.wrong(chain[i].policy, hook, "a body that is JSON (" .. text .. ")", answer))
            end
        end
        local wrong = asked and type(answer) == "string" and core.json_error(answer)
        if wrong then
            local policy = chain[i].policy
            answer = hooks.fail(core, policy, { policy = policy.name, hook = hook,
                message = ("%s: %s: the returned text is no valid JSON: %s"):format(policy.file, hook, wrong) })
        end
        if answer ~= nil then current = answer end
    end
    if current == nil then return nil end
    if core.is_doc(current) then return core.changed(current) and current or nil end
    return current ~= body and current or nil
end

-- The body, made by hooks or nil, with the fields of the upstream's provider; nil: it is no JSON.
local function filled(core, r, made, fields)
    local body = made or core.body(r)
    if type(body) == "string" then body = core.parse(r, body) end
    if not body then return nil end
    providers.fill(body, fields)
    return type(made) == "string" and tostring(body) or body
end

-- What one hook made of one event, appended to `out`.
local function add_events(out, ev, answer)
    if answer == nil then
        out[#out + 1] = ev
    elseif answer and answer.data ~= nil then
        out[#out + 1] = { type = answer.type, data = answer.data }
    elseif answer then
        for i = 1, #answer do out[#out + 1] = { type = answer[i].type, data = answer[i].data } end
    end
    return out
end

-- A chain over one event, or over the `events` a translation made of it. nil: it stays as it came.
local function event(env, r, chain, kind, data, events)
    local core, req = env.core, env.request_of(r)
    for i = 1, #chain do
        if not events then
            local answer = hooks.call(core, chain[i], "event", nil, req, { type = kind, data = data })
            if answer ~= nil then events = add_events({}, nil, answer) end
        else
            local out = {}
            for _, ev in ipairs(events) do
                local answer = hooks.call(core, chain[i], "event", nil, req, { type = ev.type, data = ev.data })
                add_events(out, ev, answer)
            end
            events = out
        end
    end
    if not events then return nil end
    return #events > 0 and events or false
end

-- ---- retry

local function tried_at(list, a)
    if list[a.n] and list[a.n].index == a.index then return a.n end
    for i = 1, #list do
        if list[i].index == a.index then return i end
    end
    return nil
end

-- Who is next: C says so where it set somebody aside.
local function following(list, a, at)
    if not a.next_index then return at and list[at + 1] end
    for i = 1, #list do
        if list[i].index == a.next_index and i ~= at then return list[i] end
    end
    return nil
end

local VERDICTS = { "stop", "next", "after_ms" }

-- A retry hook's verdict as action and wait.
local function said_by(verdict)
    local said
    for _, word in ipairs(VERDICTS) do said = said or verdict[word] and word end
    return said == "after_ms" and "same" or said, verdict.after_ms or 0
end

-- Within what is left and allowed.
local function settled(action, after, a, rules)
    if action == "next" and (a.left or 0) == 0 then action = "stop" end
    if rules.attempts and a.n >= rules.attempts then action = "stop" end
    return action, action == "stop" and 0 or after
end

local function overridden(env, r, chain, a, rules, action, after, kind)
    local req = env.request_of(r)
    for i = 1, #chain do
        local attempt = { action = action, after_ms = after }
        for key, value in pairs(a) do attempt[key] = value end
        attempt.kind = kind
        local verdict = hooks.call(env.core, chain[i], "retry", nil, req, attempt)
        if verdict then
            action, after = said_by(verdict)
        end
    end
    return settled(action, after, a, rules)
end

-- ---- account

local function price_at(list, index, model)
    local found
    for i = 1, #list do
        local c = list[i]
        if c.index == index then
            if not found or c.model == model then found = c end
        end
    end
    return found and found.price
end

local function account(env, r, plan, micros, usage)
    if #plan.cost == 0 and #plan.log == 0 then return micros, nil end
    local req, fields = env.request_of(r), nil
    if usage then
        for _, entry in ipairs(plan.cost) do
            usage.cost_micros = micros
            micros = hooks.call(env.core, entry, "cost", nil, req, usage) or micros
        end
    end
    for _, entry in ipairs(plan.log) do
        for key, value in pairs(hooks.call(env.core, entry, "log", nil, req) or {}) do
            fields = fields or {}
            fields[key] = value
        end
    end
    return micros, fields
end

-- The steps that a policy's hooks are run by, for openclaw.testing.
M.steps = { check_body = check_body, transformed = transformed, event = event, overridden = overridden }

-- ---- policies in shadow

-- Only for an engine that has some: what the real hooks decide is handed on, and then compared.
local function with_shadows(engine, env, state)
    local core, admitted, retried = env.core, engine.admitted, engine.retry
    local entries = shadow.collect(env.policies.always, "admit")

    if entries then
        engine.hooks.admit = true
        function engine.admitted(r)
            local said = admitted(r)
            shadow.admit(core, entries, env.request_of(r), said)
            return said
        end
    end

    function engine.retry(r, a)
        local action, after = retried(r, a)
        local list = state[r]
        local chains = list and list.plan[a.index]
        if chains and chains.shadow_retry then
            local rules = list.plan.route.retry
            shadow.retry(core, chains.shadow_retry, env.request_of(r), a, action, after,
                function(verdict)
                    local said, wait = said_by(verdict)
                    return settled(said, wait, a, rules)
                end)
        end
        return action, after
    end
end

-- ---- the engine

local function with_hooks(engine, env, state)
    local core = env.core
    local check = check_body(core)
    local admit = plans.collect(env.policies.always, "admit")
    local NONE = {}

    local function chain_of(r, index, hook)
        local list = state[r]
        local chains = list and list.plan[index]
        return chains and chains[hook] or NONE
    end

    engine.hooks = { admit = #admit > 0 }

    function engine.admitted(r) return admission.run(core, admit, core.request(r, #admit > 2)) end

    function engine.admit(r)
        local said = engine.admitted(r)
        if not said then return nil end
        if said.answered then return false, said.status, said.body, said.content_type, said.policy end
        return said.status, said.code, said.message
    end
    jit.off(engine.admit) -- as hooks.first

    local attempts = {} -- by request and upstream: of an attempt that is translated; two may be under way
    engine.attempts = attempts

    local function attempt_of(r, index)
        local mine = attempts[r]
        return mine and mine[index]
    end

    function engine.request(r, index, model)
        local list = state[r]
        local chains = list and list.plan[index]
        if not chains then return nil end
        local made
        if #chains.request > 0 then made = transformed(env, check, r, chains.request, "request", core.body(r)) end
        if attempts[r] then attempts[r][index] = nil end
        if chains.unspoken and not core.rewritten(r) then return false, "untranslatable", chains.unspoken end
        -- With a path of a policy's the body is in the upstream's own protocol.
        if core.rewritten(r) then return made end
        if not chains.translate then return chains.fields and filled(core, r, made, chains.fields) or made end
        local body = made or core.body(r)
        if type(body) == "string" then body = core.parse(r, body) end
        if not body then return false, "untranslatable", "The request's body is no JSON object." end
        local at, text, name, dropped = translate.request(core, r, chains.translate, body, model)
        if not at then return false, text, name, dropped end
        attempts[r] = attempts[r] or {}
        attempts[r][index] = at
        return text, name, dropped
    end

    function engine.caches(r, index, method, path, model)
        return caching.pick(env.strategies, r, env.routes[index].id, method, path, model)
    end

    function engine.recast(r, dialect, given) return caching.recast(core, r, dialect, given) end

    function engine.response(r, index)
        local chain, at = chain_of(r, index, "response"), attempt_of(r, index)
        if not at then
            if #chain == 0 then return nil end
            return transformed(env, check, r, chain, "response", core.response_body(r))
        end
        local made, more = translate.response(core, r, at, core.response_body(r))
        if not made then return false, more end
        if #chain == 0 or more then return made, more end
        made = json.encode(made)
        return transformed(env, check, r, chain, "response", core.parse(r, made)) or made
    end

    function engine.error(r, index, status, body)
        return translate.error(core, r, attempt_of(r, index), status, body)
    end

    function engine.event(r, index, kind, data)
        local chain, at = chain_of(r, index, "event"), attempt_of(r, index)
        if not at then
            if #chain == 0 or not data then return nil end
            return event(env, r, chain, kind, data)
        end
        local events, message, status
        if kind then
            events, message, status = translate.event(core, r, at, data and { type = kind, data = data } or nil)
        else
            events, message, status = translate.whole(core, r, at, data)
        end
        if not events then return message, status end
        if #chain == 0 then return events end
        for _, ev in ipairs(events) do
            if type(ev.data) ~= "string" then ev.data = json.encode(ev.data) end
        end
        return event(env, r, chain, kind, data, events)
    end
end

local function with_outcomes(engine, env, state, quiet)
    local core = env.core
    local unrouted = { cost = {}, log = plans.collect(env.policies.always, "log") }

    function engine.retry(r, a, number)
        local list = number and quiet[number] or state[r]
        if not list then return "stop", 0 end
        local rules, at = list.plan.route.retry, tried_at(list, a)
        local action, after, kind = retry.decide(rules, a, list[at], following(list, a, at), #list, core.random)
        local chains = list.plan[a.index]
        if not chains or #chains.retry == 0 then return action, after end
        return overridden(env, r, chains.retry, a, rules, action, after, kind)
    end

    function engine.finish(r, index, model, input, cached, output, reasoning, cache_write, estimated)
        local list = state[r]
        state[r], engine.attempts[r] = nil, nil
        local micros, usage
        if index and list then
            micros = cost.charge(price_at(list, index, model), input, cached, output, cache_write)
            usage = { input = input, cached = cached, output = output, reasoning = reasoning,
                cache_write = cache_write, estimated = estimated or nil,
                model = model, upstream = env.upstream_names[index] }
        end
        return account(env, r, list and list.plan or unrouted, micros, usage)
    end
end

function M.new(spec)
    local problems = {}
    local env = build(spec, problems)
    if not env then return nil, problems end
    local decide = router.new(env)
    local engine = { upstreams = env.heads, route = decide.route, decide = decide.decide }
    with_hooks(engine, env, decide.state)
    with_outcomes(engine, env, decide.state, decide.quiet)
    if env.policies.shadows then with_shadows(engine, env, decide.state) end
    function engine.trace(r, method, path, model, stream)
        return explain.trace(decide, r, { method = method, path = path, model = model, stream = stream })
    end
    local session
    function engine.explain(r, method, path, model, stream)
        session = explain.begin(env, decide, r, { method = method, path = path, model = model, stream = stream })
    end
    function engine.explain_attempt(r) explain.attempt(session, env, decide, r) end
    function engine.explained(r, kind, status, code, text, policy, hook, number, limits)
        local attempts = engine.attempts[r]
        engine.attempts[r] = nil
        return explain.finish(session, env, decide, r,
            { kind = kind, status = status, code = code, text = text, policy = policy, hook = hook,
                number = number or 0, limits = limits, attempts = attempts })
    end
    return engine
end

return M
