-- reader: the events of an Anthropic Messages stream as events of the vocabulary.
--
-- Blocks come one after the other. What only Anthropic understands (its own tools) is kept until it is whole: its raw
-- document is the block, with the input that came in deltas.

local content = require("claw.protocols.anthropic_messages.content")
local errors = require("claw.protocols.anthropic_messages.error")
local fields = require("claw.protocols.fields")

local M = {}

local word, text_of = fields.word, fields.text
local object, members = fields.object, fields.fields
local match = string.match

local NOTHING = {}

-- Most events are a piece of text without a character that must be escaped, spelt like this: no need to decode them.
local TEXT = '^{"type":"content_block_delta","index":(%d+),"delta":{"type":"text_delta","text":"([^"\\%c]+)"}%s*}%s*$'
local UNREADABLE = { status = 502, kind = "server", message = "the upstream sent an event that is no JSON" }
local UNNAMED = { status = 500, kind = "server", message = "the upstream answered with an error" }
local CUT = { status = 502, kind = "server", message = "the upstream's stream ended before its answer did" }

function M.new(cx)
    local blocks = {} -- Anthropic's index -> { index, kind, … }, while it is open
    local parts, begun, stopped, over = 0, false, false, false
    local counts = {} -- usage, as it was last said, field by field

    local on, start, delta_of = {}, {}, {}

    local function fail(err)
        over = true
        return { { on = "error", err = err } }
    end

    local function usage_of(u)
        for name, v in pairs(members(u)) do counts[name] = v end
        return content.read_usage(counts)
    end

    local function close(at, out)
        local block = blocks[at]
        if not block then return out end
        blocks[at] = nil
        if block.raw then -- whole now
            local raw = block.raw
            if block.input then
                local input = cx.parse(table.concat(block.input))
                if input then raw.input = input end
            end
            local doc = cx.parse(fields.encoded(raw) or "")
            if not doc then return out end
            local index = parts
            parts = parts + 1
            out[#out + 1] = { on = "part", index = index,
                part = { kind = block.kind, origin = "anthropic", raw = doc, what = block.what } }
            out[#out + 1] = { on = "part_end", index = index }
            return out
        end
        if block.given then out[#out + 1] = { on = "input", index = block.index, text = block.given } end
        out[#out + 1] = { on = "part_end", index = block.index }
        return out
    end

    local function close_all(out)
        local open = {}
        for at in pairs(blocks) do open[#open + 1] = at end
        table.sort(open)
        for _, at in ipairs(open) do close(at, out) end
        return out
    end

    local function begin(at, part)
        local index = parts
        parts = parts + 1
        blocks[at] = { index = index, kind = part.kind }
        return { { on = "part", index = index, part = part } }
    end

    -- ---- content_block_start, by the block's type

    function start.text(at, block)
        local out = begin(at, { kind = "text" })
        if word(block.text) then out[2] = { on = "text", index = blocks[at].index, text = block.text } end
        return out
    end

    function start.thinking(at, block)
        local out = begin(at, { kind = "thinking" })
        local index = blocks[at].index
        if word(block.thinking) then out[#out + 1] = { on = "text", index = index, text = block.thinking } end
        if word(block.signature) then
            local signature, origin = content.unseal(block.signature)
            out[#out + 1] = { on = "signature", index = index, signature = signature, origin = origin }
        end
        return out
    end

    function start.redacted_thinking(at, block)
        local data, origin = content.unseal(text_of(block.data) or "")
        return begin(at, { kind = "redacted", data = data, origin = origin })
    end

    function start.tool_use(at, block)
        local id, input = word(block.id) or cx.id("toolu_"), object(block.input)
        local out = begin(at, { kind = "call", id = id, name = text_of(block.name) or "" })
        -- Said at the end, if no delta comes.
        if input and next(input) ~= nil then blocks[at].given = fields.encoded(input) end
        return out
    end

    -- ---- content_block_delta, by the delta's type

    function delta_of.text_delta(block, delta)
        local text = delta.text
        if type(text) ~= "string" or text == "" or block.kind ~= "text" then return NOTHING end
        return { { on = "text", index = block.index, text = text } }
    end

    function delta_of.input_json_delta(block, delta)
        local text = word(delta.partial_json)
        if not text then return NOTHING end
        if block.raw then
            block.input = block.input or {}
            block.input[#block.input + 1] = text
            return NOTHING
        elseif block.kind ~= "call" then
            return NOTHING
        end
        block.given = nil
        return { { on = "input", index = block.index, text = text } }
    end

    function delta_of.thinking_delta(block, delta)
        local text = word(delta.thinking)
        if not text or block.kind ~= "thinking" then return NOTHING end
        return { { on = "text", index = block.index, text = text } }
    end

    function delta_of.signature_delta(block, delta)
        if not word(delta.signature) or block.kind ~= "thinking" then return NOTHING end
        local signature, origin = content.unseal(delta.signature)
        return { { on = "signature", index = block.index, signature = signature, origin = origin } }
    end

    function delta_of.citations_delta(block, delta)
        local citation = object(delta.citation)
        if not citation or block.kind ~= "text" then return NOTHING end
        return { { on = "citation", index = block.index, citation = content.read_citation(citation) } }
    end

    -- ---- events

    local function started(message)
        if begun then return NOTHING end
        begun = true
        return { { on = "start", id = word(message.id) or cx.id("msg_"), model = word(message.model), created = cx.now,
            usage = usage_of(message.usage) } }
    end

    function on.message_start(e)
        return started(members(e.message))
    end

    function on.content_block_start(e)
        local at, block = fields.number(e.index), object(e.content_block)
        if not at or not block or stopped then return NOTHING end
        local out = started(NOTHING)
        local closed = blocks[at] and close(at, {})
        local kind = text_of(block.type) or "untyped"
        local opened
        if start[kind] then
            opened = start[kind](at, block)
        else
            blocks[at] = { kind = content.foreign(kind), what = kind, raw = block }
            opened = NOTHING
        end
        if out == NOTHING and not closed then return opened end
        local all = {}
        for _, list in ipairs({ out, closed or NOTHING, opened }) do
            for _, event in ipairs(list) do all[#all + 1] = event end
        end
        return all
    end

    function on.content_block_delta(e)
        local block, delta = blocks[e.index], e.delta
        if not block or type(delta) ~= "table" then return NOTHING end
        local read = delta_of[delta.type]
        return read and read(block, delta) or NOTHING
    end

    function on.content_block_stop(e)
        return blocks[e.index] and close(e.index, {}) or NOTHING
    end

    function on.message_delta(e)
        local delta, out = members(e.delta), {}
        out[1] = started(NOTHING)[1]
        local usage = object(e.usage) and usage_of(e.usage)
        if usage then out[#out + 1] = { on = "usage", usage = usage } end
        local stop = content.read_stop(delta.stop_reason)
        if stop and not stopped then
            stopped = true
            close_all(out)
            out[#out + 1] = { on = "stop", stop = stop, stop_text = word(delta.stop_sequence) }
        end
        return out
    end

    function on.message_stop()
        if not begun then return fail(CUT) end
        over = true
        local out = close_all({})
        if not stopped then out[#out + 1] = { on = "stop", stop = "end" } end
        out[#out + 1] = { on = "end" }
        return out
    end

    function on.ping()
        return { { on = "ping" } }
    end

    function on.error(e)
        return fail(errors.find(e) or UNNAMED)
    end

    return function(event)
        if over then return NOTHING end
        if not event then
            if not begun or not stopped then return fail(CUT) end
            over = true
            return { { on = "end" } }
        end
        local data = event.data
        if type(data) ~= "string" or data == "" then return NOTHING end
        local at, text = match(data, TEXT)
        if at then
            local block = blocks[tonumber(at)]
            if not block or block.kind ~= "text" then return NOTHING end
            return { { on = "text", index = block.index, text = text } }
        end
        local e = cx.decode(data)
        if type(e) ~= "table" then return fail(UNREADABLE) end
        local read = on[e.type] or e.type == nil and fields.says(e.error) and on.error
        return read and read(e) or NOTHING
    end
end

return M
