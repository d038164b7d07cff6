-- writer: events of the vocabulary as an Anthropic Messages stream.
--
-- Blocks stand one after the other: a part that begins while another is open waits for its end. The stop is said last,
-- with the usage, which other protocols tell behind their stop.

local answer = require("claw.protocols.anthropic_messages.answer")
local content = require("claw.protocols.anthropic_messages.content")
local errors = require("claw.protocols.anthropic_messages.error")
local json = require("claw.json")

local M = {}

local quote, encode = json.quote, json.encode

local NOTHING = {}
local PING = { { type = "ping", data = '{"type":"ping"}' } }

local TEXT_LIKE = { text = true, refusal = true }

function M.new(cx)
    local began, over = false, false
    local block = -1      -- the last block's index
    local open            -- the open part: { index, kind, front (of its deltas), … }
    local held, order = {}, {} -- parts that wait: index -> events; their indexes in order
    local usage, stop, stop_text = {}, nil, nil

    local on = {}

    local function start(e, out)
        began = true
        usage = e.usage or usage
        local message = { id = e.id or cx.id("msg_"), type = "message", role = "assistant", model = e.model or cx.model,
            content = json.array(), stop_reason = json.null, stop_sequence = json.null,
            usage = content.write_usage(usage) }
        out[#out + 1] = { type = "message_start", data = encode({ type = "message_start", message = message }) }
    end

    local function begin(given, out)
        block = block + 1
        out[#out + 1] = { type = "content_block_start",
            data = encode({ type = "content_block_start", index = block, content_block = given }) }
    end

    local function delta(given, out)
        out[#out + 1] = { type = "content_block_delta",
            data = encode({ type = "content_block_delta", index = block, delta = given }) }
    end

    local function finish(out)
        local data = ('{"type":"content_block_stop","index":%d}'):format(block)
        out[#out + 1] = { type = "content_block_stop", data = data }
    end

    -- An empty thinking block with a secret: see content.lua.
    local function sealed(signature, origin, out)
        begin({ type = "thinking", thinking = "", signature = "" }, out)
        delta({ type = "signature_delta", signature = content.seal(signature, origin) }, out)
        finish(out)
    end

    local function begin_part(index, part, out)
        open = { index = index, kind = part.kind }
        if TEXT_LIKE[part.kind] then
            begin({ type = "text", text = "" }, out)
            open.front = ('{"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":'):format(block)
        elseif part.kind == "thinking" then
            begin({ type = "thinking", thinking = "", signature = "" }, out)
            open.front = ('{"type":"content_block_delta","index":%d,"delta":{"type":"thinking_delta","thinking":')
                :format(block)
            open.signature, open.origin = part.signature, part.origin
        elseif part.kind == "call" then
            if part.signature then sealed(part.signature, part.origin, out) end
            begin({ type = "tool_use", id = part.id or cx.id("toolu_"), name = part.name or "", input = {} }, out)
            open.front = ('{"type":"content_block_delta","index":%d,"delta":{"type":"input_json_delta","partial_json":')
                :format(block)
        else -- whole at once
            local blocks = {}
            answer.write_part(part, blocks, cx)
            for _, given in ipairs(blocks) do begin(given, out) end
            open.silent = not blocks[1]
        end
        if part.text and part.text ~= "" and open.front then
            out[#out + 1] = { type = "content_block_delta", data = open.front .. quote(part.text) .. "}}" }
        end
    end

    local function end_part(out)
        local was = open
        open = nil
        if was.kind == "thinking" and was.signature then
            delta({ type = "signature_delta", signature = content.seal(was.signature, was.origin) }, out)
        end
        if not was.silent then finish(out) end
        if was.kind == "call" and was.signature then sealed(was.signature, was.origin, out) end
    end

    local write

    local function release(out)
        while not open and order[1] do
            local index = table.remove(order, 1)
            local events = held[index]
            held[index] = nil
            for _, e in ipairs(events) do
                for _, made in ipairs(write(e)) do out[#out + 1] = made end
            end
        end
        return out
    end

    function on.start(e)
        local out = {}
        if not began then start(e, out) end
        return out
    end

    function on.part(e)
        local out = {}
        begin_part(e.index, e.part, out)
        return out
    end

    local function piece(e)
        if not open or not open.front then return NOTHING end
        return { { type = "content_block_delta", data = open.front .. quote(e.text) .. "}}" } }
    end
    on.text, on.input = piece, piece

    function on.signature(e)
        if open and (open.kind == "thinking" or open.kind == "call") then
            open.signature, open.origin = (open.signature or "") .. e.signature, e.origin
        end
        return NOTHING
    end

    function on.citation(e)
        local written = open and TEXT_LIKE[open.kind] and content.write_citation(e.citation)
        if not written then
            cx.drop("citations", "hint", "the client's protocol has no such citation")
            return NOTHING
        end
        local out = {}
        delta({ type = "citations_delta", citation = written }, out)
        return out
    end

    function on.part_end()
        local out = {}
        if open then end_part(out) end
        return release(out)
    end

    function on.logprobs()
        cx.drop("logprobs", "hint", "the client's protocol has none")
        return NOTHING
    end

    function on.usage(e)
        usage = e.usage
        return NOTHING
    end

    function on.stop(e)
        stop, stop_text = e.stop, e.stop_text
        return NOTHING
    end

    on["end"] = function()
        local out = {}
        if open then end_part(out) end
        release(out)
        over = true
        out[#out + 1] = { type = "message_delta", data = encode({ type = "message_delta",
            delta = { stop_reason = content.write_stop(stop), stop_sequence = stop_text or json.null },
            usage = content.write_usage(usage) }) }
        out[#out + 1] = { type = "message_stop", data = '{"type":"message_stop"}' }
        return out
    end

    function on.ping()
        return PING
    end

    function on.error(e)
        over = true
        return { errors.write_event(e.err) }
    end

    -- Events of a part that is not the open one.
    local function hold(e)
        local events = held[e.index]
        if not events then
            if e.on ~= "part" then return NOTHING end
            events = {}
            held[e.index] = events
            order[#order + 1] = e.index
        end
        events[#events + 1] = e
        return NOTHING
    end

    function write(e)
        if open and e.index and e.index ~= open.index and e.on ~= "logprobs" then return hold(e) end
        return on[e.on](e)
    end

    return function(e)
        if over or not on[e.on] or (e.choice or 0) > 0 then return NOTHING end
        if began or e.on == "start" or e.on == "error" or e.on == "ping" then return write(e) end
        local out = {}
        start({}, out)
        for _, made in ipairs(write(e)) do out[#out + 1] = made end
        return out
    end
end

return M
