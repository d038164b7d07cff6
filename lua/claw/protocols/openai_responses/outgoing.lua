-- outgoing: a request of the vocabulary as a Responses body.

local content = require("claw.protocols.openai_responses.content")
local fields = require("claw.protocols.fields")
local json = require("claw.json")
local losses = require("claw.protocols.losses")
local models = require("claw.protocols.openai_responses.models")
local tools = require("claw.protocols.openai_responses.tools")

local M = {}

local LEAST = 16 -- developers.openai.com, responses.create, max_output_tokens

-- ---- items

local function reasoning(part, input)
    if part.origin ~= content.FAMILY then return end -- of no use here
    local secret = part.signature or part.data
    if not secret then return end
    input[#input + 1] = { type = "reasoning", id = part.id, summary = content.summary(part.text or ""),
        encrypted_content = secret }
end

local function result(part, input, custom, cx)
    if part.error then cx.drop("messages.content.is_error", "hint", "what the result says is kept") end
    if part.cache then cx.drop("cache_control", "hint", "OpenAI caches by itself") end
    local texts, plain = {}, true
    for i, p in ipairs(part.parts or {}) do
        plain = plain and p.kind == "text"
        texts[i] = p.text
    end
    local output = plain and table.concat(texts, "\n") or json.array()
    if not plain then
        for _, p in ipairs(part.parts) do output[#output + 1] = content.write(p, cx) end
    end
    input[#input + 1] = { type = custom[part.id] and "custom_tool_call_output" or "function_call_output",
        call_id = part.id, output = output }
end

local function call(part, input, custom, cx)
    if part.cache then cx.drop("cache_control", "hint", "OpenAI caches by itself") end
    if part.custom then
        custom[part.id] = true
        input[#input + 1] = { type = "custom_tool_call", call_id = part.id, name = part.name,
            input = content.custom_text(part.input, cx) }
        return
    end
    input[#input + 1] = { type = "function_call", call_id = part.id, name = part.name,
        arguments = content.arguments(part.input) }
end

local STATE = { previous_response_id = true, conversation = true, prompt = true }

local function write_turn(turn, input, body, custom, cx)
    local role = turn.role == "system" and "developer" or turn.role
    local message
    if turn.name then cx.drop("messages.name", "hint") end
    for _, part in ipairs(turn.parts) do
        local kind = part.kind
        if kind == "call" or kind == "result" or kind == "thinking" or kind == "redacted" or part.item
            or kind == "server_call" or kind == "server_result" then
            message = nil
        end
        if kind == "call" then
            call(part, input, custom, cx)
        elseif kind == "result" then
            result(part, input, custom, cx)
        elseif kind == "thinking" or kind == "redacted" then
            reasoning(part, input)
        elseif part.origin == content.OWN and STATE[part.what] then
            body[part.what] = part.raw
        elseif part.origin == content.OWN and (part.item or kind == "server_call" or kind == "server_result") then
            input[#input + 1] = part.raw
        else
            local made = content.write(part, cx, role == "assistant")
            if made and not message then
                message = { role = role, content = json.array() }
                input[#input + 1] = message
            end
            if made then table.insert(message.content, made) end
        end
    end
end

local function write_system(r, body, input, cx)
    local texts = {}
    for i, part in ipairs(r.system or {}) do
        if part.kind ~= "text" then
            return write_turn({ role = "system", parts = r.system }, input, body, {}, cx)
        end
        if part.cache then cx.drop("cache_control", "hint", "OpenAI caches by itself") end
        texts[i] = part.text
    end
    if texts[1] then body.instructions = table.concat(texts, "\n\n") end
end

-- ---- fields

local function write_format(r, body)
    local text = { verbosity = r.verbosity }
    local format = r.format
    if format and format.kind == "schema" then
        text.format = { type = "json_schema", name = format.name or "response", description = format.description,
            schema = format.schema, strict = format.strict or false }
    elseif format then
        text.format = { type = "json_object" }
    end
    if next(text) then body.text = text end
end

local function effort_of(asked)
    if asked.off then return "none" end
    if asked.effort or not asked.budget then return asked.effort end
    return asked.budget <= 1024 and "low" or asked.budget <= 8192 and "medium" or "high"
end

local function write_reasoning(r, body, cx)
    local asked, reasons = r.reasoning, models.reasons(cx.model)
    if asked and not reasons then
        if not asked.off and asked.effort ~= "none" then cx.drop("reasoning", "hint", "the model does not reason") end
    elseif asked then
        body.reasoning = { effort = models.effort(cx.model, effort_of(asked)), summary = asked.show and "auto" or nil }
        if not next(body.reasoning) then body.reasoning = nil end
    end
    local include = json.array()
    -- Nothing is kept at OpenAI for a client that speaks another dialect: its reasoning has to come along.
    if reasons and not r.store and not body.previous_response_id and not body.conversation then
        include[1] = "reasoning.encrypted_content"
    end
    if r.logprobs then include[#include + 1] = "message.output_text.logprobs" end
    for _, name in ipairs(r.rest and type(r.rest.include) == "table" and r.rest.include or {}) do
        include[#include + 1] = name
    end
    if include[1] then body.include = include end
    if r.logprobs then body.top_logprobs = r.top_logprobs end
end

local TIER = { auto = true, default = true, flex = true, priority = true, scale = true }

-- What the other dialects have and this one has not, each a hint.
local function drop_hints(r, cx)
    for _, name in ipairs({ "top_k", "seed", "presence_penalty", "frequency_penalty" }) do
        if r[name] and not (r[name] == 0 and name ~= "seed") then cx.drop(name, "hint") end
    end
    if r.stop and r.stop[1] then cx.drop("stop", "hint") end
    if r.n and r.n > 1 then cx.drop("n", "content", "it gives one answer") end
    if r.max_tokens and r.max_tokens < LEAST then
        cx.drop("max_tokens", "hint", ("%d is sent, the least there is"):format(LEAST))
    end
    if r.logit_bias and fields.says(r.logit_bias) then cx.drop("logit_bias", "hint") end
    if r.service_tier and not TIER[r.service_tier] then cx.drop("service_tier", "hint") end
end

local OWN = { truncation = true, prompt_cache_key = true, prompt_cache_retention = true, max_tool_calls = true,
    background = true, context_management = true, moderation = true }

local function write_rest(r, body, cx)
    local names = {}
    for name in pairs(r.rest or {}) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
        if OWN[name] and r.dialect == "openai_chat" or r.dialect == "openai_responses" and name ~= "include" then
            body[name] = r.rest[name]
        elseif name ~= "include" and fields.says(r.rest[name]) then
            cx.drop(name, losses.class(name))
        end
    end
end

function M.write(r, cx)
    local input, custom = json.array(), {}
    local body = { model = cx.model or r.model, input = input, stream = r.stream, temperature = r.temperature,
        top_p = r.top_p, max_output_tokens = r.max_tokens and math.max(r.max_tokens, LEAST), store = r.store or false,
        user = r.user, safety_identifier = r.safety_identifier, metadata = r.metadata and fields.says(r.metadata)
            and r.metadata or nil,
        service_tier = TIER[r.service_tier] and r.service_tier or nil }
    write_system(r, body, input, cx)
    for _, turn in ipairs(r.turns) do write_turn(turn, input, body, custom, cx) end
    local last = r.turns[#r.turns]
    if last and last.role == "assistant" and r.dialect ~= "openai_responses" then
        cx.drop("messages.prefill", "hint", "the answer begins anew, not where the last turn ends")
    end
    tools.write(r, body, cx)
    write_format(r, body)
    write_reasoning(r, body, cx)
    if r.dialect then models.leave_sampling(r, body, cx) end
    drop_hints(r, cx)
    write_rest(r, body, cx)
    return body
end

return M
