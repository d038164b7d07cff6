-- names: does every symbol that core exports begin with claw_? Run from the repository's root, behind a build:
-- luajit tests/lint/names.lua [ARCHIVE]. llhttp's objects lie in the same archive and keep their names.

local root = os.getenv("CLAW_ROOT") or "."
local archive = arg[1] or (root .. "/build/release/libclaw.a")

local file = io.open(archive, "rb")
if not file then
    print("names: skipped, " .. archive .. " is not built")
    os.exit(0)
end
file:close()

local PREFIXES = { "^claw_", "^llhttp_" }

local pipe = assert(io.popen(("nm -A -g --defined-only '%s' 2>/dev/null"):format(archive)))
local seen, failures = 0, 0
for line in pipe:lines() do
    local where, symbol = line:match("^(.-):%x+%s+%a%s+(%S+)$")
    if symbol then
        local known = false
        for _, prefix in ipairs(PREFIXES) do known = known or symbol:find(prefix) ~= nil end
        seen = seen + 1
        if not known then
            failures = failures + 1
            print(("%s: %s: make it static, or begin it with claw_"):format(where:match("([^/]+)$"), symbol))
        end
    end
end
pipe:close()

if seen == 0 then
    print("names: nm found no symbol in " .. archive)
    os.exit(2)
end
print(("names: %d exported, %s"):format(seen, failures == 0 and "all claw_" or failures .. " wrong"))
os.exit(failures == 0 and 0 or 1)
