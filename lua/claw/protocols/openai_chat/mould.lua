-- mould: chunks that are the one before with another text in it. Pure.
--
-- Most are, and decoding is most of a chunk's cost. So a chunk that said nothing but one piece of text is kept as what
-- stands before and behind that text; one that begins and ends with the very same bytes, and has no character between
-- that means something in JSON, says the same with that text. OpenAI's `obfuscation` (of another length each time) may
-- differ.

local M = {}

local find, sub = string.find, string.sub

local BEFORE = '"delta":{"content":"'
local OBFUSCATION = '"obfuscation":"'

-- The mould of a chunk whose one event was `text`, or nil.
function M.make(data, text)
    local _, last = find(data, BEFORE, 1, true)
    local stop = last and last + #text + 1
    if not last or sub(data, last + 1, stop - 1) ~= text or sub(data, stop, stop) ~= '"' then return nil end
    local tail = sub(data, stop)
    local _, cut = find(tail, OBFUSCATION, 1, true)
    local close = cut and find(tail, '"', cut + 1, true)
    if find(tail, BEFORE, 1, true) then return nil end -- of another choice
    return { head = sub(data, 1, last), tail = tail,
        middle = close and sub(tail, 1, cut), rest = close and sub(tail, close) }
end

-- The text of a chunk of that mould, or nil.
function M.text(m, data)
    local from = #m.head + 1
    if sub(data, 1, from - 1) ~= m.head then return nil end
    local stop = find(data, '["\\%c]', from)
    if not stop or stop == from then return nil end
    if sub(data, stop) == m.tail then return sub(data, from, stop - 1) end
    if not m.middle or sub(data, stop, stop + #m.middle - 1) ~= m.middle then return nil end
    local close = find(data, '["\\%c]', stop + #m.middle)
    if close and sub(data, close) == m.rest then return sub(data, from, stop - 1) end
end

return M
