-- outgoing: a request of the vocabulary, written for Ollama's chat.

local losses = require("claw.protocols.losses")
local messages = require("claw.protocols.ollama_chat.messages")
local models = require("claw.protocols.ollama_chat.models")

local M = {}

local NONE = { "n", "logit_bias", "user", "safety_identifier", "metadata", "service_tier", "store", "verbosity" }

-- Fields of its own that a client may add.
local OWN = { keep_alive = true, options = true }

-- There is no tool_choice: no tools at all are none, and the one that is named can be the only one.
local function write_tools(r, cx)
    local choice = r.tool_choice
    if choice and choice.mode == "none" then return nil end
    local tools = losses.tools(r, cx, function(tool)
        if tool.cache then cx.drop("cache_control", "hint", "the upstream caches by itself") end
        return { type = "function", ["function"] = { name = tool.name, description = tool.description,
            parameters = losses.schema(tool.schema, cx) } }
    end, true)
    if not tools then return nil end
    if choice and choice.mode ~= "auto" then cx.drop("tool_choice", "tool", "a call cannot be forced") end
    if r.parallel == false then cx.drop("parallel_tool_calls", "hint", "it calls as many as it sees fit") end
    return tools
end

local LEVEL = { minimal = "low", low = "low", medium = "medium", high = "high", xhigh = "high" }

-- What upstreams are told to be able to (`models` of openclaw.yaml) goes before what names say.
local function write_think(r, model, cx)
    local reasoning, thinks = r.reasoning, cx.provider.reasons
    if not reasoning then return nil end
    if thinks == nil then thinks = models.thinks(model) end
    if reasoning.off and thinks then return false end
    if reasoning.off then return nil end
    if not thinks then return cx.drop("reasoning_effort", "hint", "the model does not think") end
    return models.has_levels(model) and LEVEL[reasoning.effort] or true
end

function M.write(r, cx)
    local out = { model = cx.model or r.model, messages = messages.write(r, cx), stream = r.stream == true }
    out.tools = write_tools(r, cx)
    out.think = write_think(r, out.model, cx)
    if r.format then out.format = r.format.kind == "schema" and r.format.schema or "json" end
    out.logprobs, out.top_logprobs = r.logprobs, r.top_logprobs
    losses.fields(r, NONE, cx)
    local own = {} -- an Ollama client's settings of the machine
    if r.dialect == "ollama_chat" then
        for name, v in pairs(r.rest) do
            local option = name:match("^options%.(.+)$")
            if option then own[option] = v else out[name] = v end
        end
    else
        losses.rest(r, cx, out, OWN)
    end
    local options = { num_predict = r.max_tokens, temperature = r.temperature, top_p = r.top_p, top_k = r.top_k,
        stop = r.stop, seed = r.seed, presence_penalty = r.presence_penalty, frequency_penalty = r.frequency_penalty }
    if out.options then -- a client's own (num_ctx …): what both say, the request's fields say
        local given = out.options
        if type(given) == "userdata" and type(given.insert) ~= "function" then
            for name, v in cx.each(given) do
                if options[name] == nil then options[name] = v end
            end
        end
    end
    for name, v in pairs(own) do options[name] = v end
    out.options = next(options) and options or nil
    return out
end

return M
