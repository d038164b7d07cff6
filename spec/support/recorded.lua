-- Recorded provider traffic, which is not part of this tree: CLAW_SHARED names the folder that holds fixtures/, else it is
-- `shared` beside one of the folders this repository lies in. Specs over it are pending where there is none.

local json = require("claw.json")

local M = {}

local function read(path)
    local file = io.open(path, "rb")
    if not file then return nil end
    local text = file:read("*a")
    file:close()
    return text
end

local function find()
    local named = os.getenv("CLAW_SHARED")
    if named then return read(named .. "/fixtures/INDEX.md") and named .. "/fixtures" end
    local up = ".."
    for _ = 1, 4 do
        if read(up .. "/shared/fixtures/INDEX.md") then return up .. "/shared/fixtures" end
        up = up .. "/.."
    end
    return nil
end

local folder = find()

-- Where the recordings are, or nil.
M.folder = folder
M.missing = "no recordings: CLAW_SHARED names the folder that holds fixtures/"

-- { type, data } of an SSE text, as the proxy's parser gives them.
function M.events(text)
    local out, kind, data = {}, nil, {}
    text = text:gsub("\r\n", "\n"):gsub("\r", "\n")
    if text:sub(-1) ~= "\n" then text = text .. "\n" end
    for line in (text .. "\n"):gmatch("(.-)\n") do
        if line == "" then
            if data[1] then out[#out + 1] = { type = kind, data = table.concat(data, "\n") } end
            kind, data = nil, {}
        else
            local name, value = line:match("^(%w+): ?(.*)$")
            if name == "data" then data[#data + 1] = value elseif name == "event" then kind = value end
        end
    end
    return out
end

-- Events of lines of JSON.
function M.lines(text)
    local out = {}
    for line in text:gmatch("[^\r\n]+") do out[#out + 1] = { data = line } end
    return out
end

local function big_endian(text, at, bytes)
    local n = 0
    for i = at, at + bytes - 1 do n = n * 256 + text:byte(i) end
    return n
end

-- Events of AWS's event-stream framing; its headers here are all strings.
function M.frames(text)
    local out, at = {}, 1
    while at < #text do
        local total, headers = big_endian(text, at, 4), big_endian(text, at + 4, 4)
        local event, pos = { data = text:sub(at + 12 + headers, at + total - 5) }, at + 12
        while pos < at + 12 + headers do
            local name = text:sub(pos + 1, pos + text:byte(pos))
            pos = pos + 2 + #name
            local length = big_endian(text, pos, 2)
            local value = text:sub(pos + 2, pos + 1 + length)
            if name == ":event-type" or name == ":exception-type" then event.type = value end
            pos = pos + 2 + length
        end
        out[#out + 1] = event
        at = at + total
    end
    return out
end

local function load(name)
    local at = folder .. "/" .. name .. "/"
    local case = { name = name, meta = json.decode(read(at .. "meta.json")), request = read(at .. "request.json"),
        json = read(at .. "response.json"), sse = read(at .. "response.sse"), text = read(at .. "response.txt") }
    if case.sse then case.events = M.events(case.sse) end
    local lines, frames = read(at .. "response.ndjson"), read(at .. "response.bin")
    if lines then case.events = M.lines(lines) end
    if frames then case.events = M.frames(frames) end
    return case
end

local cases
-- All cases that fn(case) is true of, by name. case: { name, meta, request, json, sse, text, events }
function M.cases(fn)
    if not folder then return {} end
    if not cases then
        cases = {}
        for line in io.lines(folder .. "/INDEX.md") do
            local name = line:match("^| ([%w_-]+/[%w_.-]+) |")
            if name and read(folder .. "/" .. name .. "/meta.json") then cases[#cases + 1] = load(name) end
        end
        table.sort(cases, function(a, b) return a.name < b.name end)
    end
    local out = {}
    for _, case in ipairs(cases) do
        if fn(case) then out[#out + 1] = case end
    end
    return out
end

function M.case(name)
    return M.cases(function(case) return case.name == name end)[1]
end

return M
