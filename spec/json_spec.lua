local cjson = require("cjson")
local json = require("claw.json")

describe("claw.json", function()
    it("keeps [] and {} apart", function()
        for _, text in ipairs({ "[]", "{}", '{"a":[],"b":{}}', "[[],{},[[]]]", '{"a":[ ]}' }) do
            assert.equal((text:gsub(" ", "")), json.encode(json.decode(text)))
        end
    end)

    it("reads both ways alike", function()
        local texts = { '{"a":1,"b":[true,false,null],"c":"x\\u00e9\\n\\"\\\\","d":-1.5e3,"e":{"f":"\\ud83d\\ude00"}}',
            '[1,2,{"x":[3]}]', '"text"', "0", "-0.5", "true", "[0.1,1e-7]", '{"\\u0041":"\\/"}' }
        for _, text in ipairs(texts) do
            local padded = "[[]," .. text .. "]" -- an empty array takes the other reader
            assert.same(cjson.decode("[" .. text .. "]")[1], json.decode(padded)[2])
            assert.same(cjson.decode("[" .. text .. "]"), json.decode("[" .. text .. "]"))
        end
    end)

    it("looks at the time while it decodes a long text for a policy", function()
        local text, n = "[" .. ("1,"):rep(600000) .. "1]", 0
        assert.equal(600001, #json.decode(text, function() n = n + 1 end))
        assert.is_true(n > 500)
        n = 0
        assert.has_error(function()
            json.decode(text, function()
                n = n + 1
                error("stopped", 0)
            end)
        end, "stopped")
        assert.equal(2, n) -- caught in the reader, raised again behind it
        assert.equal(600001, #json.decode(text))
    end)

    it("refuses what is no JSON", function()
        for _, text in ipairs({ "", "[", "[1,]", "{,}", '{"a"}', '{"a":}', "[1 2]", "nul", "[NaN]", "[0x10]", "[01]",
            "[.5]", '["\\x"]', "[] x", "{'a':1}", "[+1]", '["a', "[tru]" }) do
            for _, padded in ipairs({ text, "[[]," .. text .. "]" }) do
                local value, message, code = json.decode(padded)
                assert.is_nil(value, padded)
                assert.is_string(message)
                assert.equal("EBAD_JSON", code)
            end
        end
        assert.has_error(function() json.decode(nil) end)
    end)

    it("has no text for a request", function()
        assert.error_matches(function() json.encode({ require("openclaw.testing").request() }) end, "no JSON for a userdata")
    end)

    it("bounds depth", function()
        local deep = ("["):rep(2000) .. ("]"):rep(2000)
        assert.is_nil(json.decode(deep))
        local cycle = {}
        cycle[1] = cycle
        assert.has_error(function() json.encode(cycle) end)
    end)

    it("writes numbers shortly and exactly", function()
        for n, text in pairs({ [1] = "1", [-3] = "-3", [0.1] = "0.1", [1e100] = "1e+100", [2 ^ 52] = "4503599627370496",
            [1 / 3] = "0.33333333333333331" }) do
            assert.equal(text, json.encode(n))
            assert.equal(n, tonumber(json.encode(n)))
        end
        assert.has_error(function() json.encode(0 / 0) end)
        assert.has_error(function() json.encode(math.huge) end)
    end)

    it("writes objects in the order of their keys, strings escaped", function()
        assert.equal('{"a":"\\"\\\\\\n\\u0001é","b":null}', json.encode({ b = json.null, a = '"\\\n\1é' }))
    end)

    it("refuses what has no JSON", function()
        assert.has_error(function() json.encode(print) end)
        assert.has_error(function() json.encode({ [2.5] = 1 }) end)
    end)
end)
