-- outgoing: a request of the vocabulary, written for Cohere's chat.

local losses = require("claw.protocols.losses")
local messages = require("claw.protocols.cohere_chat.messages")

local M = {}

-- Bounds and counts: docs.cohere.com, v2/chat.
local MAX_STOPS = 5
local TOP_P = { 0.01, 0.99 }
local TOP_K = { 0, 500 }

local NONE = { "n", "logprobs", "logit_bias", "user", "safety_identifier", "metadata", "service_tier", "store",
    "verbosity" }

-- Fields of its own that a client may add.
local OWN = { safety_mode = true, citation_options = true, priority = true, documents = true }

local CHOICE = { required = "REQUIRED", tool = "REQUIRED", none = "NONE" }

local function write_tools(r, out, cx)
    local strict
    out.tools = losses.tools(r, cx, function(tool)
        strict = strict or tool.strict
        if tool.cache then cx.drop("cache_control", "hint", "the upstream caches by itself") end
        return { type = "function", ["function"] = { name = tool.name, description = tool.description,
            parameters = losses.schema(tool.schema, cx) } }
    end, true)
    if not out.tools then return end
    out.strict_tools = strict or nil
    out.tool_choice = r.tool_choice and CHOICE[r.tool_choice.mode]
    if r.parallel == false then cx.drop("parallel_tool_calls", "hint", "it calls as many as it sees fit") end
end

local function write_format(format)
    if not format then return nil end
    return { type = "json_object", json_schema = format.kind == "schema" and format.schema or nil }
end

-- The models from before those that reason: they refuse to be asked for it.
local function reasons(model)
    local name = model or ""
    return not (name:find("^command%-r") or name:find("^command%-a%-03") or name:find("^command%-a%-vision")
        or name:find("^command%-a%-translate") or name:find("^c4ai") or name == "command" or name:find("^command%-l"))
end

local BUDGET = { minimal = 1024, low = 2048, medium = 8192, high = 16384, xhigh = 32768 }

local function write_thinking(r, out, cx)
    local reasoning = r.reasoning
    if not reasoning then return end
    if not reasons(out.model) then
        if not reasoning.off then cx.drop("reasoning_effort", "hint", "this model does not reason") end
    elseif reasoning.off then
        out.thinking = { type = "disabled" }
    else
        out.thinking = { type = "enabled", token_budget = reasoning.budget or BUDGET[reasoning.effort] }
    end
end

function M.write(r, cx)
    local out = { model = cx.model or r.model, stream = r.stream == true }
    out.messages, out.documents = messages.write(r, cx)
    write_tools(r, out, cx)
    out.max_tokens, out.temperature, out.seed = r.max_tokens, r.temperature, r.seed
    out.p = losses.bounded(r.top_p, TOP_P[1], TOP_P[2], "top_p", cx)
    out.k = losses.bounded(r.top_k, TOP_K[1], TOP_K[2], "top_k", cx)
    out.presence_penalty = losses.bounded(r.presence_penalty, 0, 1, "presence_penalty", cx)
    out.frequency_penalty = losses.bounded(r.frequency_penalty, 0, 1, "frequency_penalty", cx)
    out.stop_sequences = losses.stops(r, MAX_STOPS, cx)
    out.response_format = write_format(r.format)
    write_thinking(r, out, cx)
    losses.fields(r, NONE, cx)
    local given = out.documents
    losses.rest(r, cx, out, OWN)
    if given and out.documents ~= given then -- the client's own list, and what its messages hold
        out.documents = given
        cx.drop("documents", "content", "its messages hold documents too")
    end
    return out
end

return M
