-- An OpenAI chat request goes out as Anthropic's, and the answer, plain or streamed, comes back as OpenAI's.
-- Name it in transformations[].request.script for upstreams of type anthropic; it needs nothing else.
local P = { name = "convert_openai_to_anthropic", api = 1 }
local json, array = claw.json, claw.json.array
local FINISH = { max_tokens = "length", tool_use = "tool_calls", refusal = "content_filter" } -- others are "stop"
local CHOICE = { auto = "auto", none = "none", required = "any" }

local function given(v)
    if v ~= json.null then return v end
end

-- A turn's content as Anthropic's blocks. A part that is not known goes out as it is: Anthropic says what it thinks.
local function blocks(content)
    if type(content) == "string" then content = content ~= "" and { { type = "text", text = content } } or {} end
    local out = array()
    for i, part in ipairs(given(content) or {}) do
        local url = part.type == "image_url" and part.image_url.url
        local kind, data = (url or ""):match("^data:([^;,]+);base64,(.*)$")
        out[i] = url and { type = "image", source = kind and { type = "base64", media_type = kind, data = data }
            or { type = "url", url = url } } or part
    end
    return out
end

local function turn(message) -- its role at Anthropic, and its blocks
    local out = blocks(message.content)
    if message.role == "tool" then
        return "user", { { type = "tool_result", tool_use_id = message.tool_call_id, content = out } }
    end
    for _, call in ipairs(given(message.tool_calls) or {}) do
        local f = call["function"]
        out[#out + 1] = { type = "tool_use", id = call.id, name = f.name,
            input = f.arguments ~= "" and (json.decode(f.arguments) or f.arguments) or {} }
    end
    return message.role, out
end

local function tools(list)
    local out = array()
    for i, tool in ipairs(list) do
        local f = tool["function"]
        out[i] = { name = f.name, description = given(f.description),
            input_schema = given(f.parameters) or { type = "object" } }
    end
    return out
end

function P.request(req, doc)
    local body, system, messages = type(doc) == "userdata" and doc:table() or {}, {}, array()
    if type(body.messages) ~= "table" then return nil end -- no chat
    for _, message in ipairs(body.messages) do
        local role, content = turn(message)
        local last = messages[#messages]
        if role == "system" or role == "developer" then
            for _, block in ipairs(content) do system[#system + 1] = block.text end
        elseif last and last.role == role then -- turns of one role stand together, results of parallel tools too
            for _, block in ipairs(content) do table.insert(last.content, block) end
        else
            messages[#messages + 1] = { role = role, content = content }
        end
    end
    local stop, choice, user = given(body.stop), given(body.tool_choice), given(body.user)
    req.upstream.path = "/messages"
    claw.state(req).usage = given(body.stream_options) and body.stream_options.include_usage == true
    return { model = body.model, messages = messages, system = system[1] and table.concat(system, "\n\n"),
        max_tokens = given(body.max_completion_tokens) or given(body.max_tokens) or 4096, stream = given(body.stream),
        temperature = given(body.temperature), top_p = given(body.top_p), metadata = user and { user_id = user },
        stop_sequences = type(stop) == "string" and { stop } or stop, tools = given(body.tools) and tools(body.tools),
        tool_choice = type(choice) == "table" and { type = "tool", name = choice["function"].name }
            or choice and { type = CHOICE[choice] or choice } }
end

local function usage_of(u)
    local cached, output = given(u.cache_read_input_tokens) or 0, u.output_tokens or 0
    local input = (u.input_tokens or 0) + cached + (given(u.cache_creation_input_tokens) or 0)
    return { prompt_tokens = input, completion_tokens = output, total_tokens = input + output,
        prompt_tokens_details = { cached_tokens = cached } }
end

function P.response(_, body)
    local answer = type(body) == "string" and json.decode(body) or type(body) ~= "string" and body:table() or {}
    if answer.type == "error" then return { error = answer.error } end
    if answer.type ~= "message" then return nil end
    local text, calls = {}, array()
    for _, block in ipairs(answer.content) do
        if block.type == "text" then text[#text + 1] = block.text end
        if block.type == "tool_use" then
            calls[#calls + 1] = { id = block.id, type = "function",
                ["function"] = { name = block.name, arguments = json.encode(block.input) } }
        end
    end
    return { id = answer.id, object = "chat.completion", created = claw.time.now(), model = answer.model,
        choices = { { index = 0, finish_reason = FINISH[answer.stop_reason] or "stop", message = { role = "assistant",
            content = text[1] and table.concat(text) or json.null, tool_calls = calls[1] and calls } } },
        usage = usage_of(answer.usage or {}) }
end

local function chunk(s, delta, finish, usage)
    local choices = usage and array() or { { index = 0, delta = delta, finish_reason = finish or json.null } }
    return { data = json.encode({ id = s.id, object = "chat.completion.chunk", created = s.created, model = s.model,
        choices = choices, usage = usage }) }
end

local function call(s, f, id) -- a piece of a tool call
    return chunk(s, { tool_calls = { { index = s.tool, id = id, type = id and "function", ["function"] = f } } })
end

local on = {} -- Anthropic's events by name: (state, event) -> what goes out

function on.message_start(s, e)
    s.id, s.model, s.tokens, s.tool, s.created = e.message.id, e.message.model, e.message.usage, -1, claw.time.now()
    return chunk(s, { role = "assistant", content = "" })
end

function on.content_block_start(s, e)
    if e.content_block.type ~= "tool_use" then return false end
    s.tool = s.tool + 1
    return call(s, { name = e.content_block.name, arguments = "" }, e.content_block.id)
end

function on.content_block_delta(s, e)
    if e.delta.type == "text_delta" then return chunk(s, { content = e.delta.text }) end
    return e.delta.type == "input_json_delta" and call(s, { arguments = e.delta.partial_json })
end

function on.message_delta(s, e)
    for name, n in pairs(e.usage or {}) do s.tokens[name] = n end
    return chunk(s, {}, FINISH[e.delta.stop_reason] or "stop")
end

function on.message_stop(s)
    local out = { { data = "[DONE]" } }
    if s.usage then table.insert(out, 1, chunk(s, nil, nil, usage_of(s.tokens))) end
    return out
end

function on.error(_, e)
    return { data = json.encode({ error = e.error }) }
end

function P.event(req, ev)
    local e = json.decode(ev.data)
    local convert = type(e) == "table" and on[e.type]
    return convert and convert(claw.state(req), e) or false -- pings and what has no counterpart are dropped
end

return P
