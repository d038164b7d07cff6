-- request: an OpenAI chat request, read into the vocabulary.

local content = require("claw.protocols.openai_chat.content")
local fields = require("claw.protocols.fields")
local losses = require("claw.protocols.losses")
local wording = require("claw.protocols.wording")

local M = {}

local word, text_of, number, count, flag = fields.word, fields.text, fields.number, fields.count, fields.flag
local list, object, members = fields.list, fields.object, fields.fields

-- Fields with a name in the vocabulary. Others are the request's `rest`.
local KNOWN = {}
for name in ([[model stream messages tools functions tool_choice function_call parallel_tool_calls max_tokens
    max_completion_tokens temperature top_p top_k stop seed n presence_penalty frequency_penalty logprobs top_logprobs
    logit_bias user safety_identifier metadata service_tier store response_format reasoning_effort reasoning thinking
    verbosity stream_options]]):gmatch("%S+") do
    KNOWN[name] = true
end

local EFFORT = { none = "none", minimal = "minimal", low = "low", medium = "medium", high = "high", xhigh = "xhigh",
    max = "xhigh" }

local EFFORTS = { "reasoning_effort", "reasoning", "thinking" }

M.wording = { max_tokens = { "max_completion_tokens", "max_tokens" }, stop_sequences = "stop",
    reasoning = EFFORTS, reasoning_effort = EFFORTS, tool_choice = { "tool_choice", "function_call" },
    tools = { "tools", "functions" }, ["messages.content.image"] = "messages.content.image_url",
    ["messages.content.document"] = "messages.content.file", ["messages.content.video"] = "messages.content.video_url",
    ["messages.content.audio"] = "messages.content.input_audio", system = "messages.content",
    ["system.image"] = "messages.content.image_url", ["system.document"] = "messages.content.file",
    ["messages.prefill"] = wording.last("messages"), ["messages.system"] = wording.late_system("messages") }

-- ---- messages

local ROLE = {}

local SAID = losses.set("role content name cache_control")
local SAID_BY = { assistant = losses.set([[role content name cache_control refusal tool_calls function_call audio
    reasoning_content reasoning reasoning_details]]),
        tool = losses.set("role content name cache_control tool_call_id") }

-- A mark for the cache on a message is one on the last of its parts.
local function marked(message, parts)
    local last, mark = parts[#parts], content.mark(message)
    if last and mark and not last.cache then last.cache = mark end
end

local function turn(role, message)
    return { role = role, name = word(message.name), parts = {} }
end

function ROLE.user(message, _, cx, at)
    local t = turn("user", message)
    content.read(message.content, t.parts, cx, at)
    marked(message, t.parts)
    return t
end

function ROLE.system(message, state, cx, at)
    local t = turn("system", message)
    content.read(message.content, t.parts, cx, at)
    marked(message, t.parts)
    if state.begun then return t end
    for _, part in ipairs(t.parts) do table.insert(state.system, part) end
end
ROLE.developer = ROLE.system

function ROLE.assistant(message, state, cx, at)
    local t = turn("assistant", message)
    content.read_reasoning(message, t.parts)
    content.read(message.content, t.parts, cx, at)
    if word(message.refusal) then table.insert(t.parts, { kind = "refusal", text = message.refusal }) end
    content.read_calls(message, t.parts, cx, at)
    -- It had no id: the one made for it is given to the result that follows.
    state.legacy = content.read_legacy_call(message, t.parts, cx) or state.legacy
    content.read_audio(message, t.parts)
    marked(message, t.parts)
    return t
end

local function result(message, id, cx, at)
    local part = { kind = "result", id = id, name = word(message.name), parts = {}, cache = content.mark(message) }
    content.read(message.content, part.parts, cx, at)
    return { role = "user", parts = { part } }
end

function ROLE.tool(message, _, cx, at)
    return result(message, word(message.tool_call_id) or cx.id("call_"), cx, at)
end

ROLE["function"] = function(message, state, cx, at)
    return result(message, state.legacy or cx.id("call_"), cx, at)
end

local function read_messages(body, request, cx)
    local messages = fields.array(body.messages)
    if not messages then cx.refuse('"messages" must be a list of messages', "messages") end
    local state = { system = request.system }
    for i = 1, #messages do
        local message = object(messages[i])
        local role = message and ROLE[message.role]
        if not role then
            cx.refuse(("messages[%d] must be an object with role system, developer, user, assistant, tool or function")
                :format(i - 1), "messages")
        end
        losses.extra(message, SAID_BY[message.role] or SAID, cx, "messages[%d]", i - 1)
        local t = role(message, state, cx, i - 1)
        if t then
            state.begun = true
            table.insert(request.turns, t)
        end
    end
end

-- ---- tools

local function read_function(named)
    return { name = text_of(named.name) or "", description = word(named.description), schema = object(named.parameters),
        strict = flag(named.strict) }
end

local TOOL = { type = true, ["function"] = true, cache_control = true }
local FUNCTION = { name = true, description = true, parameters = true, strict = true }

local function read_tools(body, request, cx)
    local tools, given, old = {}, list(body.tools), list(body.functions)
    for i = 1, #given do
        local tool = object(given[i])
        local named = tool and object(tool["function"])
        if named then
            tools[#tools + 1] = read_function(named)
            tools[#tools].cache = content.mark(tool)
            losses.extra(tool, TOOL, cx, "tools[%d]", i - 1)
            losses.extra(named, FUNCTION, cx, "tools[%d].function", i - 1)
        elseif tool then
            tools[#tools + 1] = { server = tool, kind = text_of(tool.type) or "untyped", origin = "openai_chat" }
        end
    end
    for i = 1, #old do
        if object(old[i]) then tools[#tools + 1] = read_function(old[i]) end
    end
    request.tools = tools[1] and tools or nil
    request.legacy = old[1] ~= nil or nil -- its answer calls by function_call
end

-- { type: "allowed_tools", allowed_tools: { mode, tools } }: the others are as good as not given.
local function allow(request, allowed)
    local names, kept, of = {}, {}, list(allowed.tools)
    for i = 1, #of do
        local name = text_of(members(members(of[i])["function"]).name)
        if name then names[name] = true end
    end
    for _, tool in ipairs(request.tools or {}) do
        if names[tool.name] then kept[#kept + 1] = tool end
    end
    request.tools = kept[1] and kept or nil
    return { mode = allowed.mode == "required" and "required" or "auto" }
end

local MODE = { auto = "auto", none = "none", required = "required", any = "required" } -- Mistral says any

local function unknown_choice(cx)
    cx.drop("tool_choice", "tool", "none that others know")
end

local function read_choice(body, request, cx)
    local choice = body.tool_choice
    if not fields.says(choice) then choice = body.function_call end
    if text_of(choice) then
        if not MODE[choice] and choice ~= "" then return unknown_choice(cx) end
        return MODE[choice] and { mode = MODE[choice] } or nil
    end
    choice = object(choice)
    if not choice then return nil end
    if object(choice.allowed_tools) then return allow(request, choice.allowed_tools) end
    local name = word(members(choice["function"]).name) or word(members(choice.custom).name) or word(choice.name)
    if name then return { mode = "tool", name = name } end
    if MODE[choice.type] then return { mode = MODE[choice.type] } end -- as Anthropic's clients say it
    return fields.says(choice) and unknown_choice(cx) or nil
end

-- ---- the rest

local function read_stop(v)
    if text_of(v) then return { v } end
    local out, given = {}, list(v)
    for i = 1, #given do out[#out + 1] = text_of(given[i]) end
    return out[1] and out or nil
end

local function read_format(v, cx)
    local format = members(v)
    if format.type == "json_object" then -- some take a schema there (Together, Fireworks, llama.cpp)
        return object(format.schema) and { kind = "schema", schema = format.schema } or { kind = "json" }
    end
    local schema = format.type == "json_schema" and object(format.json_schema)
    if not schema then
        if word(format.type) and format.type ~= "text" then
            cx.drop("response_format", "schema", ('"%s" is none that others know'):format(format.type))
        end
        return nil
    end
    return { kind = "schema", name = word(schema.name), description = word(schema.description),
        schema = object(schema.schema), strict = flag(schema.strict) }
end

-- reasoning_effort, OpenRouter's reasoning { effort, max_tokens, enabled, exclude }, DeepSeek's thinking { type }.
local function read_reasoning(body, cx)
    local more, thinking = members(body.reasoning), members(body.thinking)
    local effort = word(body.reasoning_effort) or word(more.effort)
    local budget = count(more.max_tokens) or count(thinking.budget_tokens)
    local off = effort == "none" or more.enabled == false or thinking.type == "disabled" or nil
    local on = more.enabled == true or thinking.type == "enabled"
    if not (effort or budget or off or on) then return nil end
    if effort and not EFFORT[effort] then cx.drop("reasoning_effort", "hint", "none that others know") end
    local show
    if flag(more.exclude) ~= nil then show = not more.exclude end
    return { effort = EFFORT[effort], budget = budget, off = off, show = show,
        thinking = object(body.thinking), more = object(body.reasoning) }
end

-- An answer in text is what there is anyway.
local function only_text(modalities)
    return #list(modalities) == 1 and modalities[1] == "text"
end

local function read_rest(body, cx)
    local rest
    for name, v in cx.each(body) do
        if not KNOWN[name] and fields.says(v) and not (name == "modalities" and only_text(v)) then
            rest = rest or {}
            rest[name] = v
        end
    end
    return rest
end

function M.read(body, cx)
    if not object(body) then cx.refuse("the body must be a JSON object") end
    local r = { dialect = "openai_chat", model = text_of(body.model), stream = body.stream == true, system = {},
        turns = {} }
    read_messages(body, r, cx)
    read_tools(body, r, cx)
    r.tool_choice = read_choice(body, r, cx)
    r.parallel = flag(body.parallel_tool_calls)
    if r.legacy then r.parallel = false end -- it knows one call
    r.max_tokens = count(body.max_completion_tokens) or count(body.max_tokens)
    r.temperature, r.top_p, r.top_k = number(body.temperature), number(body.top_p), count(body.top_k)
    r.stop, r.seed, r.n = read_stop(body.stop), number(body.seed), count(body.n)
    r.presence_penalty, r.frequency_penalty = number(body.presence_penalty), number(body.frequency_penalty)
    r.logprobs, r.top_logprobs = flag(body.logprobs), count(body.top_logprobs)
    r.logit_bias = fields.says(body.logit_bias) and object(body.logit_bias) or nil
    r.user, r.safety_identifier = word(body.user), word(body.safety_identifier)
    r.metadata = fields.says(body.metadata) and object(body.metadata) or nil
    r.service_tier, r.store = word(body.service_tier), flag(body.store)
    r.format, r.reasoning = read_format(body.response_format, cx), read_reasoning(body, cx)
    r.verbosity = word(body.verbosity)
    r.include_usage = members(body.stream_options).include_usage == true or nil
    r.rest = read_rest(body, cx)
    return r
end

return M
