-- answer: a plain answer of Bedrock's Converse.

local content = require("claw.protocols.bedrock_converse.content")
local errors = require("claw.protocols.bedrock_converse.error")
local fields = require("claw.protocols.fields")
local unfinished = require("claw.protocols.errors").unfinished
local models = require("claw.protocols.bedrock_converse.models")

local M = {}

local word, text_of = fields.word, fields.text
local list, object, members = fields.list, fields.object, fields.fields

local function read_call(given, cx)
    return { kind = "call", id = word(given.toolUseId) or cx.id("tooluse_"), name = text_of(given.name) or "",
        input = object(given.input) or "{}" }
end

local function read_reasoning(given, family)
    local text = object(given.reasoningText)
    if text then
        local signature = word(text.signature)
        return { kind = "thinking", text = text_of(text.text) or "", signature = signature,
            origin = signature and family }
    elseif word(given.redactedContent) then
        return { kind = "redacted", data = given.redactedContent, origin = family }
    end
end

local function read_cited(given)
    local said, cited, texts, all = {}, {}, list(given.content), list(given.citations)
    for i = 1, #texts do said[#said + 1] = text_of(members(texts[i]).text) end
    for i = 1, #all do
        if object(all[i]) then cited[#cited + 1] = content.citation(all[i]) end
    end
    return said[1] and { kind = "text", text = table.concat(said), citations = cited[1] and cited or nil }
end

local function read_block(block, cx)
    if word(block.text) then return { kind = "text", text = block.text } end
    if object(block.toolUse) then return read_call(block.toolUse, cx) end
    if object(block.reasoningContent) then return read_reasoning(block.reasoningContent, models.family(cx.model)) end
    if object(block.citationsContent) then return read_cited(block.citationsContent) end
    for name in cx.each(block) do cx.drop("content." .. name, "content", "it is no text, call or thinking") end
end

function M.read(body, cx)
    body = object(body)
    local message = body and object(members(body.output).message)
    if not message then
        local err = body and errors.find(body)
        if err then return { parts = {}, stop = "error", error = err } end
        return nil, "no message in the upstream's answer"
    end
    local parts, all, called = {}, list(message.content), false
    for i = 1, #all do
        local part = object(all[i]) and read_block(all[i], cx)
        parts[#parts + 1] = part or nil
        called = called or part and part.kind == "call"
    end
    local stop = content.stop(body.stopReason)
    if called and (stop == nil or stop == "end") then stop = "call" end
    return { created = cx.now, parts = parts, stop = stop or "end",
        error = stop == "error" and unfinished(word(body.stopReason)) or nil, stop_text = content.stop_text(body),
        usage = content.usage(body.usage) }
end

return M
