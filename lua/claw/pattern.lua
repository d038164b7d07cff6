-- pattern: is a text a well-formed Lua pattern? string.find only says so once the matching gets that far. Pure.

local M = {}

-- The position behind the class or set that starts at `at`, or nil, message.
local function item(text, at)
    local c = text:sub(at, at)
    if c == "%" then
        if at == #text then return nil, "ends with %" end
        return at + 2
    end
    if c ~= "[" then return at + 1 end
    local i = at + 1
    if text:sub(i, i) == "^" then i = i + 1 end
    repeat -- a ] that comes first is itself
        if i > #text then return nil, "has a [ without ]" end
        i = i + (text:sub(i, i) == "%" and 2 or 1)
    until text:sub(i, i) == "]"
    return i + 1
end

-- nil when the pattern is well formed, else what is wrong with it.
function M.problem(text)
    local at, open = 1, 0
    while at <= #text do
        local two = text:sub(at, at + 1)
        if two == "%b" then
            if at + 3 > #text then return "has a %b without its two characters" end
            at = at + 4
        elseif two == "%f" then
            if text:sub(at + 2, at + 2) ~= "[" then return "has a %f without its set" end
            at = at + 2
        elseif two:sub(1, 1) == "(" then
            open, at = open + 1, at + 1
        elseif two:sub(1, 1) == ")" then
            if open == 0 then return "has a ) without (" end
            open, at = open - 1, at + 1
        else
            local behind, message = item(text, at)
            if not behind then return message end
            at = behind
        end
    end
    if open > 0 then return "has a ( without )" end
    local ok, message = pcall(string.find, "", text)
    if not ok then return message end
    return nil
end

return M
