-- Conversations that say much of what the chat protocols can, in the shape of support.recorded's cases. Both protocols
-- know all of it, so that it can go there and back.

local json = require("claw.json")

local M = {}

local SCHEMA = { type = "object", properties = { city = { type = "string" } }, required = { "city" }, additionalProperties = false }

local function sse(list)
    local events = {}
    for i, e in ipairs(list) do
        events[i] = type(e) == "string" and { data = e } or { type = e.type, data = json.encode(e) }
    end
    return events
end

local function chunk(delta, finish)
    return json.encode({ id = "chatcmpl-s", object = "chat.completion.chunk", created = 1, model = "gpt-s",
        choices = { { index = 0, delta = delta, finish_reason = finish or json.null } } })
end

local function called(index, id, name, arguments)
    return { tool_calls = { { index = index, id = id, type = id and "function", ["function"] = { name = name, arguments = arguments } } } }
end

local openai = {
    name = "sample/openai", meta = { case = "sample/openai", api = "chat", provider = "openai", status = 200 },
    request = json.encode({
        model = "gpt-s", stream = true, stream_options = { include_usage = true }, max_completion_tokens = 900, temperature = 0.5,
        stop = { "END", "STOP" }, user = "u-1", parallel_tool_calls = false, tool_choice = "required",
        response_format = { type = "json_schema", json_schema = { name = "place", strict = true, schema = SCHEMA } },
        tools = { { type = "function", ["function"] = { name = "weather", description = "Weather", parameters = SCHEMA, strict = true } },
            { type = "function", ["function"] = { name = "time", parameters = SCHEMA } } },
        messages = {
            { role = "system", content = "Be short." }, { role = "developer", content = "Be kind." },
            { role = "user", content = { { type = "text", text = "What is this? \240\159\152\128" },
                { type = "image_url", image_url = { url = "data:image/png;base64,iVBORw0KGgo=" } },
                { type = "image_url", image_url = { url = "https://example.org/a.jpg" } },
                { type = "file", file = { filename = "a.pdf", file_data = "data:application/pdf;base64,JVBERi0=" } } } },
            { role = "assistant", content = "Let me see.", tool_calls = {
                { id = "call_1", type = "function", ["function"] = { name = "weather", arguments = '{"city":"Oslo \\"O\\""}' } },
                { id = "call_2", type = "function", ["function"] = { name = "time", arguments = '{"city":"Oslo"}' } } } },
            { role = "tool", tool_call_id = "call_1", content = "rain" }, { role = "tool", tool_call_id = "call_2", content = "noon" },
            { role = "user", content = "And now?" } } }),
    json = json.encode({ id = "chatcmpl-s", object = "chat.completion", created = 1, model = "gpt-s",
        choices = { { index = 0, finish_reason = "tool_calls", message = { role = "assistant", content = "Well: \240\159\152\128\n",
            reasoning_content = "Hm.", reasoning_details = { { type = "reasoning.text", text = "Hm.", signature = "SIG",
                format = "anthropic-claude-v1", index = 0 } }, tool_calls = {
                { id = "call_3", type = "function", ["function"] = { name = "weather", arguments = '{"city":"Rome"}' } },
                { id = "call_4", type = "function", ["function"] = { name = "time", arguments = "{}" } } } } } },
        usage = { prompt_tokens = 50, completion_tokens = 20, total_tokens = 70, prompt_tokens_details = { cached_tokens = 30 },
            completion_tokens_details = { reasoning_tokens = 5 } } }),
    events = sse({ chunk({ role = "assistant", content = "" }), chunk({ reasoning_content = "Hm" }), chunk({ reasoning_content = "." }),
        chunk({ content = "Well: " }), chunk({ content = "\240\159\152\128" }), chunk({ content = "\n" }),
        chunk(called(0, "call_3", "weather", "")), chunk(called(0, nil, nil, '{"city"')), chunk(called(0, nil, nil, ':"Rome"}')),
        chunk(called(1, "call_4", "time", "")), chunk(called(1, nil, nil, "{}")), chunk({}, "tool_calls"),
        json.encode({ id = "chatcmpl-s", object = "chat.completion.chunk", created = 1, model = "gpt-s", choices = json.array(),
            usage = { prompt_tokens = 50, completion_tokens = 20, total_tokens = 70, prompt_tokens_details = { cached_tokens = 30 },
                completion_tokens_details = { reasoning_tokens = 5 } } }), "[DONE]" }),
}

local function block(index, content) return { type = "content_block_start", index = index, content_block = content } end
local function delta(index, kind, field, v) return { type = "content_block_delta", index = index, delta = { type = kind, [field] = v } } end
local function stop(index) return { type = "content_block_stop", index = index } end

local USAGE = { input_tokens = 10, cache_read_input_tokens = 30, cache_creation_input_tokens = 10, output_tokens = 20 }

local anthropic = {
    name = "sample/anthropic", meta = { case = "sample/anthropic", api = "messages", provider = "anthropic", status = 200 },
    request = json.encode({
        model = "claude-sonnet-4-5", max_tokens = 9000, stop_sequences = { "END" }, metadata = { user_id = "u-1" },
        system = { { type = "text", text = "Be short.", cache_control = { type = "ephemeral" } } },
        thinking = { type = "enabled", budget_tokens = 2048 }, tool_choice = { type = "auto", disable_parallel_tool_use = true },
        output_config = { format = { type = "json_schema", schema = SCHEMA } },
        tools = { { name = "weather", description = "Weather", input_schema = SCHEMA }, { name = "time", input_schema = SCHEMA } },
        messages = {
            { role = "user", content = { { type = "text", text = "What is this?" },
                { type = "image", source = { type = "base64", media_type = "image/png", data = "iVBORw0KGgo=" } },
                { type = "document", source = { type = "base64", media_type = "application/pdf", data = "JVBERi0=" } } } },
            { role = "assistant", content = { { type = "thinking", thinking = "Hm.", signature = "SIG" }, { type = "redacted_thinking",
                data = "RED" },
                { type = "text", text = "Let me see." }, { type = "tool_use", id = "toolu_1", name = "weather", input = { city = "Oslo" } },
                { type = "tool_use", id = "toolu_2", name = "time", input = {} } } },
            { role = "user", content = { { type = "tool_result", tool_use_id = "toolu_1", content = "rain" },
                { type = "tool_result", tool_use_id = "toolu_2", content = { { type = "text", text = "noon" } } }, { type = "text",
                    text = "And?" } } } } }),
    json = json.encode({ id = "msg_s", type = "message", role = "assistant", model = "claude-s", stop_reason = "tool_use", stop_sequence = json.null,
        content = { { type = "thinking", thinking = "Hm.", signature = "SIG" }, { type = "redacted_thinking", data = "RED" },
            { type = "text", text = "Well: \240\159\152\128" }, { type = "tool_use", id = "toolu_3", name = "weather", input = { city = "Rome" } },
            { type = "tool_use", id = "toolu_4", name = "time", input = {} } }, usage = USAGE }),
    events = sse({
        { type = "message_start", message = { id = "msg_s", type = "message", role = "assistant", model = "claude-s", content = json.array(),
            stop_reason = json.null, usage = { input_tokens = 10, cache_read_input_tokens = 30, cache_creation_input_tokens = 10,
                output_tokens = 1 } } },
        block(0, { type = "thinking", thinking = "", signature = "" }), { type = "ping" }, delta(0, "thinking_delta", "thinking", "Hm"),
        delta(0, "thinking_delta", "thinking", "."), delta(0, "signature_delta", "signature", "SIG"), stop(0),
        block(1, { type = "redacted_thinking", data = "RED" }), stop(1),
        block(2, { type = "text", text = "" }), delta(2, "text_delta", "text", "Well: "), delta(2, "text_delta", "text",
            "\240\159\152\128\n"), stop(2),
        block(3, { type = "tool_use", id = "toolu_3", name = "weather", input = {} }), delta(3, "input_json_delta", "partial_json", ""),
        delta(3, "input_json_delta", "partial_json", '{"city"'), delta(3, "input_json_delta", "partial_json", ':"Rome"}'), stop(3),
        block(4, { type = "tool_use", id = "toolu_4", name = "time", input = {} }), stop(4),
        { type = "message_delta", delta = { stop_reason = "tool_use", stop_sequence = json.null }, usage = { output_tokens = 20 } },
        { type = "message_stop" } }),
}

M.cases = { openai, anthropic }

return M
