local doc = require("support.context").doc
local fields = require("claw.protocols.fields")
local json = require("claw.json")

describe("claw.protocols.fields", function()
    local VALUES = { "x", "", 1, -1, 1.5, true, json.null, {}, json.array(), { 1 }, { a = 1 }, doc("[]"), doc("{}"), doc('{"insert":1}'), doc("[1]") }

    local function taken(fn)
        local out = {}
        for i, v in ipairs(VALUES) do
            if fn(v) ~= nil then out[#out + 1] = i end
        end
        return table.concat(out, " ")
    end

    it("takes what has the type, of documents and tables alike", function()
        assert.equal("1 2", taken(fields.text))
        assert.equal("1", taken(fields.word))
        assert.equal("3 4 5", taken(fields.number))
        assert.equal("3 5", taken(fields.count))
        assert.equal("6", taken(fields.flag))
        assert.equal("8 11 13 14", taken(fields.object))
        assert.equal("9 10 12 15", taken(fields.array))
        assert.is_nil(fields.object(nil))
    end)

    it("gives empty ones to loop over", function()
        assert.equal(0, #fields.list("x"))
        assert.is_nil(fields.fields(json.null).a)
        assert.equal(1, fields.list(doc("[1]"))[1])
        assert.equal(1, fields.fields({ a = 1 }).a)
    end)

    it("has no number and no text for what is too large", function()
        assert.is_nil(fields.number(1 / 0))
        assert.is_nil(fields.number(-1 / 0))
        assert.is_nil(fields.encoded({ 1 / 0 }))
        assert.equal("[1]", fields.encoded({ 1 }))
    end)

    it("knows what says nothing", function()
        assert.equal("1 3 4 5 6 10 11 14 15", taken(function(v) return fields.says(v) or nil end))
        assert.is_false(fields.says(nil))
    end)
end)
