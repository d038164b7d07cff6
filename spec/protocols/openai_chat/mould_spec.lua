local mould = require("claw.protocols.openai_chat.mould")

describe("openai_chat.mould", function()
    local function chunk(text, tail)
        return '{"id":"x","choices":[{"index":0,"delta":{"content":"' .. text .. '"}' .. (tail or '}],"obfuscation":"ab"}')
    end

    it("finds the text between the very same bytes", function()
        local m = mould.make(chunk("one"), "one")
        assert.equal("two three", mould.text(m, chunk("two three")))
        assert.equal("ü", mould.text(m, chunk("ü")))
        assert.equal("two", mould.text(m, chunk("two", '}],"obfuscation":"abcdef"}')))
        assert.equal("two", mould.text(m, chunk("two", '}],"obfuscation":""}')))
    end)

    it("knows nothing of any other", function()
        local m = mould.make(chunk("one"), "one")
        for _, data in ipairs({ chunk(""), chunk('a\\n'), chunk('a","role":"x'), chunk("two", "}]}"), chunk("two",
            '}],"usage":{},"obfuscation":"ab"}'),
            chunk("two", '}],"obfuscation":"a","x":1}'), chunk("two", '}],"obfuscation":"a\\"b"}'), chunk("two"):sub(1, -2),
            (chunk("two"):gsub('"x"', '"y"')), "", '{"a":1}' }) do
            assert.is_nil(mould.text(m, data), data)
        end
    end)

    it("is made of one plain text only", function()
        assert.is_nil(mould.make(chunk("a\\n"), "a\n"))
        assert.is_nil(mould.make('{"choices":[{"delta" :{"content":"a"}}]}', "a"))
        assert.is_nil(mould.make('{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}', "a"))
    end)
end)
