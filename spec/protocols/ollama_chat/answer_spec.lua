local context = require("support.context")
local ollama = require("claw.protocols.ollama_chat")
local rules = require("support.stream_rules")
local written = require("support.written")

describe("an answer of Ollama's", function()
    it("has thinking, text and calls with ids made for them", function()
        local a = written.answer("ollama_chat", '{"model":"m","message":{"thinking":"hm","content":"so","tool_calls":[{"function":{"name":"f",'
            .. '"arguments":{"z":[],"n":12345678901234567890}}}]},"done":true,"done_reason":"stop","prompt_eval_count":5,"eval_count":6}')
        assert.same({ "hm", "so", '{"z":[],"n":12345678901234567890}' }, { a.parts[1].text, a.parts[2].text, tostring(a.parts[3].input) })
        assert.truthy(a.parts[3].id:find("^call_"))
        assert.same({ "call", "m", { input = 5, output = 6 } }, { a.stop, a.model, a.usage })
    end)

    it("stops for a reason", function()
        local function stop(reason)
            return written.answer("ollama_chat", '{"message":{"content":""},"done_reason":"' .. reason .. '"}').stop
        end
        assert.same({ "end", "length", "end", "end" }, { stop("stop"), stop("length"), stop("load"), stop("new") })
    end)

    it("is none, or an error", function()
        for _, body in ipairs({ "{}", "[]", '{"message":5}' }) do
            assert.is_nil((written.answer("ollama_chat", body)))
        end
        assert.equal("broken", written.answer("ollama_chat", '{"error":"broken"}').error.message)
    end)
end)

describe("a stream of Ollama's", function()
    it("has a line for each piece, and calls whole", function()
        local out = written.stream("ollama_chat", { '{"model":"m","message":{"role":"assistant","content":"","thinking":"h"},"done":false}',
            '{"model":"m","message":{"content":"","thinking":"m"},"done":false}', '{"message":{"content":"so"},"done":false}',
            '{"message":{"content":"","tool_calls":[{"function":{"name":"f","arguments":{"z":[],"n":12345678901234567890}}},'
                .. '{"id":"c2","function":{"name":"g"}}]},"done":false}',
            '{"message":{"content":""},"done":true,"done_reason":"stop","prompt_eval_count":5,"eval_count":6}' })
        assert.equal("start part:thinking text text part_end part:text text part_end part:call input part_end part:call input part_end "
            .. "usage stop end", written.kinds(out))
        local got = rules.gather(out)
        assert.same({ "call", '{"z":[],"n":12345678901234567890}', "c2", "{}" },
            { got.stop, got.parts[3].input, got.parts[4].id, got.parts[4].input })
        assert.are_not.equal(got.parts[3].id, got.parts[4].id)
    end)

    it("fails when it is cut, or says so", function()
        assert.equal("start part:text text error", written.kinds(written.stream("ollama_chat", { '{"message":{"content":"a"}}' })))
        local out = written.stream("ollama_chat", { '{"message":{"content":"a"}}', '{"error":"model runner has unexpectedly stopped"}' })
        assert.equal("model runner has unexpectedly stopped", out[#out].err.message)
        assert.equal("error", written.kinds(written.stream("ollama_chat", { "<html>" })))
        assert.equal("start usage stop end", written.kinds(written.stream("ollama_chat", { '{"done":true,"eval_count":1}' })))
    end)
end)

describe("an error of Ollama's", function()
    it("is a word", function()
        local err = ollama.read_error(404, '{"error":"model \\"x\\" not found, try pulling it first"}', context.new())
        assert.same({ 404, "not_found", 'model "x" not found, try pulling it first' }, { err.status, err.kind, err.message })
    end)
end)
