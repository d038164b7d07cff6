-- outgoing: a request of the vocabulary, written for Anthropic's Messages protocol.
--
-- Of the provider's table: `max_output` (the most tokens its models write), `output_format` (true: that is the field of
-- a schema, as it was in the beta).

local losses = require("claw.protocols.losses")
local messages = require("claw.protocols.anthropic_messages.messages")
local models = require("claw.protocols.anthropic_messages.models")

local M = {}

local MAX_TOKENS = 4096 -- the field is required: when neither the client nor the provider's table says
local MIN_BUDGET = 1024 -- platform.claude.com, extended thinking

-- ---- tools

-- A schema must be an object's; a function without parameters has one without properties.
local function schema_of(tool, cx)
    local schema = tool.schema
    if schema and schema.type ~= nil then return schema end
    if not schema or #schema == 0 then return { type = "object", properties = {} } end
    local out = { type = "object" }
    for name, v in cx.each(schema) do out[name] = v end
    return out
end

local function write_tools(r, cx)
    local out = {}
    for _, tool in ipairs(r.tools or {}) do
        if not tool.server then
            out[#out + 1] = messages.marked({ name = tool.name, description = tool.description,
                input_schema = schema_of(tool, cx), strict = tool.strict or nil }, tool.cache)
        elseif tool.origin == "anthropic" then
            out[#out + 1] = tool.server
        else
            losses.server(tool, cx)
        end
    end
    return out[1] and out or nil
end

local CHOICE = { auto = "auto", none = "none", required = "any", tool = "tool" }

local function write_choice(r)
    local choice = r.tool_choice
    local out = choice and { type = CHOICE[choice.mode], name = choice.name }
    if r.parallel == nil or r.parallel and r.dialect ~= "anthropic_messages" then return out end
    out = out or { type = "auto" }
    if out.type ~= "none" then out.disable_parallel_tool_use = not r.parallel end
    return out
end

-- ---- thinking

local BUDGET = { minimal = 1024, low = 2048, medium = 8192, high = 16384, xhigh = 32768 }
local EFFORT = { minimal = "low", low = "low", medium = "medium", high = "high", xhigh = "xhigh" }

local function effort_of(reasoning)
    if EFFORT[reasoning.effort] then return EFFORT[reasoning.effort] end
    local budget = reasoning.budget
    return budget and (budget <= 4096 and "low" or budget <= 12288 and "medium" or "high")
end

-- Thinking with a budget: it must leave room in max_tokens, and the turn it goes on with must begin with thinking.
local function enabled(r, out, cx)
    local budget = r.reasoning.budget or BUDGET[r.reasoning.effort] or BUDGET.medium
    if not r.max_tokens and not cx.provider.max_output then
        out.max_tokens = budget + MAX_TOKENS
    elseif budget >= out.max_tokens then
        budget = math.max(MIN_BUDGET, math.floor(out.max_tokens * 0.8))
    end
    budget = math.max(budget, MIN_BUDGET)
    if budget >= out.max_tokens then return nil, "max_tokens leaves no room for it" end
    if messages.lacks_thinking(r) then return nil, "the call it would go on from came without its thinking" end
    return { type = "enabled", budget_tokens = budget }
end

local function write_thinking(r, out, cx)
    local reasoning = r.reasoning
    if not reasoning then return end
    if reasoning.off then
        out.thinking = { type = "disabled" }
        return
    end
    local why, thinking
    local forced = r.tool_choice and (r.tool_choice.mode == "required" or r.tool_choice.mode == "tool")
    local own = r.dialect == "anthropic_messages"
    if forced and not own then
        why = "it cannot be forced to a tool and think"
    elseif own and reasoning.budget or not models.adaptive(out.model) then
        thinking, why = enabled(r, out, cx)
    else
        thinking = { type = "adaptive" }
        local effort = effort_of(reasoning)
        if effort == "xhigh" and not models.xhigh(out.model) then effort = "high" end
        if effort then out.output_config = { effort = effort } end
    end
    if not thinking then return cx.drop("reasoning_effort", "hint", why) end
    if reasoning.show ~= nil then thinking.display = reasoning.show and "summarized" or "omitted" end
    out.thinking = thinking
end

-- ---- sampling

local function write_sampling(r, out, cx)
    local temperature = r.temperature
    if temperature and temperature > 1 then
        cx.drop("temperature", "hint", "1 is sent, the most there is")
        temperature = 1
    end
    out.temperature, out.top_p, out.top_k = temperature, r.top_p, r.top_k
    if temperature and r.top_p == 1 then out.top_p = nil end -- all of them: it says nothing
    if out.thinking and out.thinking.type ~= "disabled" then -- thinking goes with none of these
        if temperature and temperature ~= 1 then cx.drop("temperature", "hint", "thinking leaves it alone") end
        if r.top_k then cx.drop("top_k", "hint", "thinking leaves it alone") end
        if r.top_p and r.top_p < 0.95 then
            cx.drop("top_p", "hint", "thinking leaves it alone")
            out.top_p = nil
        end
        out.temperature, out.top_k = nil, nil
    end
    if out.temperature and out.top_p and models.one_of_both(out.model) then
        cx.drop("top_p", "hint", "this model takes temperature or top_p")
        out.top_p = nil
    end
end

local function write_stop(r, cx)
    local out = {}
    for _, text in ipairs(r.stop or {}) do
        if text:find("%S") then
            out[#out + 1] = text
        else
            cx.drop("stop", "hint", "sequences of white space are refused")
        end
    end
    return out[1] and out or nil
end

local function write_format(r, out, cx)
    local format = r.format
    if not format then return end
    if format.kind ~= "schema" or not format.schema then
        return cx.drop("response_format", "schema", "it has no JSON mode, only schemas")
    end
    local wanted = { type = "json_schema", schema = format.schema }
    if cx.provider.output_format then -- the field's name while it was a beta
        out.output_format = wanted
    else
        out.output_config = out.output_config or {}
        out.output_config.format = wanted
    end
end

local TIER = { auto = "auto", default = "standard_only", standard_only = "standard_only" }

-- What has no field here: name, class.
local NONE = { { "seed", "hint" }, { "presence_penalty", "hint" }, { "frequency_penalty", "hint" },
    { "logit_bias", "hint" }, { "metadata", "hint" }, { "verbosity", "hint" } }

local function lose(r, cx)
    for _, entry in ipairs(NONE) do
        local v = r[entry[1]]
        if v ~= nil and v ~= 0 then cx.drop(entry[1], entry[2]) end
    end
    if r.n and r.n > 1 then cx.drop("n", "content", "it gives one answer") end
    if r.logprobs then cx.drop("logprobs", "content", "it gives none") end
    if r.store then cx.drop("store", "hint") end
    local names = {}
    for name in pairs(r.rest or {}) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do cx.drop(name, losses.class(name)) end
    losses.system(r, cx, "it goes to the system prompt, in front of all turns")
end

function M.write(r, cx)
    local out = { model = cx.model or r.model, stream = r.stream or nil }
    out.max_tokens = r.max_tokens or cx.provider.max_output or MAX_TOKENS
    out.system, out.messages = messages.write(r, cx)
    if #out.messages == 0 then cx.refuse("there is no message with anything in it", "messages") end
    out.tools = write_tools(r, cx)
    if out.tools then out.tool_choice = write_choice(r) end
    write_thinking(r, out, cx)
    write_sampling(r, out, cx)
    out.stop_sequences = write_stop(r, cx)
    write_format(r, out, cx)
    local user = losses.user(r, cx)
    out.metadata = user and { user_id = user } or nil
    if r.service_tier then
        out.service_tier = TIER[r.service_tier]
        if not out.service_tier then cx.drop("service_tier", "hint") end
    end
    if r.dialect == "anthropic_messages" then
        for name, v in pairs(r.rest or {}) do out[name] = v end
    else
        lose(r, cx)
    end
    if out.output_config and next(out.output_config) == nil then out.output_config = nil end
    return out
end

return M
