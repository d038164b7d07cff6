-- request: an Anthropic Messages request, read into the vocabulary.

local content = require("claw.protocols.anthropic_messages.content")
local fields = require("claw.protocols.fields")
local losses = require("claw.protocols.losses")
local wording = require("claw.protocols.wording")

local M = {}

local word, text_of, number, count = fields.word, fields.text, fields.number, fields.count
local list, object, members = fields.list, fields.object, fields.fields

local KNOWN = {}
for name in ([[model stream system messages tools tool_choice max_tokens temperature top_p top_k stop_sequences metadata
    thinking output_config output_format service_tier]]):gmatch("%S+") do
    KNOWN[name] = true
end

local EFFORTS = { "thinking", "output_config.effort" }

M.wording = { stop = "stop_sequences", reasoning = EFFORTS, reasoning_effort = EFFORTS,
    response_format = { "output_config.format", "output_format" }, user = "metadata.user_id",
    parallel_tool_calls = "tool_choice.disable_parallel_tool_use",
    ["messages.tool_call_id"] = "messages.content.tool_use_id",
    ["messages.prefill"] = wording.last("messages"), ["messages.system"] = wording.late_system("messages") }

local ROLES = { user = true, assistant = true, system = true }

local MESSAGE = { role = true, content = true }

local function read_messages(body, r, cx)
    local messages = fields.array(body.messages)
    if not messages then cx.refuse('"messages" must be a list of messages', "messages") end
    for i = 1, #messages do
        local message = object(messages[i])
        if not message or not ROLES[message.role] then
            cx.refuse(('messages.%d must be an object with role "user" or "assistant"'):format(i - 1), "messages")
        end
        local turn = { role = message.role, parts = {} }
        losses.extra(message, MESSAGE, cx, "messages[%d]", i - 1)
        content.read(message.content, turn.parts, cx, i - 1)
        if turn.role == "system" and not r.turns[1] then
            for _, part in ipairs(turn.parts) do table.insert(r.system, part) end
        else
            table.insert(r.turns, turn)
        end
    end
end

local TOOL = { type = true, name = true, description = true, input_schema = true, strict = true, cache_control = true }

local function read_tools(body, cx)
    local out, given = {}, list(body.tools)
    for i = 1, #given do
        local tool = object(given[i])
        local kind = tool and word(tool.type)
        if tool and (not kind or kind == "custom") then
            out[#out + 1] = { name = text_of(tool.name) or "", description = word(tool.description),
                schema = object(tool.input_schema), strict = fields.flag(tool.strict), cache = content.mark(tool) }
            losses.extra(tool, TOOL, cx, "tools[%d]", i - 1)
        elseif tool then
            out[#out + 1] = { server = tool, kind = kind, origin = "anthropic" }
        end
    end
    return out[1] and out or nil
end

local MODE = { auto = "auto", none = "none", any = "required" }

local function read_choice(body, r, cx)
    local choice = members(body.tool_choice)
    if choice.type == "tool" and word(choice.name) then
        r.tool_choice = { mode = "tool", name = choice.name }
    elseif MODE[choice.type] then
        r.tool_choice = { mode = MODE[choice.type] }
    elseif word(choice.type) then
        cx.drop("tool_choice", "tool", "none that others know")
    end
    if fields.flag(choice.disable_parallel_tool_use) ~= nil then r.parallel = not choice.disable_parallel_tool_use end
end

local function read_stop(v)
    local out, given = {}, list(v)
    for i = 1, #given do out[#out + 1] = text_of(given[i]) end
    return out[1] and out or nil
end

local EFFORT = { low = "low", medium = "medium", high = "high", xhigh = "xhigh", max = "xhigh" }

-- thinking { type: enabled (with a budget) | adaptive (as it sees fit) | disabled }, output_config.effort.
local function read_reasoning(body)
    local thinking, effort = members(body.thinking), EFFORT[members(body.output_config).effort]
    local show
    if word(thinking.display) then show = thinking.display ~= "omitted" end
    if thinking.type == "disabled" then return { off = true, effort = effort } end
    if thinking.type == "enabled" then
        return { budget = count(thinking.budget_tokens), effort = effort, show = show }
    elseif thinking.type == "adaptive" or effort then
        return { effort = effort, show = show }
    end
end

local CONFIG = { effort = true, format = true }

local function lose_config(body, cx)
    local config = object(body.output_config)
    if not config then return end
    for name, v in cx.each(config) do
        if not CONFIG[name] and fields.says(v) then cx.drop("output_config." .. name, "hint") end
    end
end

-- output_config.format, which was output_format while it was a beta (anthropic-beta: structured-outputs-2025-11-13).
local function read_format(body)
    local format = object(members(body.output_config).format) or object(body.output_format)
    if not format or format.type ~= "json_schema" then return nil end
    return { kind = "schema", schema = object(format.schema), strict = true }
end

local function read_rest(body, cx)
    local rest
    for name, v in cx.each(body) do
        if not KNOWN[name] and fields.says(v) then
            rest = rest or {}
            rest[name] = v
        end
    end
    return rest
end

function M.read(body, cx)
    if not object(body) then cx.refuse("the body must be a JSON object") end
    local r = { dialect = "anthropic_messages", model = text_of(body.model), stream = body.stream == true, system = {},
        turns = {} }
    lose_config(body, cx)
    content.read(body.system, r.system, cx, -1)
    read_messages(body, r, cx)
    r.tools = read_tools(body, cx)
    read_choice(body, r, cx)
    r.max_tokens, r.temperature = count(body.max_tokens), number(body.temperature)
    r.top_p, r.top_k, r.stop = number(body.top_p), count(body.top_k), read_stop(body.stop_sequences)
    r.user, r.service_tier = word(members(body.metadata).user_id), word(body.service_tier)
    r.reasoning, r.format, r.rest = read_reasoning(body), read_format(body), read_rest(body, cx)
    return r
end

return M
