-- pieces: the parts of a Responses stream that have begun, and the piece of text that an event adds to one.

local fields = require("claw.protocols.fields")

local M = {}

local match = string.match
local count = fields.count

local NOTHING = {}
local PARTS = 4096 -- of an item, at most
M.PARTS = PARTS

-- What is known of a stream.
function M.new()
    return { parts = {}, items = {}, all = {}, count = 0 }
end

-- ---- parts: { index, kind, key, open, said (has any text or input come?) }

function M.put(out, event)
    out[#out + 1] = event
end

function M.close(s, part, out)
    if not part.open then return end
    part.open = false
    if s.text == part then s.text = nil end
    M.put(out, { on = "part_end", index = part.index })
end

-- Those of an item.
function M.close_item(s, output, out)
    local all = s.items[output] or NOTHING
    s.items[output] = nil
    for _, part in ipairs(all) do M.close(s, part, out) end
end

function M.close_all(s, out)
    for _, part in ipairs(s.all) do M.close(s, part, out) end
end

function M.begin(s, key, given, out)
    if s.text then M.close(s, s.text, out) end -- only calls may be open together
    local part, output = { index = s.count, kind = given.kind, open = true }, math.floor(key / PARTS)
    s.count = s.count + 1
    s.parts[key], s.all[s.count] = part, part
    s.items[output] = s.items[output] or {}
    table.insert(s.items[output], part)
    if part.kind ~= "call" then s.text = part end
    s.calls, s.refused = s.calls or part.kind == "call", s.refused or part.kind == "refusal"
    M.put(out, { on = "part", index = part.index, part = given })
    return part
end

function M.key_of(e)
    return (count(e.output_index) or 0) * PARTS + (count(e.content_index) or 0) % PARTS
end

function M.text(s, key, kind, said, out)
    if type(said) ~= "string" or said == "" then return end
    local part = s.parts[key]
    if not part or not part.open or part.kind ~= kind then part = M.begin(s, key, { kind = kind }, out) end
    part.said = true
    M.put(out, { on = "text", index = part.index, text = said })
end

-- Most events are a piece of text without a character that must be escaped, spelt like one of these: no need to decode.
local HEAD = '{"type":"response.output_text.delta",'
local TEXTS = {
    '^"content_index":(%d+),"delta":"([^"\\%c]+)","item_id":"[%w_-]+","logprobs":%[%],"obfuscation":"%w*",'
        .. '"output_index":(%d+),"sequence_number":%d+}$',
    '^"content_index":(%d+),"delta":"([^"\\%c]+)","item_id":"[%w_-]+","logprobs":%[%],'
        .. '"output_index":(%d+),"sequence_number":%d+}$',
}

-- A text's piece { key of its part, text } in an event's data, nothing when it must be decoded.
function M.piece(data)
    if data:sub(1, #HEAD) ~= HEAD then return end
    for i = 1, #TEXTS do
        local at, said, output = match(data, TEXTS[i], #HEAD + 1)
        if at then return tonumber(output) * PARTS + tonumber(at), said end
    end
end

-- Decoding is slower where there is a [], and each piece of text has one that says nothing.
function M.decoded(data, cx)
    if data:sub(1, #HEAD - 2) == HEAD:sub(1, -3) then data = data:gsub(',"logprobs":%[%]', "", 1) end
    return cx.decode(data)
end

return M
