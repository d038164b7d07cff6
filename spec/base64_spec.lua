local base64 = require("claw.base64")

describe("claw.base64", function()
    for plain, coded in pairs({ [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foobar = "Zm9vYmFy",
        ["\0\255\254"] = "AP/+" }) do
        it("round-trips " .. coded, function()
            assert.equal(coded, base64.encode(plain))
            assert.equal(plain, base64.decode(coded))
        end)
    end

    it("round-trips all lengths of all bytes", function()
        local bytes = {}
        for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
        local all = table.concat(bytes)
        for n = 0, 256 do assert.equal(all:sub(1, n), base64.decode(base64.encode(all:sub(1, n)))) end
    end)

    it("reads the URL alphabet and text without padding", function()
        assert.equal("\0\255\254", base64.decode("AP_-"))
        assert.equal("f", base64.decode("Zg"))
    end)

    it("refuses what is none", function()
        for _, bad in ipairs({ "Z", "Zm9*", "Zm 9v" }) do
            local out, message, code = base64.decode(bad)
            assert.is_nil(out)
            assert.is_string(message)
            assert.equal("EINVAL", code)
        end
    end)
end)
