-- Is a stream legal in its dialect? gemini(list), openai_responses(list), of { type, data }: as stream_rules has it for
-- the others, nil or what is wrong and where, and what the stream says as a whole.

local json = require("claw.json")

local M = {}

local function wrong(at, message, ...)
    return ("event %d: %s"):format(at, message:format(...))
end

local function said()
    return { text = "", thinking = "", refusal = "", calls = {}, signatures = {}, redacted = {}, annotations = {} }
end

-- ---- Gemini

local PART = { text = "string", thought = "boolean", thoughtSignature = "string", functionCall = "table" }

local function gemini_part(part, out)
    for key, v in pairs(part) do
        if PART[key] and type(v) ~= PART[key] then return "a part's " .. key end
    end
    if part.thoughtSignature then table.insert(out.signatures, part.thoughtSignature) end
    if part.functionCall then
        local call = part.functionCall
        if type(call.name) ~= "string" or type(call.args) ~= "table" or json.is_array(call.args) then return "no call" end
        table.insert(out.calls, { id = call.id, name = call.name, input = call.args })
    elseif part.thought then
        out.thinking = out.thinking .. part.text
    else
        out.text = out.text .. (part.text or "")
    end
end

-- n: which candidate is put together (0).
function M.gemini(list, n)
    local out, finished, id, last = said(), {}, nil, nil
    for at, e in ipairs(list) do
        if e.type then return wrong(at, "has a type") end
        local body = json.decode(e.data)
        if type(body) ~= "table" then return wrong(at, "no JSON: %s", e.data) end
        if out.error then return wrong(at, "behind an error") end
        if body.error then
            if type(body.error.message) ~= "string" or type(body.error.code) ~= "number" then return wrong(at, "no error") end
            out.error = body.error
        else
            id = id or body.responseId
            if type(id) ~= "string" or body.responseId ~= id or type(body.modelVersion) ~= "string" then
                return wrong(at, "no head")
            end
            for _, candidate in ipairs(body.candidates) do
                if finished[candidate.index] then return wrong(at, "candidate %d is finished", candidate.index) end
                finished[candidate.index] = candidate.finishReason
                if candidate.content.role ~= "model" or not json.is_array(candidate.content.parts) then
                    return wrong(at, "no content")
                end
                for _, part in ipairs(candidate.content.parts) do
                    local problem = gemini_part(part, candidate.index == (n or 0) and out or said())
                    if problem then return wrong(at, problem) end
                end
                if candidate.index == (n or 0) and candidate.groundingMetadata then out.grounding = candidate.groundingMetadata end
            end
            if body.usageMetadata then
                if out.usage then return wrong(at, "usage twice") end
                out.usage = body.usageMetadata
            end
            last = body.candidates
        end
    end
    if not out.error and not (last and last[1] and last[1].finishReason) then return wrong(#list, "no finishReason") end
    out.stop = finished[n or 0]
    return nil, out
end

-- ---- Responses

-- Where an event belongs: fields it must have beside type and sequence_number.
local PLACE = {
    ["response.output_item.added"] = { "output_index", "item" }, ["response.output_item.done"] = { "output_index", "item" },
    ["response.content_part.added"] = { "item_id", "output_index", "content_index", "part" },
    ["response.content_part.done"] = { "item_id", "output_index", "content_index", "part" },
    ["response.output_text.delta"] = { "item_id", "output_index", "content_index", "delta", "logprobs" },
    ["response.output_text.done"] = { "item_id", "output_index", "content_index", "text", "logprobs" },
    ["response.output_text.annotation.added"] = { "item_id", "output_index", "content_index", "annotation_index", "annotation" },
    ["response.refusal.delta"] = { "item_id", "output_index", "content_index", "delta" },
    ["response.refusal.done"] = { "item_id", "output_index", "content_index", "refusal" },
    ["response.reasoning_summary_part.added"] = { "item_id", "output_index", "summary_index", "part" },
    ["response.reasoning_summary_part.done"] = { "item_id", "output_index", "summary_index", "part" },
    ["response.reasoning_summary_text.delta"] = { "item_id", "output_index", "summary_index", "delta" },
    ["response.reasoning_summary_text.done"] = { "item_id", "output_index", "summary_index", "text" },
    ["response.function_call_arguments.delta"] = { "item_id", "output_index", "delta" },
    ["response.function_call_arguments.done"] = { "item_id", "output_index", "arguments" },
    ["response.custom_tool_call_input.delta"] = { "item_id", "output_index", "delta" },
    ["response.custom_tool_call_input.done"] = { "item_id", "output_index", "input" },
}

local HEAD = { "id", "object", "created_at", "status", "error", "incomplete_details", "instructions", "metadata", "model",
    "output", "parallel_tool_calls", "temperature", "tool_choice", "tools", "top_p", "usage" }

local function same(a, b)
    return json.encode(a) == json.encode(b)
end

local function item_event(kind, e, items, out)
    local item = items[e.output_index]
    if kind == "response.output_item.added" then
        if item then return "an output_index again" end
        if e.output_index ~= #items + (items[0] and 1 or 0) then return "output_index out of order" end
        if type(e.item.id) ~= "string" and e.item.type ~= "reasoning" then return "an item without id" end
        items[e.output_index] = { item = e.item, parts = {} }
        return nil
    end
    if not item or item.over then return "an item that is not open" end
    if e.item_id and e.item_id ~= item.item.id then return "another item_id" end
    if kind == "response.output_item.done" then
        for _, part in pairs(item.parts) do
            if not part.over then return "an item's end with a part open" end
        end
        if item.said and item.item.type == "function_call" and e.item.arguments ~= item.said then return "other arguments" end
        item.over, item.item = true, e.item
        return nil
    end
    local index = e.content_index or e.summary_index
    local part = index and item.parts[index]
    if kind:find("part%.added$") then
        if part then return "a part again" end
        item.parts[index] = { said = "" }
    elseif index and (not part or part.over) then
        return "a part that is not open"
    elseif kind:find("annotation") then
        table.insert(out.annotations, e.annotation)
    elseif kind:find("%.delta$") then
        if e.delta == "" then return "an empty delta" end
        if part then part.said = part.said .. e.delta else item.said = (item.said or "") .. e.delta end
        if kind:find("output_text") then out.text = out.text .. e.delta end
        if kind:find("refusal") then out.refusal = out.refusal .. e.delta end
        if kind:find("summary") then out.thinking = out.thinking .. e.delta end
    elseif kind:find("part%.done$") then
        if not part.done then return "a part's end before its text's" end
        if (e.part.text or e.part.refusal) ~= part.said then return "a part that says something else" end
        part.over = true
    elseif part then
        if (e.text or e.refusal) ~= part.said then return "a text that says something else" end
        part.done = true
    end
end

function M.openai_responses(list)
    local out, items, head, sequence = said(), {}, nil, 0
    for at, e in ipairs(list) do
        local event = json.decode(e.data)
        if type(event) ~= "table" or event.type ~= e.type then return wrong(at, "type and data differ") end
        if event.sequence_number ~= sequence then return wrong(at, "number %s", tostring(event.sequence_number)) end
        sequence = sequence + 1
        if out.status then return wrong(at, "behind the end") end
        local final = e.type:match("^response%.(%l+)$")
        if e.type == "error" then
            if type(event.message) ~= "string" then return wrong(at, "no message") end
            out.error = { message = event.message, code = event.code }
        elseif e.type == "response.created" then
            if at ~= 1 then return wrong(at, "not first") end
            head = event.response
        elseif not head then
            return wrong(at, "before the start")
        elseif e.type == "response.in_progress" then
            if at ~= 2 then return wrong(at, "not second") end
        elseif final == "completed" or final == "incomplete" or final == "failed" then
            for _, key in ipairs(HEAD) do
                if event.response[key] == nil then return wrong(at, "a response without %s", key) end
            end
            if event.response.id ~= head.id or event.response.status ~= final then return wrong(at, "another response") end
            out.status, out.response, out.usage = final, event.response, event.response.usage
            for i, item in ipairs(event.response.output) do
                local known = items[i - 1]
                if not known or final ~= "failed" and not known.over then return wrong(at, "item %d is not over", i - 1) end
                if known.over and not same(known.item, item) then return wrong(at, "item %d is another", i - 1) end
            end
            if event.response.output[1] == nil and items[0] then return wrong(at, "no output") end
        else
            local place = PLACE[e.type]
            if not place then return wrong(at, "unknown %s", e.type) end
            for _, key in ipairs(place) do
                if event[key] == nil then return wrong(at, "%s without %s", e.type, key) end
            end
            local problem = item_event(e.type, event, items, out)
            if problem then return wrong(at, problem) end
        end
    end
    if not out.status and not out.error then return wrong(#list, "no end") end
    for _, item in ipairs(out.response and out.response.output or {}) do
        if item.type == "function_call" then
            table.insert(out.calls, { id = item.call_id, name = item.name, input = item.arguments })
        elseif item.type == "reasoning" and item.encrypted_content then
            table.insert(out.signatures, item.encrypted_content)
        end
    end
    out.stop = out.status
    return nil, out
end

function M.ollama_chat(list)
    local out, done = { text = "", thinking = "", calls = {} }, false
    for at, e in ipairs(list) do
        if done then return wrong(at, "behind the end") end
        if e.type or e.data:find("\n", 1, true) then return wrong(at, "no line") end
        local line = json.decode(e.data)
        if type(line) ~= "table" then return wrong(at, "no JSON: %s", e.data) end
        if line.error then
            if type(line.error) ~= "string" then return wrong(at, "an error without a message") end
            out.error, done = line.error, true
        else
            local message = line.message
            if type(line.model) ~= "string" or not tostring(line.created_at):find("^%d+%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$") then
                return wrong(at, "no head")
            end
            if type(message) ~= "table" or message.role ~= "assistant" or type(message.content) ~= "string" then
                return wrong(at, "no message")
            end
            out.text, out.thinking = out.text .. message.content, out.thinking .. (message.thinking or "")
            for _, call in ipairs(message.tool_calls or {}) do
                if call["function"].index ~= #out.calls then return wrong(at, "call %d out of order", call["function"].index) end
                if type(call["function"].arguments) ~= "table" then return wrong(at, "arguments that are no object") end
                table.insert(out.calls, { id = call.id, name = call["function"].name, input = call["function"].arguments })
            end
            if line.done then
                if message.content ~= "" or message.tool_calls then return wrong(at, "the last line says something") end
                if type(line.done_reason) ~= "string" then return wrong(at, "no reason") end
                done, out.stop, out.usage = true, line.done_reason, { line.prompt_eval_count, line.eval_count }
            elseif line.eval_count then
                return wrong(at, "usage before the end")
            end
        end
    end
    if not done then return wrong(#list, "no last line") end
    return nil, out
end

return M
