-- re: claw.re, regular expressions (PCRE2) that cannot hold up a worker.

local M = {}

local CACHED = 256

-- pattern -> compiled; the core's objects, shared by a VM's policies and thrown away together when there are too many.
local function compiler(core)
    local cache, n = {}, 0
    return function(service, text, pattern)
        if type(text) ~= "string" or type(pattern) ~= "string" then
            error(service .. ": wants a text and a pattern", 3)
        end
        local compiled = cache[pattern]
        if compiled then return compiled end
        local message, place
        compiled, message, place = core.re_compile(pattern)
        if not compiled then error(("%s: bad pattern at %d: %s"):format(service, place, message), 3) end
        if n >= CACHED then cache, n = {}, 0 end
        cache[pattern], n = compiled, n + 1
        return compiled
    end
end

local function is_whole(v)
    return type(v) == "number" and v == math.floor(v)
end

-- What stands for a match: %0 the whole, %1 … %9 captures, %% a percent sign.
local function expand(replacement, whole, captures)
    return (replacement:gsub("%%(.?)", function(c)
        if c == "%" then return "%" end
        local i = tonumber(c)
        if not i then error("claw.re.gsub: in a replacement, % wants a digit or % behind it", 4) end
        if i == 0 or (i == 1 and #captures == 0) then return whole end
        if captures[i] == nil then error(("claw.re.gsub: there is no capture %%%d"):format(i), 4) end
        return captures[i] or ""
    end))
end

local function replaced(replacement, whole, captures)
    if type(replacement) == "string" then return expand(replacement, whole, captures) end
    local value
    if #captures > 0 then value = replacement(unpack(captures)) else value = replacement(whole) end
    if value == nil or value == false then return whole end
    if type(value) ~= "string" and type(value) ~= "number" then
        error(("claw.re.gsub: the function returned a %s"):format(type(value)), 3)
    end
    return tostring(value)
end

-- Where the character that begins at i ends.
local function after(text, i)
    local _, last = text:find("^[%z\1-\127\194-\244][\128-\191]*", i)
    return last or i
end

local function find_for(core, compile)
    return function(text, pattern, init)
        local compiled = compile("claw.re.find", text, pattern)
        init = init or 1
        if not is_whole(init) then error("claw.re.find: init wants a whole number", 2) end
        if init < 0 then init = math.max(#text + 1 + init, 1) end
        return core.re_exec(compiled, text, math.max(init, 1))
    end
end

local function match_for(core, compile)
    return function(text, pattern)
        local found = { core.re_exec(compile("claw.re.match", text, pattern), text, 1) }
        local from, to = found[1], found[2]
        if not from then return unpack(found, 1, 3) end
        if found[3] == nil then return text:sub(from, to) end
        return unpack(found, 3)
    end
end

local function gsub_for(core, compile)
    return function(text, pattern, replacement, limit)
        local compiled = compile("claw.re.gsub", text, pattern)
        if type(replacement) ~= "string" and type(replacement) ~= "function" then
            error("claw.re.gsub: wants a replacement, a text or a function", 2)
        end
        if limit ~= nil and not is_whole(limit) then error("claw.re.gsub: n wants a whole number", 2) end
        local calls = type(replacement) == "function" -- what it does is not the pattern's time
        local out, at, n = {}, 1, 0
        local no_empty, go_on = false, false -- no_empty: right behind an empty match
        while n < (limit or math.huge) and at <= #text + 1 do
            local found = { core.re_exec(compiled, text, at, no_empty, go_on, calls) }
            go_on = true
            local from, to = found[1], found[2]
            if not from and to then return nil, to, found[3] end
            if from then
                out[#out + 1] = text:sub(at, from - 1)
                out[#out + 1] = replaced(replacement, text:sub(from, to), { unpack(found, 3) })
                at, n, no_empty = to + 1, n + 1, to < from
            elseif no_empty and at <= #text then
                local last = after(text, at)
                out[#out + 1] = text:sub(at, last)
                at, no_empty = last + 1, false
            else
                break
            end
        end
        out[#out + 1] = text:sub(at)
        return table.concat(out), n
    end
end

-- claw.re; one for all policies of a VM.
function M.new(core)
    local compile = compiler(core)
    return { find = find_for(core, compile), match = match_for(core, compile), gsub = gsub_for(core, compile) }
end

return M
