local context = require("support.context")
local gemini = require("claw.protocols.gemini")
local json = require("claw.json")
local rules = require("support.stream_rules")
local streams = require("support.dialect_streams")

local function read(...)
    local events = {}
    for i, data in ipairs({ ... }) do events[i] = { data = data } end
    local out = rules.read(gemini.reader(context.new({ answering = true })), events)
    assert.is_nil(rules.events(out))
    return out
end

local function part(p, more)
    return '{"candidates":[{"content":{"parts":[' .. p .. '],"role":"model"}' .. (more or "") .. '}],"responseId":"r","modelVersion":"m"}'
end

local function kinds(events)
    local out = {}
    for i, e in ipairs(events) do out[i] = e.on .. (e.on == "part" and ":" .. e.part.kind or "") end
    return table.concat(out, " ")
end

describe("a stream of Gemini's", function()
    it("keeps a part open until something else comes", function()
        local out = read(part('{"text":"h","thought":true}'), part('{"text":"m","thought":true}'), part('{"text":"a"}'), part('{"text":"b"}'),
            part('{"functionCall":{"name":"f","args":{"z":[],"a":1}},"thoughtSignature":"S"}'), part('{"text":""}', ',"finishReason":"STOP"'))
        assert.equal("start part:thinking text text part_end part:text text text part_end part:call input part_end stop end", kinds(out))
        local got = rules.gather(out)
        assert.equal("call", got.stop)
        assert.equal("S", got.parts[3].signature)
        assert.equal('{"z":[],"a":1}', got.parts[3].input)
    end)

    it("has a text's signature behind what the text cites", function()
        local out = read(part('{"text":"see"}'), part('{"text":" it","thoughtSignature":"S"}',
            ',"finishReason":"STOP","groundingMetadata":{"groundingChunks":[{"web":{"uri":"u"}}]}'))
        assert.equal("start part:text text text citation part_end part:thinking signature part_end stop end", kinds(out))
    end)

    it("tells usage when it changes, and of what came behind the finish only that", function()
        local usage = ',"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":%d,"totalTokenCount":%d}}'
        local function with(body, n) return body:sub(1, -2) .. usage:format(n, n + 3) end
        local out = read(with(part('{"text":"a"}'), 1), with(part('{"text":"b"}'), 1), with(part('{"text":"c"}', ',"finishReason":"STOP"'), 2),
            with(part('{"text":"late"}'), 4))
        assert.equal("start part:text text usage text text part_end stop usage usage end", kinds(out))
        assert.equal("abc", rules.gather(out).parts[1].text)
        assert.equal(4, rules.gather(out).usage.output)
    end)

    it("fails when it is cut, says an error, or is none", function()
        assert.equal("start part:text text error", kinds(read(part('{"text":"a"}'))))
        assert.equal("error", kinds(read()))
        assert.equal("error", kinds(read("<html>")))
        local out = read(part('{"text":"a"}'), '{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}')
        assert.equal("overloaded", out[#out].err.kind)
        assert.equal(503, out[#out].err.status)
        out = read('{"promptFeedback":{"blockReason":"SAFETY"},"responseId":"r"}')
        assert.equal("start stop end", kinds(out))
        assert.equal("filter", out[2].stop)
    end)

    it("has candidates of their own", function()
        local out = read('{"candidates":[{"index":0,"content":{"parts":[{"text":"a"}]}},{"index":1,"content":{"parts":[{"text":"b"}]}}]}',
            '{"candidates":[{"index":0,"finishReason":"STOP"},{"index":1,"finishReason":"MAX_TOKENS"}]}')
        assert.equal("b", rules.gather(out, 1).parts[1].text)
        assert.equal("length", rules.gather(out, 1).stop)
        local problem, said = streams.gemini(rules.write(gemini.writer(context.new()), out), 1)
        assert.is_nil(problem)
        assert.same({ "b", "MAX_TOKENS" }, { said.text, said.stop })
    end)
end)

describe("a stream for a client of Gemini's", function()
    it("has calls whole, and ends once with finish, citations and usage", function()
        local list = rules.write(gemini.writer(context.new()), {
            { on = "start", id = "i", model = "m" }, { on = "ping" },
            { on = "part", index = 0, part = { kind = "thinking" } }, { on = "text", index = 0, text = "hm" },
            { on = "signature", index = 0, signature = "sig", origin = "anthropic" }, { on = "part_end", index = 0 },
            { on = "part", index = 1, part = { kind = "text" } }, { on = "text", index = 1, text = "\195\164" }, { on = "part_end", index = 1 },
            { on = "part", index = 2, part = { kind = "text" } }, { on = "text", index = 2, text = "bc" },
            { on = "citation", index = 2, citation = { url = "u", start = 1, finish = 2 } }, { on = "part_end", index = 2 },
            { on = "part", index = 3, part = { kind = "call", id = "c", name = "f" } }, { on = "input", index = 3, text = '{"z":' },
            { on = "input", index = 3, text = "[]}" }, { on = "part_end", index = 3 },
            { on = "stop", stop = "call" }, { on = "usage", usage = { input = 5, output = 7, reasoning = 2 } }, { on = "end" } })
        local problem, said = streams.gemini(list)
        assert.is_nil(problem)
        assert.same({ "hm", "\195\164bc", "STOP" }, { said.thinking, said.text, said.stop })
        assert.same({ { id = "c", name = "f", input = { z = json.array() } } }, said.calls)
        assert.same({ promptTokenCount = 5, candidatesTokenCount = 5, thoughtsTokenCount = 2, totalTokenCount = 12 }, said.usage)
        assert.same({ partIndex = 0, startIndex = 3, endIndex = 4, text = "c" }, said.grounding.groundingSupports[1].segment)
        assert.truthy(list[5].data:find('"args":{"z":[]}', 1, true))
    end)

    it("says an error as Google does, and nothing behind it", function()
        local writer = gemini.writer(context.new())
        writer({ on = "start", id = "i" })
        local out = writer({ on = "error", err = { status = 529, kind = "overloaded", message = "busy" } })
        assert.equal("UNAVAILABLE", json.decode(out[1].data).error.status)
        assert.same({}, writer({ on = "end" }))
    end)

    it("makes an object of arguments that are none", function()
        local list = rules.write(gemini.writer(context.new()), { { on = "start" }, { on = "part", index = 0, part = { kind = "call", id = "c",
            name = "f" } },
            { on = "input", index = 0, text = '{"x":' }, { on = "part_end", index = 0 }, { on = "stop", stop = "length" }, { on = "end" } })
        local problem, said = streams.gemini(list)
        assert.is_nil(problem)
        assert.same({ input = '{"x":' }, said.calls[1].input)
    end)
end)
