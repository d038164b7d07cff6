local floats = require("claw.protocols.floats")
local json = require("claw.json")

describe("claw.protocols.floats", function()
    it("knows what OpenAI's base64 says", function()
        assert.equal("AACAPw==", floats.text({ 1 }))
        assert.equal("AAAAv83MzD0=", floats.text({ -0.5, 0.1 }))
        assert.same({ -0.5, 0.1 }, floats.list("AAAAv83MzD0="))
        assert.equal("[-0.5,0.1]", json.encode(floats.list("AAAAv83MzD0=")))
    end)

    it("goes there and back for every float32", function()
        local given = { 0, 1, -1, 0.034477476, -2.7916674e-05, 1.17549435e-38, 1.4e-45, 1.1754942e-38, 3.4028235e38, 16777216, 0.99999994 }
        local text = floats.text(given)
        assert.equal(text, floats.text(floats.list(text)))
        for i, v in ipairs(floats.list(text)) do assert.truthy(math.abs(v - given[i]) <= math.abs(given[i]) * 1e-7 + 1e-46) end
    end)

    it("makes something of what is no float", function()
        assert.equal("AAAAAAAAAAA=", floats.text({ "x", 0 / 0 }))
        assert.same({ 3.4028235e38 }, floats.list(floats.text({ 1e300 })))
        assert.same({ 0 }, floats.list("AACAfw==")) -- infinite
        assert.is_nil(floats.list("AAA"))
        assert.is_nil(floats.list("?"))
        assert.equal("[]", json.encode(floats.list("")))
    end)

    it("leaves what it is", function()
        local list = { 1 }
        assert.equal(list, floats.list(list))
        assert.equal("AACAPw==", floats.text("AACAPw=="))
    end)
end)
