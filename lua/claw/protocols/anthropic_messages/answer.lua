-- answer: a plain answer of Anthropic's Messages protocol, read and written.

local content = require("claw.protocols.anthropic_messages.content")
local errors = require("claw.protocols.anthropic_messages.error")
local fields = require("claw.protocols.fields")
local json = require("claw.json")

local M = {}

local word, members = fields.word, fields.fields

local TIER = { standard = "default" } -- as OpenAI says it

function M.read(body, cx)
    if not fields.object(body) then return nil, "no message in the upstream's answer" end
    local err = body.type == "error" and errors.find(body)
    if err then return { parts = {}, stop = "error", error = err } end
    if not fields.array(body.content) then return nil, "no content in the upstream's answer" end
    local parts = {}
    content.read(body.content, parts, cx)
    local usage = members(body.usage)
    local out = { id = word(body.id), model = word(body.model), created = cx.now, parts = {},
        stop = content.read_stop(body.stop_reason) or "end", stop_text = word(body.stop_sequence),
        usage = content.read_usage(usage), service_tier = TIER[usage.service_tier] or word(usage.service_tier) }
    for _, part in ipairs(parts) do
        if part.kind ~= "text" or part.text ~= "" then table.insert(out.parts, part) end
    end
    return out
end

-- ---- writing

local WRITE = {}

local function citations(part, cx)
    local out = {}
    for _, c in ipairs(part.citations or {}) do
        local written = content.write_citation(c)
        out[#out + 1] = written
        if not written then cx.drop("citations", "hint", "the client's protocol has no such citation") end
    end
    return out[1] and out or nil
end

function WRITE.text(part, out, cx)
    out[#out + 1] = { type = "text", text = part.text, citations = citations(part, cx) }
end

function WRITE.refusal(part, out)
    out[#out + 1] = { type = "text", text = part.text }
end

function WRITE.thinking(part, out)
    out[#out + 1] = { type = "thinking", thinking = part.text,
        signature = part.signature and content.seal(part.signature, part.origin) or "" }
end

function WRITE.redacted(part, out)
    out[#out + 1] = { type = "redacted_thinking", data = content.seal(part.data, part.origin) }
end

function WRITE.call(part, out, cx)
    if part.signature then
        out[#out + 1] = { type = "thinking", thinking = "", signature = content.seal(part.signature, part.origin) }
    end
    out[#out + 1] = { type = "tool_use", id = part.id, name = part.name, input = content.input(part.input, cx) }
end

local function own(part, out, cx)
    if part.origin == "anthropic" and part.raw then
        out[#out + 1] = part.raw
    else
        cx.drop("content." .. tostring(part.what or part.kind), "hint", "the client's protocol has no such part")
    end
end

-- A part as blocks, added to `out`.
function M.write_part(part, out, cx)
    (WRITE[part.kind] or own)(part, out, cx)
end

function M.write(answer, cx)
    if answer.error then return errors.write(answer.error) end
    local blocks = json.array()
    for _, part in ipairs(answer.parts) do M.write_part(part, blocks, cx) end
    if answer.choices and answer.choices[2] then cx.drop("choices", "hint", "the client's protocol has one answer") end
    if answer.logprobs then cx.drop("logprobs", "hint", "the client's protocol has none") end
    return { id = answer.id or cx.id("msg_"), type = "message", role = "assistant", model = answer.model or cx.model,
        content = blocks, stop_reason = content.write_stop(answer.stop), stop_sequence = answer.stop_text or json.null,
        usage = content.write_usage(answer.usage or {}) }
end

return M
