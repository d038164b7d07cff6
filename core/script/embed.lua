-- embed: what the binary carries, as C. Run at build time: luajit core/script/embed.lua OUT.c LUA_DIR POLICIES_DIR PAGES_DIR
--
-- LUA_DIR/claw/**/*.lua become bytecode with debug information (claw/route/init.lua is module claw.route);
-- POLICIES_DIR/*.lua stay source text, for they are compiled like a user's; PAGES_DIR/* are what the admin port serves, each also
-- packed (gzip). Sorted: equal trees give equal files.

local out_path, lua_dir, policies_dir, pages_dir = ...
if not pages_dir then
    io.stderr:write("usage: luajit embed.lua OUT.c LUA_DIR POLICIES_DIR PAGES_DIR\n")
    os.exit(2)
end

local function quote(path)
    return "'" .. path:gsub("'", "'\\''") .. "'"
end

local function files(dir, depth, name)
    local list = {}
    local find = assert(io.popen(("find %s %s -type f -name '%s' 2>/dev/null"):format(quote(dir), depth, name)))
    for path in find:lines() do list[#list + 1] = path:sub(#dir + 2) end
    find:close()
    table.sort(list)
    return list
end

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

local function module_name(path)
    local name = path:gsub("%.lua$", ""):gsub("/", ".")
    return (name:gsub("%.init$", ""))
end

local out = {
    "/* Made by core/script/embed.lua. */",
    '#include "script/vm.h"',
    "",
}
local count = 0

local function add_array(bytes)
    count = count + 1
    out[#out + 1] = ("static const unsigned char data_%d[] = {"):format(count)
    for i = 1, #bytes, 24 do
        out[#out + 1] = "    " .. table.concat({ bytes:byte(i, math.min(i + 23, #bytes)) }, ",") .. ","
    end
    if #bytes == 0 then out[#out + 1] = "    0," end
    out[#out + 1] = "};"
    return count
end

local function add_list(name, entries)
    out[#out + 1] = ("const struct claw_embedded %s[] = {"):format(name)
    for _, e in ipairs(entries) do
        out[#out + 1] = ('    {"%s", data_%d, %d},'):format(e.name, e.array, e.size)
    end
    out[#out + 1] = "    {0, 0, 0},"
    out[#out + 1] = "};"
end

local modules, policies, pages = {}, {}, {}
for _, path in ipairs(files(lua_dir, "", "*.lua")) do
    if path:match("^claw/") then
        local chunk = assert(loadstring(read(lua_dir .. "/" .. path), "@" .. path))
        local bytes = string.dump(chunk)
        modules[#modules + 1] = { name = module_name(path), array = add_array(bytes), size = #bytes }
    end
end
for _, path in ipairs(files(policies_dir, "-maxdepth 1", "*.lua")) do
    local bytes = read(policies_dir .. "/" .. path)
    policies[#policies + 1] = { name = (path:gsub("%.lua$", "")), array = add_array(bytes), size = #bytes }
end
for _, path in ipairs(files(pages_dir, "-maxdepth 1", "*.*")) do
    local bytes = read(pages_dir .. "/" .. path)
    pages[#pages + 1] = { name = path, array = add_array(bytes), size = #bytes }
    local packed = assert(io.popen("gzip -9nc " .. quote(pages_dir .. "/" .. path)))
    bytes = packed:read("*a")
    packed:close()
    if #bytes > 0 then pages[#pages + 1] = { name = path .. ".gz", array = add_array(bytes), size = #bytes } end
end
add_list("claw_embedded_lua", modules)
add_list("claw_embedded_policies", policies)
add_list("claw_embedded_pages", pages)

local file = assert(io.open(out_path, "wb"))
assert(file:write(table.concat(out, "\n"), "\n"))
file:close()
