-- floors: does core/ stand as it was drawn? Run from the repository's root: luajit tests/lint/floors.lua
--
-- * an #include "floor/noun.h" points at the same floor or a lower one, and at a file that is there
-- * x_part.h is for its own floor only
-- * a .c has its contract: noun.h beside it; or it is a split of one: noun_part.c beside noun.h, or a file that opens
--   with "/* its name: what it is" and includes a header of its own floor first
-- * no file is called util, helper, common or misc
-- * no file is longer than 1000 lines, no function longer than 100

local FLOORS = { base = 1, net = 2, http = 3, proxy = 4, script = 5, app = 6 }
local FILE_LINES, FUNCTION_LINES = 1000, 100
local MEANINGLESS = { util = true, utils = true, helper = true, helpers = true, common = true, misc = true }

local failures = 0
local function fail(path, line, message, ...)
    failures = failures + 1
    print(("%s:%d: %s"):format(path, line, message:format(...)))
end

local root = os.getenv("CLAW_ROOT") or "."

local function files(what)
    local list = {}
    local pipe = assert(io.popen(("cd '%s' && find %s 2>/dev/null | LC_ALL=C sort"):format(root, what)))
    for path in pipe:lines() do list[#list + 1] = path end
    pipe:close()
    return list
end

local function lines_of(path)
    local lines = {}
    for line in io.lines(root .. "/" .. path) do lines[#lines + 1] = line end
    return lines
end

local function includes_of(lines)
    local list = {}
    for number, line in ipairs(lines) do
        local target = line:match('^%s*#%s*include%s*"([^"]+)"')
        if target then list[#list + 1] = { target = target, line = number } end
    end
    return list
end

local function check_includes(path, floor, includes, there)
    for _, include in ipairs(includes) do
        local to = include.target:match("^([^/]+)/")
        if not FLOORS[to] then
            fail(path, include.line, 'includes "%s": write it as "floor/noun.h"', include.target)
        elseif not there["core/" .. include.target] then
            fail(path, include.line, 'includes "%s", which is not there', include.target)
        elseif FLOORS[to] > FLOORS[floor] then
            fail(path, include.line, 'includes "%s": %s is above %s', include.target, to, floor)
        elseif to ~= floor and include.target:find("_part%.h$") then
            fail(path, include.line, 'includes "%s", which is for floor %s only', include.target, to)
        end
    end
end

local function check_contract(path, floor, lines, includes, there)
    local dir, noun = path:match("^(.*/)([^/]+)%.c$")
    if noun == "main" or there[dir .. noun .. ".h"] then return end
    local prefix = noun
    while prefix do
        prefix = prefix:match("^(.+)_[^_]+$")
        if prefix and there[dir .. prefix .. ".h"] then return end
    end
    local says = (lines[1] or ""):find("/* " .. noun .. ": ", 1, true) == 1
    if says and includes[1] and includes[1].target:match("^[^/]+") == floor then return end
    fail(path, 1, "has no %s.h, and does not open with what it is a part of", noun)
end

-- A function's body begins with a brace in the first column, and ends with one.
local function check_lengths(path, lines)
    if #lines > FILE_LINES then fail(path, #lines, "is %d lines long (at most %d)", #lines, FILE_LINES) end
    local opened
    for number, line in ipairs(lines) do
        if line:find("^{") then
            opened = number
        elseif line:find("^}") and opened then
            local length = number - opened + 1
            if length > FUNCTION_LINES then
                local name = lines[opened - 1] or ""
                fail(path, opened, "a function of %d lines (at most %d): %s", length, FUNCTION_LINES, name)
            end
            opened = nil
        end
    end
end

local sources, there = files("core -name '*.[ch]' -type f"), {}
for _, path in ipairs(sources) do there[path] = true end
if #sources == 0 then
    print("floors: no core/ below " .. root)
    os.exit(2)
end

for _, path in ipairs(sources) do
    local floor = path:match("^core/([^/]+)/[^/]+$")
    if not FLOORS[floor] then
        fail(path, 1, "stands on no floor (base, net, http, proxy, script, app)")
    else
        local lines = lines_of(path)
        local includes = includes_of(lines)
        check_includes(path, floor, includes, there)
        if path:find("%.c$") then check_contract(path, floor, lines, includes, there) end
        check_lengths(path, lines)
    end
end

local named = files("core lua policies spec tests examples -type f -not -path '*/.*' -not -path '*/__pycache__/*'")
for _, path in ipairs(named) do
    local noun = path:match("([^/]+)%.[^./]+$")
    if noun and MEANINGLESS[noun:lower()] then fail(path, 1, "its name says nothing: name it by its noun") end
end

print(("floors: %d files of core, %d names, %s"):format(#sources, #named,
    failures == 0 and "all as drawn" or failures .. " wrong"))
os.exit(failures == 0 and 0 or 1)
