-- answer: a whole response object, read and written; stop reasons and usage for streams too.

local content = require("claw.protocols.openai_responses.content")
local errors = require("claw.protocols.openai_responses.error")
local fields = require("claw.protocols.fields")
local items = require("claw.protocols.openai_responses.items")
local json = require("claw.json")
local tools = require("claw.protocols.openai_responses.tools")

local M = {}

local word, count, object, list, members = fields.word, fields.count, fields.object, fields.list, fields.fields
local null = json.null

-- ---- reading

local INCOMPLETE = { max_output_tokens = "length", max_tokens = "length", content_filter = "filter" }

-- The stop of a response; calls, refused: has it any?
function M.stop(response, calls, refused)
    if response.status == "incomplete" then
        return INCOMPLETE[members(response.incomplete_details).reason] or "length"
    end
    if response.status == "failed" or response.status == "cancelled" then return "error" end
    return calls and "call" or refused and "refusal" or "end"
end

function M.read_usage(u)
    u = object(u)
    local input = u and count(u.input_tokens)
    if not input then return nil end
    local given, made = members(u.input_tokens_details), members(u.output_tokens_details)
    return { input = input, output = count(u.output_tokens) or 0, cached = count(given.cached_tokens),
        cache_write = count(given.cache_write_tokens), reasoning = count(made.reasoning_tokens),
        audio_input = count(given.audio_tokens), audio_output = count(made.audio_tokens) }
end

-- Adds the parts that an output item says to `out`, and its logprobs to `logprobs`.
function M.read_item(item, out, logprobs, cx)
    local kind = word(item.type)
    if kind == "message" then
        content.read(item.content, out)
        local all = list(item.content)
        for i = 1, #all do
            local some = list(members(all[i]).logprobs)
            for j = 1, #some do logprobs[#logprobs + 1] = some[j] end
        end
    elseif kind == "function_call" then
        out[#out + 1] = content.read_call(item, cx)
    elseif kind == "custom_tool_call" then
        out[#out + 1] = content.read_custom_call(item, cx)
    elseif kind == "reasoning" then
        out[#out + 1] = content.read_reasoning(item, cx.provider.family)
    elseif kind == "image_generation_call" and word(item.result) then
        local format = word(item.output_format) or "png"
        out[#out + 1] = { kind = "image", data = item.result, media_type = "image/" .. format }
    elseif kind then
        local server = kind:find("_call$") or kind:find("^mcp_")
        out[#out + 1] = { kind = server and "server_call" or "other", raw = item, origin = content.OWN, what = kind }
    end
end

function M.read(body, cx)
    body = object(body)
    if not body then return nil, "the upstream's answer is no object" end
    local out = { id = word(body.id), model = word(body.model), created = count(body.created_at), parts = {},
        usage = M.read_usage(body.usage), service_tier = word(body.service_tier) }
    local err = body.status == "failed" and errors.failed(body) or fields.says(body.error) and errors.find(body)
    if err then
        out.error, out.stop = err, "error"
        return out
    end
    if not fields.array(body.output) then return nil, "no output in the upstream's answer" end
    local logprobs, calls, refused = json.array(), false, false
    for i = 1, #body.output do
        if object(body.output[i]) then M.read_item(body.output[i], out.parts, logprobs, cx) end
    end
    for _, part in ipairs(out.parts) do
        calls, refused = calls or part.kind == "call", refused or part.kind == "refusal"
    end
    out.logprobs = logprobs[1] and { content = logprobs } or nil
    out.stop = M.stop(body, calls, refused)
    return out
end

-- ---- writing

function M.write_usage(u)
    return { input_tokens = u.input or 0, output_tokens = u.output or 0,
        total_tokens = (u.input or 0) + (u.output or 0),
        input_tokens_details = { cached_tokens = u.cached or 0, cache_write_tokens = u.cache_write or 0 },
        output_tokens_details = { reasoning_tokens = u.reasoning or 0 } }
end

local function instructions(r)
    local texts = {}
    for _, part in ipairs(r.system or {}) do texts[#texts + 1] = part.kind == "text" and part.text or nil end
    return texts[1] and table.concat(texts, "\n\n") or null
end

local function format(r)
    local asked = r.format
    if not asked then return { type = "text" } end
    if asked.kind == "json" then return { type = "json_object" } end
    return { type = "json_schema", name = asked.name or "response", description = asked.description or null,
        schema = asked.schema, strict = asked.strict or false }
end

local function or_null(v)
    if v == nil then return null end
    return v
end

-- The tiers its clients know (others have words of their own: Groq's on_demand).
local TIER = { auto = true, default = true, flex = true, priority = true, scale = true }

-- A response that has nothing yet. It repeats what was asked, as clients' types want.
function M.head(given, cx)
    local r = cx.request or {}
    local reasoning = r.reasoning or {}
    local listed, choice = tools.echo(r)
    local id = given.id and given.id:gsub("[^%w_-]", "") or ""
    if id == "" then id = cx.id("resp_") elseif not id:find("^resp_") then id = "resp_" .. id end
    return { id = id, object = "response", created_at = given.created or cx.now, status = "in_progress",
        background = false, error = null, incomplete_details = null, instructions = instructions(r),
        max_output_tokens = or_null(r.max_tokens), model = given.model or cx.model or "", output = json.array(),
        parallel_tool_calls = r.parallel ~= false, previous_response_id = null,
        reasoning = { effort = or_null(reasoning.effort), summary = reasoning.show and "auto" or null }, store = false,
        temperature = or_null(r.temperature), text = { format = format(r), verbosity = r.verbosity or "medium" },
        tool_choice = choice, tools = listed, top_logprobs = r.top_logprobs or 0, top_p = or_null(r.top_p),
        truncation = "disabled", usage = null, user = or_null(r.user), metadata = r.metadata or {},
        service_tier = TIER[given.service_tier] and given.service_tier or "default" }
end

local REASON = { length = "max_output_tokens", context = "max_output_tokens", filter = "content_filter" }

-- Says in a response how it ended; its status. A refusal that has no words is told as what it was filtered for.
function M.finish(response, stop, usage, err)
    local reason = REASON[stop] or stop == "refusal" and #response.output == 0 and "content_filter" or nil
    response.status = (err or stop == "error") and "failed" or reason and "incomplete" or "completed"
    if reason then response.incomplete_details = { reason = reason } end
    if response.status == "failed" then
        response.error = errors.inner(err or { kind = "server", message = "the model could not finish its answer" })
    end
    if usage then response.usage = M.write_usage(usage) end
    return response.status
end

function M.write(answer, cx)
    local out = M.head(answer, cx)
    out.output = items.write(answer.parts, tools.custom(cx.request), items.logprobs(answer.logprobs), cx)
    if M.finish(out, answer.stop, answer.usage, answer.error) == "incomplete" then
        local last = out.output[#out.output]
        if type(last) == "table" and last.type == "message" then last.status = "incomplete" end
    end
    return out
end

return M
