-- json_schema_guard: where a request asks for JSON of a schema, the answer has it; one that has not gets one more try.
--
-- In openclaw.yaml, for routes to upstreams of OpenAI's dialect: `policies: [json_schema_guard]`. Streamed answers are
-- not looked at.
--
-- Of a schema it knows type, required, properties, enum and items. If the second try fails too the first answer goes
-- out as it is; the log says schema: ok, repaired or wrong.
local P = { name = "json_schema_guard", api = 1 }

local function kind_of(v)
    if v == claw.json.null then return "null" end
    if type(v) == "number" then return v % 1 == 0 and "integer" or "number" end
    if type(v) ~= "table" then return type(v) end
    return claw.json.encode(v):sub(1, 1) == "[" and "array" or "object"
end

local function one_of(v, list)
    for _, other in ipairs(type(list) == "table" and list or { list }) do
        if v == other or v == "integer" and other == "number" then return true end
    end
    return false
end

-- nil, or what is wrong with a value that stands at `where`.
local function check(v, schema, where)
    if type(schema) ~= "table" then return nil end
    local kind, wrong = kind_of(v), nil
    if schema.type and not one_of(kind, schema.type) then wrong = ("%s is of type %s"):format(where, kind) end
    if schema.enum and not one_of(v, schema.enum) then wrong = where .. " is none of the values that may be" end
    for _, key in ipairs(kind == "object" and schema.required or {}) do
        if v[key] == nil then wrong = wrong or ("%s.%s is missing"):format(where, key) end
    end
    for key, inner in pairs(kind == "object" and schema.properties or {}) do
        if v[key] ~= nil then wrong = wrong or check(v[key], inner, where .. "." .. key) end
    end
    for i, element in ipairs(kind == "array" and schema.items and v or {}) do
        wrong = wrong or check(element, schema.items, ("%s[%d]"):format(where, i - 1))
    end
    return wrong
end

local function problem_of(content, asked)
    local v, message = claw.json.decode(content)
    return v == nil and "no JSON: " .. message or check(v, asked.response_format.json_schema.schema, "$")
end

-- The content of a second try; nil when there is none that fits.
local function repair(req, asked, content, problem)
    local messages = asked.messages
    messages[#messages + 1] = { role = "assistant", content = content }
    messages[#messages + 1] = { role = "user", content = "Wrong: " .. problem .. ". Answer again, with JSON only." }
    local answer = claw.http.fetch({ upstream = req.upstream.name, path = "/chat/completions", body = asked,
        headers = { ["content-type"] = "application/json" }, timeout_ms = 30000 })
    local again = answer and claw.json.decode(answer.body)
    local choice = type(again) == "table" and (again.choices or {})[1]
    local text = choice and choice.message.content
    return type(text) == "string" and not problem_of(text, asked) and text or nil
end

function P.request(req, body)
    if claw.doc.type(body) ~= "object" or claw.doc.type(body.messages) ~= "array" or req.stream then return end
    local schema = claw.doc.get(body, "response_format.json_schema.schema")
    claw.state(req).asked = claw.doc.type(schema) == "object" and body:table() or nil
end

function P.response(req, body)
    local state = claw.state(req)
    local content = state.asked and claw.doc.type(body) == "object" and claw.doc.get(body, "choices[0].message.content")
    if type(content) ~= "string" then return end
    local problem = problem_of(content, state.asked)
    local better = problem and repair(req, state.asked, content, problem)
    if better then body.choices[1].message.content = better end
    state.said = not problem and "ok" or better and "repaired" or "wrong"
end

function P.log(req)
    return { schema = claw.state(req).said }
end

return P
