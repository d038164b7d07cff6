-- api_doc: has every function that a header of core declares its comment? Run from the repository's root:
-- luajit tests/lint/api_doc.lua
--
-- A declaration is documented by a comment directly above it, by one behind it on its line, or by that of the
-- declaration above when no blank line stands between them (a block). A static inline function shows what it does.

local root = os.getenv("CLAW_ROOT") or "."

local function headers()
    local list = {}
    local pipe = assert(io.popen(("cd '%s' && find core -name '*.h' -type f 2>/dev/null | LC_ALL=C sort"):format(root)))
    for path in pipe:lines() do list[#list + 1] = path end
    pipe:close()
    return list
end

local WORDS = { ["if"] = true, ["while"] = true, ["for"] = true, ["return"] = true, ["sizeof"] = true }

-- The name of the function that a line in the first column begins to declare or define.
local function declared(line)
    if not line:find("^[%a_]") or line:find("^typedef%f[%W]") or line:find("^static inline ") then return nil end
    local before, name = line:match("^([%a_][%w_%s%*]-)([%a_][%w_]*)%s*%(")
    if not name or not before:find("[%s%*]$") or WORDS[name] or name == "__attribute__" then return nil end
    return name
end

-- Calls found(number, name, documented) for each declaration.
local function walk(lines, found)
    local covered = false    -- does the block under way have its comment?
    local in_comment, in_directive, depth = false, false, 0
    for number, line in ipairs(lines) do
        if in_comment then
            if line:find("*/", 1, true) then in_comment, covered = false, true end
        elseif in_directive then
            in_directive = line:find("\\$") ~= nil
        elseif line:find("^%s*$") then
            if depth == 0 then covered = false end
        elseif line:find("^%s*#") then
            in_directive = line:find("\\$") ~= nil
        elseif depth == 0 and line:find("^%s*/%*") then
            in_comment = not line:find("*/", 1, true)
            covered = true
        else
            local name = depth == 0 and declared(line)
            if name then found(number, name, covered or line:find("/*", 1, true) ~= nil) end
            local _, opening = line:gsub("{", "")
            local _, closing = line:gsub("}", "")
            depth = depth + opening - closing
        end
    end
end

local paths, functions, failures = headers(), 0, 0
for _, path in ipairs(paths) do
    local lines = {}
    for line in io.lines(root .. "/" .. path) do lines[#lines + 1] = line end
    if not (lines[1] or ""):find("^/%*") then
        failures = failures + 1
        print(path .. ":1: does not open with what it is for")
    end
    walk(lines, function(number, name, documented)
        functions = functions + 1
        if documented then return end
        failures = failures + 1
        print(("%s:%d: %s has no comment"):format(path, number, name))
    end)
end

if functions == 0 then
    print("api_doc: no declarations found below " .. root)
    os.exit(2)
end
print(("api_doc: %d functions in %d headers, %s"):format(functions, #paths,
    failures == 0 and "all documented" or failures .. " wrong"))
os.exit(failures == 0 and 0 or 1)
