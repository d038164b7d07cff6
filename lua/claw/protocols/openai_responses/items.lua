-- items: parts of an answer as output items. The writer of streams makes the same ones, piece by piece.

local content = require("claw.protocols.openai_responses.content")
local fields = require("claw.protocols.fields")
local json = require("claw.json")
local seal = require("claw.protocols.seal")

local M = {}

-- Citations of a text as annotations. Only those with a URL have a form here.
function M.annotations(citations, text, cx)
    local out = json.array()
    for _, c in ipairs(citations or {}) do
        if c.origin == content.OWN and c.raw then
            out[#out + 1] = c.raw
        elseif c.url then
            local _, length = text:gsub("[^\128-\191]", "")
            out[#out + 1] = { type = "url_citation", url = c.url, title = c.title or "", start_index = c.start or 0,
                end_index = c.finish or length }
        else
            cx.drop("citations", "hint", "the client's protocol cites web pages only")
        end
    end
    return out
end

function M.text(text, annotations, logprobs)
    return { type = "output_text", text = text, annotations = annotations or json.array(),
        logprobs = logprobs or json.array() }
end

function M.refusal(text)
    return { type = "refusal", refusal = text }
end

function M.message(id, status)
    return { id = id, type = "message", role = "assistant", status = status, content = json.array() }
end

function M.reasoning(id, text, secret, origin, redacted)
    return { id = id, type = "reasoning", summary = content.summary(text),
        encrypted_content = secret and seal.seal(secret, origin, content.FAMILY, redacted) or nil }
end

function M.call(id, part, arguments, status, custom, cx)
    if custom then
        return { id = id, type = "custom_tool_call", call_id = part.id, name = part.name, status = status,
            input = arguments ~= "" and content.custom_text(arguments, cx) or "" }
    end
    return { id = id, type = "function_call", call_id = part.id, name = part.name, status = status,
        arguments = arguments }
end

-- An item that is not of text, calls or thinking; nil when it cannot be said.
function M.other(part, cx)
    if part.origin == content.OWN and part.raw then return part.raw end
    if part.kind == "image" and part.data then
        return { id = cx.id("ig_"), type = "image_generation_call", status = "completed", result = part.data,
            output_format = (part.media_type or "image/png"):match("^image/(.+)$") }
    end
    cx.drop("output." .. tostring(part.what or part.kind), "content", "the client's protocol has no such item")
end

local function id_for(part, prefix, cx)
    return part.id and part.id:find("^" .. prefix) and part.id or cx.id(prefix)
end
M.id_for = id_for

-- All items of an answer's parts. custom: names of custom tools; logprobs: of the whole answer, said with the first
-- text.
function M.write(parts, custom, logprobs, cx)
    local out, message = json.array(), nil
    for _, part in ipairs(parts or {}) do
        local kind = part.kind
        if kind == "text" or kind == "refusal" then
            if not message then
                message = M.message(cx.id("msg_"), "completed")
                out[#out + 1] = message
            end
            local said = kind == "refusal" and M.refusal(part.text)
                or M.text(part.text, M.annotations(part.citations, part.text, cx), logprobs)
            if kind == "text" then logprobs = nil end
            table.insert(message.content, said)
        else
            message = nil
            if kind == "call" then
                -- A signature of a call has no field: reasoning that says nothing carries it in front.
                if part.signature then
                    out[#out + 1] = M.reasoning(cx.id("rs_"), "", part.signature, part.origin)
                end
                out[#out + 1] = M.call(cx.id("fc_"), part, content.arguments(part.input), "completed",
                    custom[part.name], cx)
            elseif kind == "thinking" then
                out[#out + 1] = M.reasoning(id_for(part, "rs_", cx), part.text, part.signature, part.origin)
            elseif kind == "redacted" then
                out[#out + 1] = M.reasoning(id_for(part, "rs_", cx), "", part.data, part.origin, true)
            else
                out[#out + 1] = M.other(part, cx)
            end
        end
    end
    return out
end

-- logprobs of the vocabulary as a list, or nil.
function M.logprobs(given)
    local all = fields.list(fields.fields(given).content)
    if #all == 0 then return nil end
    local out = json.array()
    for i = 1, #all do out[i] = all[i] end
    return out
end

return M
