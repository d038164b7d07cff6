-- request: a client's Responses body as a request of the vocabulary.

local content = require("claw.protocols.openai_responses.content")
local fields = require("claw.protocols.fields")
local losses = require("claw.protocols.losses")
local tools = require("claw.protocols.openai_responses.tools")
local wording = require("claw.protocols.wording")

local M = {}

local word, number, count, flag = fields.word, fields.number, fields.count, fields.flag
local object, list, members = fields.object, fields.list, fields.fields

local KNOWN = { model = true, input = true, instructions = true, stream = true, tools = true, tool_choice = true,
    max_output_tokens = true, temperature = true, top_p = true, top_logprobs = true, parallel_tool_calls = true,
    text = true, reasoning = true, metadata = true, service_tier = true, store = true, user = true, include = true,
    previous_response_id = true, conversation = true, prompt = true, stream_options = true, safety_identifier = true }

-- What stands among the turns, but is a field of its own, an item or a part of one.
local STATE = { previous_response_id = true, conversation = true, prompt = true }

local function place(_, more)
    local kind = more:match("^%.([^.]*)") or ""
    if STATE[kind] then return more:sub(2) end
    local part = kind == "" or kind == "is_error" or kind == "refusal"
        or kind:find("^%a+_text$") or kind:find("^input_")
    return (part and "input.content" or "input") .. more
end

local REASONING = { "reasoning.effort", "reasoning" }

M.wording = { max_tokens = "max_output_tokens", response_format = "text.format", verbosity = "text.verbosity",
    reasoning = REASONING, reasoning_effort = REASONING, logprobs = { "top_logprobs", "include" }, messages = "input",
    ["messages.content"] = place, ["messages.content.image"] = "input.content.input_image",
    ["messages.content.document"] = "input.content.input_file", ["messages.tool_call_id"] = "input.call_id",
    ["messages.content.audio"] = "input.content.input_audio", system = "input.content",
    ["system.image"] = "input.content.input_image", ["system.document"] = "input.content.input_file",
    ["messages.prefill"] = wording.last("input"), ["messages.system"] = wording.late_system("input") }

-- ---- items

local function add(r, role, part)
    r.turns[#r.turns + 1] = { role = role, parts = { part } }
end

local READ = {}

function READ.message(item, r, cx, at)
    local role, parts = word(item.role) or "user", {}
    content.read(item.content, parts, cx, at, "content")
    if role == "system" or role == "developer" then
        if r.turns[1] then
            r.turns[#r.turns + 1] = { role = "system", parts = parts }
        else
            for _, part in ipairs(parts) do r.system[#r.system + 1] = part end
        end
        return
    end
    r.turns[#r.turns + 1] = { role = role == "assistant" and "assistant" or "user", parts = parts }
end

function READ.function_call(item, r, cx) add(r, "assistant", content.read_call(item, cx)) end
function READ.custom_tool_call(item, r, cx) add(r, "assistant", content.read_custom_call(item, cx)) end
function READ.function_call_output(item, r, cx, at) add(r, "user", content.read_result(item, cx, at)) end
READ.custom_tool_call_output = READ.function_call_output

function READ.reasoning(item, r)
    local part = content.read_reasoning(item)
    if part then add(r, "assistant", part) end
end

-- Members of items; ids and states are the answers' own.
local ITEM = {}
for kind, words in pairs({ message = "role content", function_call = "call_id name arguments",
    custom_tool_call = "call_id name input", function_call_output = "call_id output",
    custom_tool_call_output = "call_id output", reasoning = "summary content encrypted_content" }) do
    ITEM[kind] = losses.set("type id status " .. words)
end

local SERVER = { mcp_list_tools = true, mcp_approval_request = true }

-- What OpenAI's own tools did, and what clients did for them.
local function read_other(item, kind, r)
    if kind:find("_call_output$") then
        add(r, "user", { kind = "server_result", raw = item, origin = content.OWN, what = kind })
    elseif kind:find("_call$") or SERVER[kind] then
        add(r, "assistant", { kind = "server_call", raw = item, origin = content.OWN, what = kind })
    else
        add(r, kind:find("_response$") and "user" or "assistant",
            { kind = "other", raw = item, origin = content.OWN, what = kind, item = true })
    end
end

local function read_input(body, r, cx)
    local input = body.input
    if type(input) == "string" then
        add(r, "user", { kind = "text", text = input })
        return
    end
    local all = list(input)
    for i = 1, #all do
        local item = object(all[i])
        if not item then cx.refuse(("input[%d] is no item"):format(i - 1), "input") end
        local kind = word(item.type) or word(item.role) and "message" or "item_reference"
        local read = READ[kind]
        if read then
            losses.extra(item, ITEM[kind], cx, "input[%d]", i - 1)
            read(item, r, cx, i - 1)
        else
            read_other(item, kind, r)
        end
    end
end

-- ---- fields

-- What is kept at OpenAI and the answer depends on.
local function read_state(body, r)
    for _, name in ipairs({ "previous_response_id", "conversation", "prompt" }) do
        local v = body[name]
        if word(v) or object(v) then
            local part = { kind = "other", raw = v, origin = content.OWN, what = name }
            local first
            for _, turn in ipairs(r.turns) do first = first or turn.role == "user" and turn end
            if first then table.insert(first.parts, 1, part) else add(r, "user", part) end
        end
    end
end

local function read_text(text, r)
    text = members(text)
    local format = members(text.format)
    if format.type == "json_schema" and object(format.schema) then
        r.format = { kind = "schema", name = word(format.name), description = word(format.description),
            schema = format.schema, strict = flag(format.strict) }
    elseif format.type == "json_object" then
        r.format = { kind = "json" }
    end
    r.verbosity = word(text.verbosity)
end

local EFFORT = { none = "none", minimal = "minimal", low = "low", medium = "medium", high = "high", xhigh = "xhigh",
    max = "xhigh" }

local function read_reasoning(reasoning, r, cx)
    reasoning = members(reasoning)
    local effort = word(reasoning.effort)
    local summary = word(reasoning.summary) or word(reasoning.generate_summary)
    if not effort and not summary then return end
    if effort and not EFFORT[effort] then cx.drop("reasoning.effort", "hint", "none that others know") end
    r.reasoning = { effort = EFFORT[effort], show = summary ~= nil or nil, off = effort == "none" or nil }
end

local function read_include(include, r)
    local all, unknown = list(include), {}
    for i = 1, #all do
        if all[i] == "message.output_text.logprobs" then
            r.logprobs = true
        elseif all[i] ~= "reasoning.encrypted_content" and word(all[i]) then
            unknown[#unknown + 1] = all[i]
        end
    end
    if unknown[1] then r.rest.include = unknown end
end

local USUAL = { truncation = "disabled", background = false }

function M.read(body, cx)
    if not object(body) then cx.refuse("the body must be an object") end
    if type(body.input) ~= "string" and not fields.array(body.input) and not object(body.prompt)
        and not word(body.previous_response_id) then
        cx.refuse('"input" must be a text or a list of items', "input")
    end
    local r = { dialect = "openai_responses", system = {}, turns = {}, rest = {}, model = word(body.model),
        stream = flag(body.stream),
        max_tokens = count(body.max_output_tokens), temperature = number(body.temperature), top_p = number(body.top_p),
        top_logprobs = count(body.top_logprobs), parallel = flag(body.parallel_tool_calls),
        metadata = object(body.metadata), service_tier = word(body.service_tier), store = flag(body.store),
        user = word(body.user), safety_identifier = word(body.safety_identifier), include_usage = true }
    if word(body.instructions) then r.system[1] = { kind = "text", text = body.instructions } end
    read_input(body, r, cx)
    read_state(body, r)
    read_text(body.text, r)
    read_reasoning(body.reasoning, r, cx)
    read_include(body.include, r)
    if r.top_logprobs and r.top_logprobs > 0 then r.logprobs = true else r.top_logprobs = nil end
    tools.read(body, r, cx)
    for name, value in cx.each(body) do
        if not KNOWN[name] and value ~= USUAL[name] then r.rest[name] = value end
    end
    return r
end

return M
