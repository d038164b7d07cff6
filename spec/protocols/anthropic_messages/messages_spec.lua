local messages = require("claw.protocols.anthropic_messages.messages")
local context = require("support.context")
local json = require("claw.json")

local function text(t, more)
    local part = { kind = "text", text = t }
    for key, v in pairs(more or {}) do part[key] = v end
    return part
end

local function write(turns, overrides, system)
    local cx = context.new(overrides)
    local said, list = messages.write({ system = system or {}, turns = turns }, cx)
    return json.decode(json.encode(list)), context.dropped(cx), said and json.decode(json.encode({ said }))[1]
end

local function user(...) return { role = "user", parts = { ... } } end
local function assistant(...) return { role = "assistant", parts = { ... } } end
local function call(id) return { kind = "call", id = id, name = "f", input = context.doc("{}") } end
local function result(id, ...) return { kind = "result", id = id, parts = { ... } } end

describe("anthropic_messages.messages", function()
    it("merges turns of one role, and says one text as text", function()
        assert.same({ { role = "user", content = { { type = "text", text = "a" }, { type = "text", text = "b" } } }, { role = "assistant",
            content = "c" } },
            (write({ user(text("a")), user(text("b")), assistant(text("c")) })))
    end)

    it("leaves out text that says nothing, and turns that have no more", function()
        assert.same({ { role = "user", content = { { type = "text", text = "a" }, { type = "text", text = "b" } } } },
            (write({ user(text("a"), text(""), text(" \n")), assistant(text("")), user(text("b")) })))
    end)

    it("moves what the system says later to the system prompt", function()
        local list, dropped, system = write({ user(text("a")), { role = "system", parts = { text("later") } } }, nil, { text("s", { cache = true }) })
        assert.same({ { role = "user", content = "a" } }, list)
        assert.same({ { type = "text", text = "s", cache_control = { type = "ephemeral" } }, { type = "text", text = "later" } }, system)
        assert.equal("", dropped)
        local only, _, none = write({}, nil, { text("only") })
        assert.same({ { role = "user", content = "only" } }, only)
        assert.is_nil(none)
    end)

    it("puts results first, right behind their calls", function()
        local list = write({ user(text("go")), assistant(text("ok"), call("a"), call("b")), user(text("well")), user(result("b", text("2"))),
            user({ kind = "result", id = "a", error = true, parts = { text("1"), { kind = "image", url = "https://i" } } }) })
        assert.same({ { type = "tool_result", tool_use_id = "b", content = "2" },
            { type = "tool_result", tool_use_id = "a", is_error = true, content = { { type = "text", text = "1" },
                { type = "image", source = { type = "url", url = "https://i" } } } }, { type = "text", text = "well" } }, list[3].content)
    end)

    it("keeps what an orphan says as text", function()
        local list, dropped = write({ user(text("a"), result("gone", text("42"))), assistant(call("c")), user(result("c", text("1")),
            result("c", text("2"))) })
        assert.same({ { type = "text", text = "a" }, { type = "text", text = "42" } }, list[1].content)
        assert.same({ { type = "tool_result", tool_use_id = "c", content = "1" }, { type = "text", text = "2" } }, list[3].content)
        assert.equal("messages.tool_call_id", dropped)
    end)

    it("makes ids of the characters that ids have, on both sides", function()
        local list = write({ assistant(call("functions.f:0")), user(result("functions.f:0")) })
        assert.equal("functions_f_0", list[1].content[1].id)
        assert.same({ type = "tool_result", tool_use_id = "functions_f_0" }, list[2].content[1])
    end)

    it("makes an object of every input", function()
        local function input(v)
            return write({ assistant({ kind = "call", id = "c", name = "f", input = v }) })[1].content[1].input
        end
        assert.same({ a = 1 }, input(context.doc('{"a":1}')))
        assert.same({ a = 1 }, input('{"a":1}'))
        assert.same({}, input(""))
        assert.same({}, input(nil))
        assert.same({ INVALID_JSON = "{broken" }, input("{broken"))
        assert.same({ INVALID_JSON = "[1]" }, input("[1]"))
    end)

    it("ends a prefill without white space", function()
        assert.equal("so: {", write({ user(text("a")), assistant(text("so: {\n ")) })[2].content)
        assert.equal(1, #write({ user(text("a")), assistant(text(" ")) }))
        local long = ("a" .. (" "):rep(100000)):rep(3)
        assert.equal(#long - 100000, #write({ user(text("a")), assistant(text(long)) })[2].content)
        assert.equal("a ", write({ user(text("a ")) })[1].content)
    end)

    it("takes back only its own thinking", function()
        local list = write({ assistant({ kind = "thinking", text = "w", signature = "S", origin = "anthropic" }, { kind = "thinking", text = "x" },
            { kind = "thinking", text = "y", signature = "G", origin = "gemini" }, { kind = "redacted", data = "R", origin = "anthropic" },
            { kind = "redacted", data = "E", origin = "openai" }, text("a")), user(text("b")) })
        assert.same({ { type = "thinking", thinking = "w", signature = "S" }, { type = "redacted_thinking", data = "R" }, { type = "text",
            text = "a" } },
            list[1].content)
    end)

    it("writes documents as PDF or text", function()
        local function source(part)
            part.kind = "document"
            return write({ user(part) })[1].content[1].source
        end
        assert.same({ type = "base64", media_type = "application/pdf", data = "JVBE" }, source({ data = "JVBE", media_type = "application/pdf" }))
        assert.same({ type = "base64", media_type = "application/pdf", data = "JVBE" }, source({ data = "JVBE" }))
        assert.same({ type = "text", media_type = "text/plain", data = "hi" }, source({ data = "aGk=", media_type = "text/markdown" }))
        assert.same({ type = "text", media_type = "text/plain", data = "w" }, source({ text = "w" }))
        assert.same({ type = "url", url = "https://d" }, source({ url = "https://d" }))
        assert.same({ type = "file", file_id = "f" }, source({ file_id = "f", origin = "anthropic" }))
        local whole = write({ user({ kind = "document", text = "w", title = "T", context = "C", citations = true, cache = true }) })[1].content[1]
        assert.same({ "T", "C", { enabled = true }, { type = "ephemeral" } }, { whole.title, whole.context, whole.citations, whole.cache_control })
    end)

    it("drops what it cannot say", function()
        local function lost(part)
            local ok, raised = pcall(write, { user(part) })
            assert.is_false(ok)
            return raised.param
        end
        assert.equal("messages.content.audio", lost({ kind = "audio", data = "A", format = "wav" }))
        assert.equal("messages.content.video", lost({ kind = "video", url = "https://v" }))
        assert.equal("messages.content.document", lost({ kind = "document", data = "AAAA", media_type = "application/msword" }))
        assert.equal("messages.content.document", lost({ kind = "document", file_id = "f", origin = "openai" }))
        assert.equal("messages.content.image.file_id", lost({ kind = "image", file_id = "f", origin = "openai" }))
        assert.equal("messages.content.hologram", lost({ kind = "other", origin = "openai", what = "hologram", raw = context.doc("{}") }))
        local list, dropped = write({ { role = "user", name = "ann", parts = { { kind = "image", url = "https://i", detail = "high" },
            { kind = "audio", data = "A" } } } }, { lossy = "allow" })
        assert.equal(1, #list[1].content)
        assert.equal("messages.content.image_url.detail,messages.content.audio,messages.name", dropped)
    end)

    it("keeps its own blocks as they were", function()
        local raw = context.doc('{"type":"server_tool_use","id":"s","input":{"b":1.0,"a":2}}')
        local _, list = messages.write({ system = {}, turns = { assistant({ kind = "server_call", raw = raw, origin = "anthropic" }) } },
            context.new())
        assert.equal('[{"content":[{"type":"server_tool_use","id":"s","input":{"b":1.0,"a":2}}],"role":"assistant"}]', json.encode(list))
    end)
end)
