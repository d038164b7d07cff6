-- outgoing: a request of the vocabulary, written for Bedrock's Converse. The model and whether it streams are in the
-- path.

local anthropic = require("claw.protocols.anthropic_messages.messages")
local blocks = require("claw.protocols.bedrock_converse.blocks")
local claude = require("claw.protocols.anthropic_messages.models")
local losses = require("claw.protocols.losses")
local messages = require("claw.protocols.bedrock_converse.messages")
local models = require("claw.protocols.bedrock_converse.models")

local M = {}

local NONE = { "n", "logprobs", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "user",
    "safety_identifier", "metadata",
    "store", "verbosity" }

-- Fields of its own that a client may add.
local OWN = { guardrailConfig = true, performanceConfig = true, requestMetadata = true }

-- ---- tools

-- Calls in the conversation need a toolConfig, also when the request has no tools (any more).
local function write_tools(r, cx)
    local choice, called = r.tool_choice, messages.called(r)
    local tools = {}
    losses.tools(r, cx, function(tool)
        tools[#tools + 1] = { toolSpec = { name = tool.name, strict = tool.strict or nil,
            description = tool.description, inputSchema = { json = losses.schema(tool.schema, cx) } } }
        blocks.point(tool.cache, tools, cx)
        return tool
    end)
    if choice and choice.mode == "none" and tools[1] then
        if not called[1] then return nil end
        cx.drop("tool_choice", "hint", "tools that were called cannot be taken away")
        choice = nil
    end
    if not tools[1] then
        for i, name in ipairs(called) do
            tools[i] = { toolSpec = { name = name, inputSchema = { json = { type = "object", properties = {} } } } }
        end
        choice = nil
    end
    if not tools[1] then return nil end
    if r.parallel == false then cx.drop("parallel_tool_calls", "hint", "it calls as many as it sees fit") end
    local out = { tools = tools }
    if choice then
        local mode = choice.mode
        out.toolChoice = mode == "required" and { any = {} } or mode == "auto" and { auto = {} }
            or mode == "tool" and { tool = { name = choice.name } } or nil
    end
    return out
end

-- ---- reasoning: each family has its own words for it

local BUDGET = { minimal = 1024, low = 2048, medium = 8192, high = 16384, xhigh = 32768 }
local LEVEL = { minimal = "low", low = "low", medium = "medium", high = "high", xhigh = "high" }
local MIN_BUDGET = 1024 -- platform.claude.com, extended thinking

local function level_of(reasoning)
    if LEVEL[reasoning.effort] then return LEVEL[reasoning.effort] end
    local budget = reasoning.budget
    return budget and (budget <= 4096 and "low" or budget <= 12288 and "medium" or "high") or nil
end

local function think_as_claude(r, more, cx)
    local reasoning = r.reasoning
    local mode = r.tool_choice and r.tool_choice.mode
    if mode == "required" or mode == "tool" then return "it cannot be forced to a tool and think" end
    if claude.adaptive(cx.model) then
        local level = level_of(reasoning)
        more.thinking, more.output_config = { type = "adaptive" }, level and { effort = level }
        return nil
    end
    local budget = math.max(reasoning.budget or BUDGET[reasoning.effort] or BUDGET.medium, MIN_BUDGET)
    if r.max_tokens and budget >= r.max_tokens then
        budget = math.max(MIN_BUDGET, math.floor(r.max_tokens * 0.8))
        if budget >= r.max_tokens then return "max_tokens leaves no room for it" end
    end
    if anthropic.lacks_thinking(r) then return "the call it would go on from came without its thinking" end
    more.thinking = { type = "enabled", budget_tokens = budget }
end

local function write_reasoning(r, more, cx)
    local reasoning, why = r.reasoning, nil
    if not reasoning then return end
    if reasoning.off then return end -- none of them reasons unasked, or can be kept from it
    if models.claude(cx.model) then
        why = think_as_claude(r, more, cx)
    elseif models.gpt(cx.model) then
        more.reasoning_effort = level_of(reasoning)
    elseif models.nova(cx.model) then
        more.reasoningConfig = { type = "enabled", maxReasoningEffort = level_of(reasoning) or "medium" }
    else
        why = "this model has no word for it"
    end
    if why then cx.drop("reasoning_effort", "hint", why) end
end

-- ---- sampling

local function write_sampling(r, more, cx)
    local out = { maxTokens = r.max_tokens, temperature = losses.bounded(r.temperature, 0, 1, "temperature", cx),
        topP = r.top_p }
    local is_claude, top_k = models.claude(cx.model), r.top_k
    if more.thinking then -- thinking goes with none of these
        if out.temperature and out.temperature ~= 1 then cx.drop("temperature", "hint", "thinking leaves it alone") end
        if out.topP and out.topP < 0.95 then cx.drop("top_p", "hint", "thinking leaves it alone") end
        if top_k then cx.drop("top_k", "hint", "thinking leaves it alone") end
        out.temperature, top_k = nil, nil
        if out.topP and out.topP < 0.95 then out.topP = nil end
    elseif is_claude and out.temperature and out.topP and claude.one_of_both(cx.model) then
        if out.topP ~= 1 then cx.drop("top_p", "hint", "this model takes temperature or top_p") end
        out.topP = nil
    end
    if top_k and is_claude then
        more.top_k = top_k
    elseif top_k and models.nova(cx.model) then
        more.inferenceConfig = { topK = top_k }
    elseif top_k then
        cx.drop("top_k", "hint", "this model has no word for it")
    end
    local stops = {}
    for _, text in ipairs(r.stop or {}) do
        if text:find("%S") or not is_claude then
            stops[#stops + 1] = text
        else
            cx.drop("stop", "hint", "sequences of white space are refused")
        end
    end
    out.stopSequences = stops[1] and stops or nil
    return next(out) and out or nil
end

local function write_format(format, cx)
    if not format then return nil end
    if format.kind ~= "schema" or not format.schema then
        return cx.drop("response_format", "schema", "it has no JSON mode, only schemas")
    end
    return { textFormat = { type = "json_schema", structure = { jsonSchema = { name = format.name or "answer",
        description = format.description, schema = tostring(format.schema) } } } }
end

local TIER = { default = "default", standard_only = "default", flex = "flex", priority = "priority" }

function M.write(r, cx)
    local out, more = {}, {}
    out.system, out.messages = messages.write(r, cx)
    out.toolConfig = write_tools(r, cx)
    write_reasoning(r, more, cx)
    out.inferenceConfig = write_sampling(r, more, cx)
    out.additionalModelRequestFields = next(more) and more or nil
    out.outputConfig = write_format(r.format, cx)
    if r.stop and models.claude(cx.model) then out.additionalModelResponseFieldPaths = { "/stop_sequence" } end
    local tier = r.service_tier
    if TIER[tier] then
        out.serviceTier = { type = TIER[tier] }
    elseif tier and tier ~= "auto" then
        cx.drop("service_tier", "hint")
    end
    losses.fields(r, NONE, cx)
    losses.system(r, cx, "it goes to the system prompt, in front of all turns")
    losses.rest(r, cx, out, OWN)
    return out
end

return M
