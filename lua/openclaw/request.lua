-- request: a client's request without a client: the record the fake core reads, and the `req` a policy gets.

local dialect = require("claw.dialect")
local document = require("openclaw.document")
local slice = require("openclaw.slice")

local M = {}

-- What each object has; another name is nil, as in the proxy.
M.FIELDS = {
    req = { "id", "method", "path", "query", "dialect", "model", "stream", "route", "status", "client", "body",
        "upstream", "attempts", "usage", "cost_micros", "ctx", "elapsed_ms", "answer", "stream_state" },
    ["req.client"] = { "ip", "name", "tier", "metadata", "headers", "header" },
    ["req.upstream"] = { "name", "url", "model", "path", "commit", "headers" },
    ["req.answer"] = { "headers" },
}

local KNOWN = {}
for what, names in pairs(M.FIELDS) do
    KNOWN[what] = {}
    for _, name in ipairs(names) do KNOWN[what][name] = true end
end

local WRITTEN_BY_THE_PROXY = { host = true, ["content-length"] = true, ["transfer-encoding"] = true, connection = true,
    ["keep-alive"] = true, upgrade = true, te = true, trailer = true, expect = true, ["proxy-connection"] = true }

local views = setmetatable({}, { __mode = "k" }) -- userdata -> { r, what }
local base = newproxy(true)
local meta = getmetatable(base)

local function view(r, what)
    local v = newproxy(base)
    views[v] = { r = r, what = what }
    return v
end

-- The view's kind and its record, of a request that still goes on.
local function check(v)
    local it = views[v]
    if it.r.over then error(("the request is over: %s cannot be used any more"):format(it.what), 3) end
    return it.what, it.r
end

function meta.__index(v, key)
    local what, r = check(v)
    if type(key) ~= "string" then return nil end
    if what == "req.client.headers" then return r.headers[key:lower()] end
    if what == "req.upstream.headers" then return r.out.headers[key:lower()] end
    if what == "req.answer.headers" then return r.answer_headers[key:lower()] or nil end
    if not KNOWN[what][key] then return nil end
    if what == "req.client" then return r.client_view[key] end
    if what == "req.upstream" then
        if key == "headers" then return r.out.view end
        if key == "path" then return r.out.path or r.path end
        if key == "commit" then return r.out.commit or "event" end
        return r.upstream[key]
    end
    if what == "req.answer" then return r.answer_headers_view end
    if key == "client" then return r.client end
    if key == "answer" then return r.answer_view end
    if key == "stream_state" then return r.stream and (r.state or "held") or nil end
    if key == "upstream" then return r.upstream and r.upstream_view end
    if key == "body" then
        if r.original == nil and r.has_json then r.original = document.parse(r.body, true, r) end
        return r.original
    end
    return r[key]
end

local function check_path(path)
    if type(path) ~= "string" or not path:find("^/") or path:find("[%z\1-\32\127-\255#]") then
        error("req.upstream.path: must begin with / and hold neither spaces, # nor control characters", 3)
    end
    return path
end

local function check_commit(value)
    if value ~= "event" and value ~= "token" and not (type(value) == "number" and value >= 1 and value <= 65536
        and value == math.floor(value)) then
        error('req.upstream.commit: must be "event", "token" or a whole number of characters from 1 to 65536', 3)
    end
    return value == 1 and "token" or value
end

local function check_header(what, name, value)
    if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+.^_`|~-]+$") or WRITTEN_BY_THE_PROXY[name:lower()]
        or what == "req.answer.headers" and name:lower():find("^x%-openclaw%-.")
        or value ~= nil and (type(value) ~= "string" or value:find("[%z\1-\8\10-\31\127]")) then
        error(('%s["%s"]: no valid field name or value, or a field the proxy writes itself'):format(what,
            tostring(name)), 3)
    end
end

function meta.__newindex(v, key, value)
    local what, r = check(v)
    if what == "req.upstream.headers" then
        check_header(what, key, value)
        r.out.headers[key:lower()] = value
        return
    elseif what == "req.answer.headers" then
        if r.committed then error(('%s["%s"]: the answer\'s head has left'):format(what, tostring(key)), 2) end
        check_header(what, key, value)
        r.answer_headers[key:lower()] = value == nil and false or value
        return
    elseif what == "req.upstream" and key == "path" then
        r.out.path = check_path(value)
        return
    elseif what == "req.upstream" and key == "commit" then
        r.out.commit = check_commit(value)
        return
    end
    local hint = "use req.ctx for notes of your own"
    if what:find("^req%.client") then
        hint = "what the client sent stays as it came; req.upstream is what goes out"
    elseif what == "req.upstream" then
        hint = "only path, commit and headers[name] can be set; the model is body.model"
    elseif what == "req.answer" then
        hint = "only headers[name] can be set; the body is what a response hook returns"
    elseif key == "body" then
        hint = "change or return the hook's body argument"
    end
    error(("%s.%s cannot be assigned: %s"):format(what, tostring(key), hint), 2)
end

function meta.__tostring(v)
    local it = views[v]
    return ("%s (%s)"):format(it.what, it.r.over and "over" or it.r.id)
end

meta.__metatable = "claw.req"

-- ---- making one

local function encoded(text)
    return (tostring(text):gsub("[^%w._~-]", function(c) return ("%%%02X"):format(c:byte()) end))
end

local function query_of(query)
    if type(query) ~= "table" then return query or "" end
    local out = {}
    for name, value in pairs(query) do out[#out + 1] = encoded(name) .. "=" .. encoded(value) end
    table.sort(out)
    return table.concat(out, "&")
end

local function headers_of(headers)
    local out = {}
    for name, value in pairs(headers or {}) do
        out[name:lower()] = type(value) == "table" and table.concat(value, ", ") or tostring(value)
    end
    return out
end

local function read_body(r, body)
    if body == nil then return end
    r.body = type(body) == "string" and body or document.encode(body)
    local doc = document.parse(r.body)
    if not doc then return end
    r.has_json, r.doc = true, doc
    if document.functions.type(doc) ~= "object" then return end
    if type(doc.model) == "string" and doc.model ~= "" then r.model = doc.model end
    r.stream = doc.stream == true
end

-- A recorded request: { "method", "path", "headers", "body" }, or the body alone, as -explain takes it.
local function recorded(path)
    local file, why = io.open(path)
    if not file then error("no recorded request: " .. why, 0) end
    local text = file:read("*a")
    file:close()
    local raw, message, offset = slice.check(text)
    if not raw then error(("%s: %s at byte %d"):format(path, message, offset), 0) end
    local given, whole = {}, true
    for _, child in ipairs(slice.type_of(raw) == "object" and slice.children(raw) or {}) do
        if child.key == "body" or child.key == "path" or child.key == "method" then whole = false end
        given[child.key] = child.key == "body" and child.raw or slice.plain(child.raw)
    end
    if whole then return { body = raw } end
    given.method = given.method or (given.body and "POST" or "GET")
    return given
end

local number = 0

-- given: the path of a recorded request, or a table { method, path, headers, query, body (table or text),
-- client = { ip, name, tier, metadata }, route, upstream = { name, url, model }, status, usage, cost_micros,
-- attempts, id, tokens, model, stream, stream_state }; all may be left out. Returns the policy's req.
function M.new(given)
    if type(given) == "string" then given = recorded(given) end
    given = given or {}
    number = number + 1
    local path, query = (given.path or "/v1/chat/completions"):match("^([^?]*)%??(.*)$")
    local r = {
        id = given.id or ("req-%d"):format(number), method = given.method or "POST", path = path,
        query = given.query and query_of(given.query) or query, headers = headers_of(given.headers), stream = false,
        ctx = {}, attempts = given.attempts or {}, elapsed_ms = given.elapsed_ms or 0, status = given.status,
        usage = given.usage, cost_micros = given.cost_micros, tokens = given.tokens,
        route = given.route or "route_1", state = given.stream_state, out = { headers = {} }, body = "",
    }
    local model, streams
    read_body(r, given.body)
    r.dialect, model, streams = dialect.of(path)
    if model then r.model, r.stream = model, streams end
    if given.model then r.model = given.model end
    if given.stream ~= nil then r.stream = given.stream end
    local client = given.client or {}
    r.client = view(r, "req.client")
    r.client_view = { ip = client.ip or "127.0.0.1", name = client.name, tier = client.tier,
        metadata = client.metadata }
    r.client_view.headers = view(r, "req.client.headers")
    r.client_view.header = function(a, b) return r.client_view.headers[type(a) == "userdata" and b or a] end
    r.upstream, r.upstream_view = given.upstream, view(r, "req.upstream")
    r.out.view = view(r, "req.upstream.headers")
    r.answer_headers, r.answer_view = {}, view(r, "req.answer")
    r.answer_headers_view = view(r, "req.answer.headers")
    r.req = view(r, "req")
    return r.req
end

function M.is(v)
    return views[v] ~= nil and views[v].what == "req"
end

-- The record behind a req.
function M.record(req)
    if not M.is(req) then error(("expected a request of testing.request, got a %s"):format(type(req)), 0) end
    return views[req].r
end

return M
