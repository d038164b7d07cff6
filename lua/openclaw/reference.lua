-- reference: docs/policy-reference.md, written from what the library itself goes by: claw.phases for the hooks,
-- openclaw/claw.d.lua for types and functions. Run: luajit lua/openclaw/reference.lua OUT.md
--
-- As a module: declared(text) reads the annotations, text(…) is the page.

local root = arg and arg[0] and arg[0]:match("^(.*)openclaw/reference%.lua$")
if root then package.path = ("%s?.lua;%s?/init.lua;%s"):format(root, root, package.path) end

local phases = require("claw.phases")

local M = {}

-- A type ends at the first space outside of brackets that no operator stands beside.
local function type_and_rest(text)
    local depth, at = 0, 1
    while at <= #text do
        local c = text:sub(at, at)
        if c:find("[%[({<]") then depth = depth + 1 end
        if c:find("[%])}>]") then depth = depth - 1 end
        if c == " " and depth == 0 and not text:sub(1, at - 1):find("[:,|]$") and not text:find("^%s*|", at) then
            break
        end
        at = at + 1
    end
    return text:sub(1, at - 1), text:sub(at + 1)
end

local function named(text)
    local name, rest = text:match("^(%S+)%s+(.*)$")
    if text:sub(1, 1) == "[" then name, rest = text:match("^(%b[])%s+(.*)$") end
    local kind, about = type_and_rest(rest)
    return { name = name, type = kind, about = about }
end

local function returned(text)
    local kind, rest = type_and_rest(text)
    local name, about = rest:match("^(%S+)%s*(.*)$")
    return { type = kind, name = name or "", about = about or "" }
end

local READ = {
    param = function(block, text) block.params[#block.params + 1] = named(text) end,
    field = function(block, text) block.fields[#block.fields + 1] = named(text) end,
    ["return"] = function(block, text) block.returns[#block.returns + 1] = returned(text) end,
    class = function(block, text) block.class = text end,
    alias = function(block, text) block.alias, block.type = text:match("^(%S+)%s+(.*)$") end,
    meta = function() end,
}

-- What claw.d.lua declares. A block has name and args (of a function), class or alias, doc (lines), params, fields,
-- returns; groups: the block above "claw.x = {}", by its name.
function M.declared(text)
    local out = { functions = {}, classes = {}, aliases = {}, groups = {} }
    local function new() return { doc = {}, params = {}, fields = {}, returns = {} } end
    local block = new()
    local function finish()
        if block.alias then out.aliases[#out.aliases + 1] = block end
        if block.class then out.classes[#out.classes + 1] = block end
        block = new()
    end
    for line in text:gmatch("([^\n]*)\n") do
        local tag, rest = line:match("^%-%-%-@(%l+)%s*(.*)$")
        local name, args = line:match("^function ([%w._]+)%((.-)%) end$")
        if tag then
            assert(READ[tag], "unknown tag @" .. tag)(block, rest)
        elseif line:find("^%-%-%-") then
            block.doc[#block.doc + 1] = line:sub(4)
        elseif name then
            block.name, block.args = name, args
            out.functions[#out.functions + 1] = block
            block = new()
        else
            local group = line:match("^([%w._]+) = {}$")
            if group then out.groups[group] = block end
            finish()
        end
    end
    finish()
    return out
end

-- ---- the page

local function cell(text)
    return (text:gsub("|", "\\|"))
end

local function code(text)
    return text == "" and "" or "`" .. text .. "`"
end

local function rows(out, fields)
    out[#out + 1] = ""
    out[#out + 1] = "| | type | |"
    out[#out + 1] = "|---|---|---|"
    for _, f in ipairs(fields) do
        out[#out + 1] = ("| `%s` | %s | %s |"):format(f.name, cell(code(f.type)), cell(f.about))
    end
end

-- Where a function may be called: by the table of services, where there is one, else by its line "Waits.".
local function allowed(name, waits)
    local service, names = (phases.service_by_name or {})[name], {}
    for _, phase in ipairs(phases.list) do
        if waits and phase.waits then names[#names + 1] = phase.hook end
    end
    if service then names = service.hooks or {} end
    return #names > 0 and "`" .. table.concat(names, "`, `") .. "`" or "all"
end

local function hooks(out, policy)
    local types = {}
    for _, f in ipairs(policy.fields) do types[f.name:gsub("%?$", "")] = f.type end
    out[#out + 1] = "\n## Hooks\n\nIn the order in which a request meets them.\n"
    out[#out + 1] = "| hook | may wait | returns |"
    out[#out + 1] = "|---|---|---|"
    for _, phase in ipairs(phases.list) do
        out[#out + 1] = ("| `%s(%s)` | %s | %s |"):format(phase.hook, table.concat(phase.args, ", "),
            phase.waits and "yes" or "no", cell(phase.gives))
    end
    out[#out + 1] = "\nAs types:\n\n```lua"
    for _, phase in ipairs(phases.list) do out[#out + 1] = ("%s: %s"):format(phase.hook, types[phase.hook]) end
    out[#out + 1] = "```"
end

local function one_function(out, f, there)
    out[#out + 1] = ("\n### %s(%s)\n"):format(f.name, f.args)
    local waits, doc, tags = false, {}, {}
    for _, line in ipairs(f.doc) do
        if line == "Waits." then
            waits = true
        elseif line:find("^Errors:") or line:find("^Raises:") then
            tags[#tags + 1] = "- " .. line
        else
            doc[#doc + 1] = line
        end
    end
    if #doc > 0 then out[#out + 1] = table.concat(doc, "\n") .. "\n" end
    for _, p in ipairs(f.params) do
        out[#out + 1] = ("- `%s` %s%s"):format(p.name, code(p.type), p.about ~= "" and ": " .. p.about or "")
    end
    local values = {}
    for i, r in ipairs(f.returns) do
        values[i] = (r.name ~= "" and "`" .. r.name .. "` " or "") .. code(r.type)
            .. (r.about ~= "" and " (" .. r.about .. ")" or "")
    end
    out[#out + 1] = "- Returns: " .. (#values > 0 and table.concat(values, ", ") or "nothing")
    for _, tag in ipairs(tags) do out[#out + 1] = tag end
    out[#out + 1] = "- Hooks: " .. allowed(f.name, waits) .. (waits and "; waits" or "")
    if not there[f.name] then
        out[#out + 1] = "- **Not in this version of the proxy**: in `openclaw.testing` only."
    end
end

-- declarations: the text of claw.d.lua; there: set of the functions that the proxy has.
function M.text(declarations, there)
    local d = M.declared(declarations)
    local out = { "# Policy reference", "",
        "Written by `make docs` from `lua/claw/phases.lua` and `lua/openclaw/claw.d.lua`; the guide to it is",
        "[lua/README.md](../lua/README.md)." }
    hooks(out, d.classes[1])
    out[#out + 1] = "\n## Functions"
    for _, f in ipairs(d.functions) do
        local group = f.name:match("^(.*)%.[^.]+$")
        local block = d.groups[group]
        if group ~= "claw" and block and #block.doc > 0 and not block.told then
            block.told = true
            out[#out + 1] = ("\n**%s**: "):format(group) .. table.concat(block.doc, "\n")
        end
        one_function(out, f, there)
    end
    out[#out + 1] = "\n## Types"
    for _, c in ipairs(d.classes) do
        out[#out + 1] = ("\n### %s"):format(c.class)
        if #c.doc > 0 then out[#out + 1] = "\n" .. table.concat(c.doc, "\n") end
        if #c.fields > 0 then rows(out, c.fields) end
    end
    for _, a in ipairs(d.aliases) do
        out[#out + 1] = ("\n### %s\n\n%s\n\n```lua\n%s\n```"):format(a.alias, table.concat(a.doc, "\n"), a.type)
    end
    return table.concat(out, "\n") .. "\n"
end

-- The names of all functions in a `claw` table.
function M.functions_of(claw)
    local out = {}
    local function walk(prefix, t)
        for key, value in pairs(t) do
            if type(value) == "function" then out[prefix .. "." .. key] = true end
            if type(value) == "table" then walk(prefix .. "." .. key, value) end
        end
    end
    walk("claw", claw)
    return out
end

-- The `claw` of a policy in the proxy, over a core that has every function asked for.
function M.proxy_services()
    local store = require("openclaw.store")
    local core = setmetatable({ doc = require("openclaw.document").functions, null = require("claw.json").null,
        store = function(policy) return store.functions(store.new(), policy) end },
        { __index = function() return function() end end })
    return require("claw").services(core, {})("reference")
end

if root then
    local source = assert(io.open(root .. "openclaw/claw.d.lua"))
    local text = M.text(source:read("*a"), M.functions_of(M.proxy_services()))
    source:close()
    local out = assert(io.open(arg[1], "w"))
    assert(out:write(text))
    out:close()
end

return M
