local context = require("claw.protocols.context")
local document = require("openclaw.document")
local json = require("claw.json")
local meaning = require("support.meaning")
local protocols = require("claw.protocols")
local whole = require("claw.protocols.whole")

local function cx()
    return context.new({ unique = "abcdefghijklmnop", decode = json.decode, model = "m", asked = "m", now = 5,
        request = { turns = {} }, parse = function(text)
            local made = json.decode(text)
            return type(made) == "table" and document.new(made) or nil
        end })
end

local ANSWER = { id = "a1", model = "m", created = 5, stop = "call", usage = { input = 3, output = 4 }, parts = {
    { kind = "thinking", text = "Hm.", signature = "s", origin = "anthropic" },
    { kind = "redacted", data = "x", origin = "anthropic" },
    { kind = "text", text = "Hello." },
    { kind = "call", id = "c1", name = "f", input = '{"a":[]}' },
    { kind = "call", id = "c2", name = "g", input = "{}" },
} }

local function there_and_back(answer)
    local gathered = whole.gather(cx())
    for _, event in ipairs(whole.events(answer)) do gathered:add(event) end
    return gathered:answer()
end

describe("claw.protocols.whole", function()
    it("keeps an answer's meaning there and back", function()
        assert.same(meaning.answer(ANSWER, { secrets = true }), meaning.answer(there_and_back(ANSWER), { secrets = true }))
    end)

    it("closes each part before the stop, and ends", function()
        local open, seen = 0, {}
        for _, event in ipairs(whole.events(ANSWER)) do
            if event.on == "part" then open = open + 1 end
            if event.on == "part_end" then open = open - 1 end
            if event.on == "stop" or event.on == "usage" then assert.equal(0, open) end
            seen[#seen + 1] = event.on
        end
        assert.same({ "start", "usage", "stop", "end" }, { seen[1], seen[#seen - 2], seen[#seen - 1], seen[#seen] })
    end)

    it("keeps choices, citations and log probabilities", function()
        local back = there_and_back({ id = "a", choices = {
            { parts = { { kind = "text", text = "x", citations = { { url = "u" } } } }, stop = "end",
                logprobs = { content = { { token = "x" } } } },
            { parts = { { kind = "refusal", text = "no" } }, stop = "refusal" } } })
        assert.equal("u", back.parts[1].citations[1].url)
        assert.equal("x", meaning.plain(back.logprobs or back.choices[1].logprobs).content[1].token)
        assert.same({ "refusal", "no" }, { back.choices[2].stop, back.choices[2].parts[1].text })
    end)

    for _, name in ipairs({ "openai_chat", "openai_responses", "anthropic_messages", "gemini_generate" }) do
        it("is written by " .. name, function()
            local protocol, at = protocols.get(name), cx()
            local writer, said = protocol.writer(at), 0
            for _, event in ipairs(whole.events(ANSWER)) do said = said + #(writer(event) or {}) end
            assert.is_true(said >= 1)
            local gathered, reader = whole.gather(at), protocol.reader(at)
            writer = protocol.writer(at)
            for _, event in ipairs(whole.events(ANSWER)) do
                for _, made in ipairs(writer(event) or {}) do
                    local data = type(made.data) == "string" and made.data or json.encode(made.data)
                    for _, one in ipairs(reader({ type = made.type or "", data = data }) or {}) do gathered:add(one) end
                end
            end
            local back = meaning.answer(gathered:answer())
            local expected = meaning.answer(ANSWER)
            back.id, expected.id, back.usage, expected.usage = nil, nil, nil, nil
            for _, part in ipairs(back.parts) do part.id = nil end
            for _, part in ipairs(expected.parts) do part.id = nil end
            assert.same(expected.parts, back.parts)
            assert.equal(expected.stop, back.stop)
        end)
    end
end)
