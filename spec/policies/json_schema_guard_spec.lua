local json = require("claw.json")
local testing = require("openclaw.testing")

local SCHEMA = { type = "object", required = { "name", "tags" }, properties = { name = { type = "string" }, age = { type = { "integer", "null" } },
    mood = { enum = { "good", "bad" } }, tags = { type = "array", items = { type = "string" } }, part = { type = "number" } } }

local p = testing.load("policies/json_schema_guard.lua")

local function answer(content)
    return { choices = { { message = { role = "assistant", content = content } } } }
end

-- The content that reaches the client, what the log says, and what was asked again.
local function run(content, again, body)
    local req = testing.request({ upstream = { name = "main" }, body = body or { model = "m", messages = { { role = "user", content = "who?" } },
        response_format = { type = "json_schema", json_schema = { schema = SCHEMA } } } })
    local before = #p.calls
    testing.fetch({ ["main/chat/completions"] = again or { status = 500 } })
    p:run("request", req)
    local result = p:run("response", req, answer(content))
    local asked = p.calls[before + 1] and json.decode(p.calls[before + 1].body)
    return result.json.choices[1].message.content, p:run("log", req).fields.schema, asked
end

describe("policies/json_schema_guard", function()
    for content, expected in pairs({
        ['{"name":"x","tags":[]}'] = "ok", ['{"name":"x","tags":["a"],"age":3,"mood":"good","more":[1]}'] = "ok",
        ['{"name":"x","tags":[],"age":null}'] = "ok",
        ['{"name":"x","tags":[],"part":3}'] = "ok", ['{"name":"x","tags":[],"age":1.5}'] = "$.age is of type number",
        ['{"name":1,"tags":[]}'] = "$.name is of type integer",
        ['{"tags":[]}'] = "$.name is missing", ['{"name":"x","tags":["a",2]}'] = "$.tags[1] is of type integer",
        ['{"name":"x","tags":{}}'] = "$.tags is of type object",
        ['{"name":"x","tags":[],"mood":"fine"}'] = "$.mood is none of the values that may be",
        ["[]"] = "$ is of type array", ["so be it"] = "no JSON: ",
    }) do
        it("finds " .. expected .. " in " .. content, function()
            local out, said, asked = run(content)
            assert.equal(content, out)
            assert.equal(expected == "ok" and "ok" or "wrong", said)
            if expected ~= "ok" then
                assert.equal(content, asked.messages[2].content)
                assert.truthy(asked.messages[3].content:find("Wrong: " .. expected, 1, true), asked.messages[3].content)
                assert.same({ "m", "json_schema" }, { asked.model, asked.response_format.type })
            end
        end)
    end

    it("takes the second answer when that one fits", function()
        local good = '{"name":"x","tags":[]}'
        local out, said = run("{}", { status = 200, body = answer(good) })
        assert.same({ good, "repaired" }, { out, said })
        out, said = run("{}", { status = 200, body = answer("{}") })
        assert.same({ "{}", "wrong" }, { out, said })
    end)

    it("says nothing about other requests", function()
        local out, said, asked = run("{}", nil, { messages = { { role = "user", content = "who?" } } })
        assert.same({ "{}" }, { out, said, asked })
        out, said, asked = run("{}", nil, { stream = true, messages = testing.array(), response_format = { json_schema = { schema = SCHEMA } } })
        assert.same({ "{}" }, { out, said, asked })
    end)
end)
