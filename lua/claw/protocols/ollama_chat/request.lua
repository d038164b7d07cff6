-- request: an Ollama client's chat request as a request of the vocabulary.

local fields = require("claw.protocols.fields")
local losses = require("claw.protocols.losses")
local wording = require("claw.protocols.wording")

local M = {}

local word, text_of, number, count, flag = fields.word, fields.text, fields.number, fields.count, fields.flag
local list, object = fields.list, fields.object

local KNOWN = losses.set("model messages tools format options stream think logprobs top_logprobs")

M.wording = { max_tokens = "options.num_predict", temperature = "options.temperature", top_p = "options.top_p",
    top_k = "options.top_k", seed = "options.seed", stop = "options.stop", stop_sequences = "options.stop",
    presence_penalty = "options.presence_penalty", frequency_penalty = "options.frequency_penalty",
    reasoning = "think", reasoning_effort = "think", response_format = "format",
    ["messages.content.image"] = "messages.images", ["system.image"] = "messages.images", system = "messages",
    ["messages.prefill"] = wording.last("messages"), ["messages.system"] = wording.late_system("messages") }

-- ---- messages

local MESSAGE = losses.set("role content thinking images tool_calls tool_name name tool_call_id")
local CALL = losses.set("id type function")
local NAMED = losses.set("index name arguments description")
local ROLE = { system = "system", user = "user", assistant = "assistant", tool = "user" }

-- Images have no type beside them: how their base64 begins says it.
local BEGINS = { { "^/9j/", "image/jpeg" }, { "^iVBORw0KGgo", "image/png" }, { "^R0lGOD", "image/gif" },
    { "^UklGR", "image/webp" } }

local function media_type(data)
    for _, row in ipairs(BEGINS) do
        if data:find(row[1]) then return row[2] end
    end
    return "image/png"
end

-- What a message says: its images stand before its text, as the model is given them.
local function read_content(message, parts)
    local images = list(message.images)
    for i = 1, #images do
        local data = word(images[i])
        parts[#parts + 1] = data and { kind = "image", data = data, media_type = media_type(data) } or nil
    end
    if word(message.content) then parts[#parts + 1] = { kind = "text", text = message.content } end
end

-- Calls and results need no ids here: a result without one answers the first call of its name that has no result yet.
local function read_calls(message, parts, waiting, cx, at)
    local calls = list(message.tool_calls)
    for i = 1, #calls do
        local call = object(calls[i])
        local named = call and object(call["function"])
        if named then
            local input = object(named.arguments) or text_of(named.arguments)
            local part = { kind = "call", id = word(call.id) or cx.id("call_"), name = text_of(named.name) or "",
                input = input or cx.parse("{}") }
            if type(input) == "string" then part.input = cx.parse(input) or input end
            parts[#parts + 1], waiting[#waiting + 1] = part, part
            losses.extra(call, CALL, cx, "messages[%d].tool_calls[%d]", at, i - 1)
            losses.extra(named, NAMED, cx, "messages[%d].tool_calls[%d].function", at, i - 1)
        end
    end
end

local function answered(waiting, id, name)
    local found
    for i, call in ipairs(waiting) do
        if call.id == id or not id and (not name or call.name == name) then
            found = i
            break
        end
    end
    return table.remove(waiting, found or id and #waiting + 1 or 1)
end

local function read_result(message, waiting, cx)
    local id, name = word(message.tool_call_id), word(message.tool_name) or word(message.name)
    local call = answered(waiting, id, name)
    local part = { kind = "result", id = id or call and call.id or cx.id("call_"), name = name or call and call.name,
        parts = {} }
    read_content(message, part.parts)
    return part
end

local function read_messages(body, r, cx)
    local messages = fields.array(body.messages)
    if not messages then cx.refuse('"messages" must be a list of messages', "messages") end
    local waiting = {}
    for i = 1, #messages do
        local message = object(messages[i])
        local role = message and ROLE[message.role]
        if not role then
            cx.refuse(("messages[%d] must be an object with role system, user, assistant or tool"):format(i - 1),
                "messages")
        end
        losses.extra(message, MESSAGE, cx, "messages[%d]", i - 1)
        local turn = { role = role, parts = {} }
        if message.role == "tool" then
            turn.parts[1] = read_result(message, waiting, cx)
        else
            if word(message.thinking) then turn.parts[1] = { kind = "thinking", text = message.thinking } end
            read_content(message, turn.parts)
            read_calls(message, turn.parts, waiting, cx, i - 1)
        end
        if role == "system" and not r.turns[1] then
            for _, part in ipairs(turn.parts) do table.insert(r.system, part) end
        else
            table.insert(r.turns, turn)
        end
    end
end

-- ---- fields

local TOOL = losses.set("type function")
local FUNCTION = losses.set("name description parameters strict")

local function read_tools(body, cx)
    local out, given = {}, list(body.tools)
    for i = 1, #given do
        local tool = object(given[i])
        local named = tool and object(tool["function"])
        if named then
            out[#out + 1] = { name = text_of(named.name) or "", description = word(named.description),
                schema = object(named.parameters), strict = flag(named.strict) }
            losses.extra(tool, TOOL, cx, "tools[%d]", i - 1)
            losses.extra(named, FUNCTION, cx, "tools[%d].function", i - 1)
        elseif tool then
            out[#out + 1] = { server = tool, kind = text_of(tool.type) or "untyped", origin = "ollama" }
        end
    end
    return out[1] and out or nil
end

local EFFORT = { low = "low", medium = "medium", high = "high", max = "xhigh" }

local function read_think(think)
    if think == true then return { show = true } end
    if think == false then return { off = true } end
    return EFFORT[think] and { effort = EFFORT[think], show = true } or nil
end

local function read_format(format)
    if format == "json" then return { kind = "json" } end
    return fields.says(format) and object(format) and { kind = "schema", schema = format } or nil
end

local function read_stop(v)
    if text_of(v) then return { v } end
    local out, given = {}, list(v)
    for i = 1, #given do out[#out + 1] = text_of(given[i]) end
    return out[1] and out or nil
end

-- Ollama's options that others have, too. The rest are of the machine, or of a sampler that only it has.
local OPTION = losses.set("num_predict temperature top_p top_k seed presence_penalty frequency_penalty stop")

local function read_options(body, r, cx)
    local options = object(body.options)
    if not options then return end
    local most = number(options.num_predict)
    r.max_tokens = most and most > 0 and count(most) or nil -- -1 and -2: as long as it likes
    r.temperature, r.top_p, r.top_k = number(options.temperature), number(options.top_p), count(options.top_k)
    r.seed, r.stop = number(options.seed), read_stop(options.stop)
    r.presence_penalty, r.frequency_penalty = number(options.presence_penalty), number(options.frequency_penalty)
    for name, v in cx.each(options) do
        if not OPTION[name] and fields.says(v) then r.rest["options." .. name] = v end
    end
end

function M.read(body, cx)
    if not object(body) then cx.refuse("the body must be a JSON object") end
    local r = { dialect = "ollama_chat", model = text_of(body.model), stream = body.stream ~= false, system = {},
        turns = {}, rest = {}, include_usage = true }
    read_messages(body, r, cx)
    r.tools, r.reasoning, r.format = read_tools(body, cx), read_think(body.think), read_format(body.format)
    r.logprobs, r.top_logprobs = flag(body.logprobs) or nil, count(body.top_logprobs)
    read_options(body, r, cx)
    for name, v in cx.each(body) do
        if not KNOWN[name] and v ~= false and fields.says(v) then r.rest[name] = v end
    end
    return r
end

return M
