-- messages: turns of the vocabulary as Bedrock's messages: they alternate, results stand first in theirs and answer a
-- call of the turn before.

local blocks = require("claw.protocols.bedrock_converse.blocks")
local json = require("claw.json")

local M = {}

-- Turns of one role in a row as one; what a system turn says goes to the system prompt, in order.
local function merged(r)
    local out, system = {}, {}
    for _, part in ipairs(r.system or {}) do system[#system + 1] = part end
    for _, turn in ipairs(r.turns) do
        local to = out[#out]
        if turn.role == "system" then
            to = { parts = system }
        elseif not to or to.role ~= turn.role then
            to = { role = turn.role, parts = {} }
            out[#out + 1] = to
        end
        for _, part in ipairs(turn.parts) do table.insert(to.parts, part) end
    end
    if not out[1] and system[1] then return { { role = "user", parts = system } }, {} end
    return out, system
end

local function calls_of(turn)
    local ids = {}
    for _, part in ipairs(turn and turn.parts or {}) do
        if part.kind == "call" then ids[part.id] = true end
    end
    return ids
end

local function write_user(turn, before, cx)
    local asked, out, rest = calls_of(before), {}, {}
    for _, part in ipairs(turn.parts) do
        if part.kind ~= "result" then
            blocks.add(part, rest, cx)
        elseif asked[part.id] then
            asked[part.id] = nil
            blocks.add_result(part, out, cx)
        else
            cx.drop("messages.tool_call_id", "hint", "a result without its call goes as the user's text")
            for _, p in ipairs(part.parts) do blocks.add(p, rest, cx) end
        end
    end
    for _, block in ipairs(rest) do out[#out + 1] = block end
    return out
end

local function write_assistant(turn, cx)
    local out = {}
    for _, part in ipairs(turn.parts) do blocks.add(part, out, cx) end
    return out
end

local WHITE = { [9] = true, [10] = true, [11] = true, [12] = true, [13] = true, [32] = true }

-- The turn that the answer goes on from ends with no white space: Claude refuses that.
local function trim_last(out)
    local turn = out[#out]
    local last = turn and turn.role == "assistant" and turn.content[#turn.content]
    if not last or not last.text then return end
    local stop = #last.text
    while WHITE[last.text:byte(stop)] do stop = stop - 1 end -- a pattern would take the square of a long run
    last.text = last.text:sub(1, stop)
end

-- system (nil: none), messages.
function M.write(r, cx)
    local turns, system = merged(r)
    local out, said = json.array(), {}
    for i, turn in ipairs(turns) do
        local made = turn.role == "user" and write_user(turn, turns[i - 1], cx) or write_assistant(turn, cx)
        local last = out[#out]
        if made[1] and last and last.role == turn.role then -- the turn between them said nothing
            for _, block in ipairs(made) do table.insert(last.content, block) end
        elseif made[1] then
            out[#out + 1] = { role = turn.role, content = made }
        end
    end
    trim_last(out)
    for _, part in ipairs(system) do
        if part.kind == "text" then
            blocks.add(part, said, cx)
        else
            cx.drop("messages.content." .. tostring(part.what or part.kind), "content", "a system prompt is text")
        end
    end
    for _, turn in ipairs(r.turns) do
        if turn.name then cx.drop("messages.name", "hint") end
    end
    if not out[1] then cx.refuse("there is no message with anything in it", "messages") end
    return said[1] and said or nil, out
end

-- The names of all tools that the conversation called.
function M.called(r)
    local names, seen = {}, {}
    for _, turn in ipairs(r.turns) do
        for _, part in ipairs(turn.parts) do
            if part.kind == "call" and not seen[part.name] then
                seen[part.name] = true
                names[#names + 1] = part.name
            end
        end
    end
    return names
end

return M
