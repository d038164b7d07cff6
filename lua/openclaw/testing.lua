-- testing: a policy run without a proxy. The same sandbox, the same checks, the same messages; what is outside of the
-- policy (time, the store, HTTP, chance) is in the test's hands.
--
--     local testing = require("openclaw.testing")
--     local p = testing.load("policies/keep_it_short.lua")
--     local result = p:run("request", testing.request({ body = { messages = {} } }))
--     assert.equal(500, result.json.max_tokens)
--
-- A policy that fails raises its message, "policies/x.lua:3: …", also for a verdict that is none.

local admit = require("claw.admit")
local claw = require("claw")
local clock = require("openclaw.clock")
local core_of = require("openclaw.core")
local document = require("openclaw.document")
local engine = require("claw.engine")
local facts = require("openclaw.facts")
local hooks = require("claw.hooks")
local json = require("claw.json")
local outside = require("openclaw.outside")
local phases = require("claw.phases")
local policies = require("claw.policies")
local policy = require("claw.policy")
local request = require("openclaw.request")
local router = require("claw.router")
local store = require("openclaw.store")

local M = { clock = clock, facts = facts, rng = core_of.random, store = store.new, request = request.new,
    document = document.new, array = json.array, null = json.null }

-- Every name is an upstream's, and its own index.
local upstreams = setmetatable({}, { __index = function(_, name) return { index = name } end })
local handler -- of claw.http.fetch, for every policy that has none of its own

-- What answers claw.http.fetch from now on: a function of the request { url or upstream, path, method, headers, body }
-- that returns { status, headers, body } or nil, message, code; or a table from URL (or upstream and path) to answer.
function M.fetch(answers)
    handler = answers
end

-- Time begins again and nobody answers claw.http.fetch.
function M.reset()
    clock:reset()
    handler = nil
end

-- Candidates as `route` and `choose` get them, from names and tables { name, weight, model, price, … }.
function M.candidates(list)
    local out = {}
    for i, given in ipairs(list) do
        local c = { index = i, type = "mock" }
        for key, value in pairs(type(given) == "table" and given or { name = given }) do c[key] = value end
        c.name = c.name or c[1]
        c[1] = nil
        out[i] = c
    end
    return out
end

-- What the events of an OpenAI stream say.
function M.content(events)
    local out = {}
    for _, ev in ipairs(events) do
        local chunk = json.decode(ev.data)
        local choice = type(chunk) == "table" and chunk.choices and chunk.choices[1]
        local text = choice and choice.delta and choice.delta.content
        if type(text) == "string" then out[#out + 1] = text end
    end
    return table.concat(out)
end

-- An event of an OpenAI stream that says `text`.
function M.chunk(text)
    return { data = { choices = { { index = 0, delta = { content = text } } } } }
end

-- ---- a loaded policy

local Policy = {}
Policy.__index = Policy

local function read(path)
    local file, why = io.open(path, "rb")
    if not file then error("no policy: " .. why, 3) end
    local source = file:read("*a")
    file:close()
    return source
end

-- What `require "lib.NAME"` finds: the files of lib/ in the policy's folder.
local function libs_beside(path)
    local folder = path:match("^(.*/)[^/]*$") or ""
    return setmetatable({}, { __index = function(_, name)
        local file = ("%slib/%s.lua"):format(folder, name)
        local found = io.open(file)
        if not found then return nil end
        found:close()
        return { name = name, file = file, source = read(file) }
    end })
end

-- The policy of a file. opts, all of them optional: conf (what init gets), source (instead of the file's), store (one
-- of testing.store, to share), fetch (as testing.fetch takes it), seed (of chance), live (candidate name ->
-- { outstanding, ms, age, mean }). Raises the problems that would refuse a generation.
function M.load(path, opts)
    opts = opts or {}
    local self = setmetatable({ live = opts.live or {}, calls = {} }, Policy)
    local name = path:match("([^/]+)%.lua$") or path
    self.core, self.links = core_of.new(opts.seed), setmetatable({}, { __mode = "k" })
    self.logs = self.core.logged
    self.store = opts.store or store.new()
    self.ctx = { store = self.store, calls = self.calls, queue = {},
        fetch = function() return opts.fetch or handler end }
    outside.add(self.core, self.ctx)
    self.claw = claw.services(self.core, self.links, upstreams)(name)
    self.claw.time.now = clock.now
    self.claw.store = self.core.store(name)
    local problems = {}
    local source = { name = name, file = path, source = opts.source or read(path), origin = "dir" }
    self.policy = policy.load(source, self.core, self.claw, libs_beside(path), problems)
    local conf = policies.without_secrets(opts.conf or {})
    if self.policy then policy.start(self.core, self.policy, conf, true, problems) end
    for i, p in ipairs(problems) do problems[i] = ("%s:%d: %s"):format(p.file, p.line, p.message) end
    if #problems > 0 then error(table.concat(problems, "\n"), 0) end
    return self
end

local function entry_of(self, hook)
    if not phases.by_name[hook] then error(("there is no hook %s"):format(tostring(hook)), 3) end
    local fn = self.policy.fn or self.policy.hooks[hook]
    if not fn then error(("%s has no %s hook"):format(self.policy.file, hook), 3) end
    return { policy = self.policy, fn = fn }
end

-- One event written as it is on the wire ("event: x", "data: y" lines), or { type, data } with data a text or table.
local function event_of(given)
    if type(given) == "table" then return given end
    local ev, lines = {}, {}
    for line in (given .. "\n"):gmatch("([^\n]*)\r?\n") do
        local field, value = line:match("^(%l+): ?(.-)\r?$")
        if field == "data" then lines[#lines + 1] = value end
        if field == "event" then ev.type = value end
    end
    ev.data = table.concat(lines, "\n")
    return ev
end

-- The events of a whole stream.
local function events_of(text)
    local out = {}
    for block in text:gmatch("(.-)\n\n") do out[#out + 1] = event_of(block) end
    return out
end

-- ---- one runner a hook: (self, entry, ...) -> fields of the result

local run = {}

local function call(self, entry, hook, ...)
    return hooks.call(self.core, entry, hook, nil, ...)
end

-- The engine's environment for one chain.
local function env_of(self)
    return { core = self.core, request_of = function(r) return r.req end }
end

local function note(self, req, list)
    local r = request.record(req)
    self.links[req] = { r = r, model = r.model, stream = r.stream }
    for i, c in ipairs(list or {}) do self.core.live[i] = self.live[c.name] end
    return r
end

function run.init(self, entry, conf) return { verdict = call(self, entry, "init", conf or {}) } end
function run.selftest(self, entry) return { verdict = call(self, entry, "selftest") } end

function run.admit(self, entry, req)
    local said = admit.run(self.core, { entry }, req)
    if not said then return {} end
    if not said.answered then
        return { denied = { status = said.status, code = said.code, message = said.message } }
    end
    return { answered = { status = said.status, content_type = said.content_type, body = said.body,
        json = json.decode(said.body), events = said.content_type == "text/event-stream" and events_of(said.body) } }
end

-- An ordered list as the router reads it; raises what it does not take.
local function ordered(self, entry, hook, answer, list)
    local resolved, expected = router.resolve(answer, list)
    if not resolved then
        hooks.fail(self.core, entry.policy, hooks.wrong(entry.policy, hook, expected, answer))
        resolved = list
    end
    local names = {}
    for i, c in ipairs(resolved) do names[i] = c.name end
    return { verdict = answer, candidates = resolved, names = names, hedge = resolved.hedge }
end

function run.route(self, entry, req, given)
    local list = M.candidates(given or {})
    note(self, req, list)
    local answer = call(self, entry, "route", req, router.copies(list))
    return ordered(self, entry, "route", answer == nil and list or answer, list)
end

function run.choose(self, entry, given, told, rng)
    local list = M.candidates(given or {})
    told = told or facts(self.live)
    local answer = call(self, entry, "choose", router.copies(list), told, rng or self.core.random)
    return ordered(self, entry, "choose", answer, list)
end

local function body_result(made, given, json_only)
    local text = made == nil and given or made
    local out = { changed = made ~= nil, body = text ~= nil and tostring(text) or nil }
    local doc, message, offset = document.parse(out.body or "null")
    if json_only and not doc then
        error(("request: the returned text is no valid JSON: %s at byte %d"):format(message, offset), 0)
    end
    if out.body and doc then out.json = document.functions.table(doc) end
    return out
end

-- given: a body to use instead of the request's own (a table or text).
function run.request(self, entry, req, given)
    local r = note(self, req)
    if given ~= nil then
        r.body = type(given) == "string" and given or document.encode(given)
        r.has_json = document.parse(r.body) ~= nil
    end
    r.attempt, r.out.path, r.out.commit, r.out.headers = nil, nil, nil, {}
    local steps = engine.steps
    local body = self.core.body(r)
    local made = steps.transformed(env_of(self), steps.check_body(self.core), r, { entry }, "request", body)
    if made == nil and body and document.changed(body) then made = body end
    local out = body_result(made, body or r.body, r.has_json)
    out.upstream = { path = r.out.path, commit = r.out.commit, headers = r.out.headers }
    return out
end

function run.response(self, entry, req, given)
    local r = note(self, req)
    local steps = engine.steps
    r.answer_doc, r.answer = nil, given or ""
    if type(given) == "table" then r.answer = document.encode(given) end
    local body = self.core.response_body(r)
    local made = steps.transformed(env_of(self), steps.check_body(self.core), r, { entry }, "response", body)
    return body_result(made, body)
end

function run.event(self, entry, req, ev)
    local r = note(self, req)
    local data = type(ev.data) == "string" and ev.data or document.encode(ev.data)
    local made = engine.steps.event(env_of(self), r, { entry }, ev.type, data)
    r.committed = r.committed or made == nil or #(made or {}) > 0
    if made and #made > 64 then error(("%d events for one (64 may be)"):format(#made), 0) end
    return { changed = made ~= nil, events = made or (made == nil and { { type = ev.type, data = data } } or {}) }
end

function run.retry(self, entry, req, attempt)
    local r = note(self, req)
    local a = { kind = "http_500", status = 500, n = 1, left = 1, index = 1, upstream = "mock", elapsed_ms = 0 }
    for key, value in pairs(attempt or {}) do a[key] = value end
    local action, after = engine.steps.overridden(env_of(self), r, { entry }, a, {}, a.action or "next",
        a.after_ms or 0, a.kind)
    return { action = action, after_ms = after }
end

function run.cost(self, entry, req, usage)
    note(self, req).committed = true
    local micros = call(self, entry, "cost", req, usage)
    return { verdict = micros, cost_micros = micros or usage.cost_micros }
end

function run.log(self, entry, req)
    note(self, req).committed = true
    return { fields = call(self, entry, "log", req) or {} }
end

-- Run one hook. A result is plain data:
--   admit              denied { status, code, message }, or answered { status, content_type, body (text), json (a
--                      table), events (of a stream) }; neither: it goes on
--   route, choose      names, candidates, hedge     (arguments: req, candidates; candidates, facts, rng)
--   request, response  body (text), json (a table), changed; request: upstream { path, headers }
--   event              events, changed              retry      action, after_ms
--   cost               cost_micros                  log        fields
-- and of each: verdict where it is plain, logs (what was logged by now), calls (what was fetched by now), answer
-- { headers } (what was set of the answer's head by now).
function Policy:run(hook, ...)
    local entry = entry_of(self, hook)
    local ok, result = pcall(run[hook], self, entry, ...)
    outside.run_background(self.ctx)
    if not ok then error(type(result) == "table" and result.message or result, 0) end
    result.hook, result.logs, result.calls = hook, self.logs, self.calls
    local req = ...
    if request.is(req) then
        result.answer = { headers = {} } -- what hooks of this request set by now
        for name, value in pairs(request.record(req).answer_headers) do result.answer.headers[name] = value or nil end
    end
    return result
end

-- A stream, event by event, through the event hook: the list of events that go on to the client.
function Policy:stream(req, events)
    local out = {}
    for _, given in ipairs(events) do
        for _, ev in ipairs(self:run("event", req, event_of(given)).events) do out[#out + 1] = ev end
    end
    return out
end

-- The request is over: req and its documents die, as they do in the proxy.
function M.over(req)
    request.record(req).over = true
end

return M
