-- grounding: where an answer's words come from. Google counts bytes of the text, the vocabulary characters.

local fields = require("claw.protocols.fields")
local json = require("claw.json")

local M = {}

local word, count, object, list, members = fields.word, fields.count, fields.object, fields.list, fields.fields

-- ---- bytes and characters

local function characters(text, bytes)
    local _, n = text:sub(1, bytes):gsub("[^\128-\191]", "")
    return n
end

local function bytes(text, n)
    local at = 1
    for _ = 1, n do
        at = text:find("[^\128-\191]", at + 1) or #text + 1
    end
    return math.min(at - 1, #text)
end

-- ---- reading

-- The place of the text that a segment is of: the one that has its words there, else the last.
local function place(segment, texts)
    local from, to, said = count(segment.startIndex) or 0, count(segment.endIndex), word(segment.text)
    for i, text in ipairs(texts) do
        if to and said and text:sub(from + 1, to) == said then return i, from, to end
    end
    return #texts, nil, nil
end

local function source(chunk)
    local of = object(chunk) and (object(chunk.web) or object(chunk.retrievedContext) or object(chunk.maps))
    local url = of and word(of.uri)
    return url and { url = url, title = word(of.title) } or nil
end

local function cite(found, segment, texts, out)
    local at, from, to = place(segment, texts)
    if at == 0 then return end
    local citation = { url = found.url, title = found.title, text = word(segment.text) }
    if from then citation.start, citation.finish = characters(texts[at], from), characters(texts[at], to) end
    out[#out + 1] = { at = at, citation = citation }
end

-- What a candidate cites: a list of { at = which of the texts, citation }.
function M.read(candidate, texts)
    local out, cited = {}, {}
    local meta = members(candidate.groundingMetadata)
    local chunks, supports = list(meta.groundingChunks), list(meta.groundingSupports)
    for i = 1, #supports do
        local support = members(supports[i])
        local segment, at = members(support.segment), list(support.groundingChunkIndices)
        for j = 1, #at do
            local n = count(at[j])
            local found = n and source(chunks[n + 1])
            if found then
                cited[n + 1] = true
                cite(found, segment, texts, out)
            end
        end
    end
    for i = 1, #chunks do
        local found = not cited[i] and source(chunks[i])
        if found and texts[1] then out[#out + 1] = { at = #texts, citation = found } end
    end
    local quoted = members(candidate.citationMetadata)
    local sources = fields.array(quoted.citationSources) or list(quoted.citations)
    for i = 1, #sources do
        local one = members(sources[i])
        local to = count(one.endIndex)
        if word(one.uri) and texts[1] then
            local citation = { url = one.uri, title = word(one.title) }
            if to and #texts == 1 then
                citation.start = characters(texts[1], count(one.startIndex) or 0)
                citation.finish = characters(texts[1], to)
            end
            out[#out + 1] = { at = #texts, citation = citation }
        end
    end
    return out
end

-- ---- writing

-- groundingMetadata for citations: a list of { text of the part, part = its place among the answer's, base = bytes in
-- front of it, citation }; nil when none of them has a URL.
function M.write(cited)
    local chunks, supports, known = json.array(), json.array(), {}
    for _, one in ipairs(cited) do
        local c = one.citation
        if c.url then
            local n = known[c.url]
            if not n then
                n = #chunks
                known[c.url] = n
                chunks[n + 1] = { web = { uri = c.url, title = c.title } }
            end
            if c.start and c.finish then
                local from, to, base = bytes(one.text, c.start), bytes(one.text, c.finish), one.base or 0
                supports[#supports + 1] = { groundingChunkIndices = { n }, segment = { partIndex = one.part,
                    startIndex = base + from, endIndex = base + to, text = one.text:sub(from + 1, to) } }
            end
        end
    end
    if not chunks[1] then return nil end
    return { groundingChunks = chunks, groundingSupports = supports[1] and supports or nil }
end

return M
