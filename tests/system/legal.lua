-- Judges streams by the rules the specs have: a line of JSON in, { dialect, events = [[type or false, data] …] }; a line out:
-- empty, or what is wrong. Run in the repository, with its lua/ on the path.

local json = require("claw.json")
local dialects = require("spec.support.dialect_streams")
local rules = require("spec.support.stream_rules")

local CHECK = { chat = rules.openai_chat, messages = rules.anthropic_messages, gemini = dialects.gemini,
    responses = dialects.openai_responses, ollama = dialects.ollama_chat }

io.stdout:setvbuf("line")
for line in io.lines() do
    local asked, list = json.decode(line), {}
    for i, e in ipairs(asked.events) do list[i] = { type = e[1] or nil, data = e[2] } end
    local ok, problem = pcall(CHECK[asked.dialect], list)
    io.write((tostring(problem or ""):gsub("\n", " ")), "\n")
    if not ok then io.stderr:write(tostring(problem), "\n") end
end
