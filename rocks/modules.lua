-- modules: writes the list of modules into the rockspec, from the files under lua/. Run by make docs, from the root.

local PATH = "rocks/openclaw-scm-1.rockspec"

local lines, pipe = {}, assert(io.popen("find lua -name '*.lua' ! -name '*.d.lua' | LC_ALL=C sort"))
for file in pipe:lines() do
    local module = file:match("^lua/(.*)%.lua$"):gsub("/", "."):gsub("%.init$", "")
    lines[#lines + 1] = ('        ["%s"] = "%s",\n'):format(module, file)
end
pipe:close()

local file = assert(io.open(PATH))
local text = file:read("*a")
file:close()
local made, n = text:gsub("(    modules = {\n).-(    },\n)", function(from, to)
    return from .. table.concat(lines) .. to
end)
assert(n == 1, PATH .. " has no list of modules")
file = assert(io.open(PATH, "w"))
assert(file:write(made))
file:close()
