-- tools: functions, custom tools, OpenAI's own tools, and which may be called; both ways, and as an answer echoes them.

local content = require("claw.protocols.openai_responses.content")
local fields = require("claw.protocols.fields")
local json = require("claw.json")
local losses = require("claw.protocols.losses")

local M = {}

local word, object, list, members = fields.word, fields.object, fields.list, fields.fields

-- ---- reading

local CUSTOM = '{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],'
    .. '"additionalProperties":false}'

local KIND = { web_search = "web_search", code_interpreter = "code_execution" }

local function kind_of(name)
    if name:find("^web_search") then return "web_search" end
    return KIND[name] or name
end

local FUNCTION = { type = true, name = true, description = true, parameters = true, strict = true }

local function read_tool(tool, cx, at)
    local kind = word(tool.type) or "function"
    if kind == "function" then
        local f = object(tool["function"]) or tool
        if not word(f.name) then return nil end
        losses.extra(f, FUNCTION, cx, "tools[%d]", at)
        return { name = f.name, description = word(f.description), schema = object(f.parameters),
            strict = fields.flag(f.strict) }
    elseif kind == "custom" and word(tool.name) then
        if word(members(tool.format).type) == "grammar" then
            cx.drop(("tools[%d].format"):format(at), "schema", "a grammar has no counterpart")
        end
        return { name = tool.name, description = word(tool.description), schema = cx.parse(CUSTOM), custom = true }
    end
    return { server = tool, kind = kind_of(kind), origin = content.OWN }
end

local function read_choice(choice, r, cx)
    if word(choice) then
        if choice == "auto" or choice == "none" or choice == "required" then return { mode = choice } end
        cx.drop("tool_choice", "tool", "none that others know")
        return nil
    end
    choice = object(choice)
    if not choice then return nil end
    local name = word(choice.name) or word(members(choice["function"]).name)
    if (choice.type == "function" or choice.type == "custom") and name then return { mode = "tool", name = name } end
    if choice.type ~= "allowed_tools" then
        cx.drop("tool_choice", "tool", "it asks for one of OpenAI's own tools")
        return nil
    end
    -- Tools that may not be called are not shown either: that is how other protocols can say it.
    local allowed, all, kept = {}, list(choice.tools), {}
    for i = 1, #all do allowed[word(members(all[i]).name) or word(members(all[i]).type) or ""] = true end
    for _, tool in ipairs(r.tools or {}) do
        if allowed[tool.name or word(members(tool.server).type)] then kept[#kept + 1] = tool end
    end
    r.tools = kept
    return { mode = choice.mode == "required" and "required" or "auto" }
end

function M.read(body, r, cx)
    local out, all = {}, list(body.tools)
    for i = 1, #all do
        if object(all[i]) then out[#out + 1] = read_tool(all[i], cx, i - 1) end
    end
    r.tools = out[1] and out or nil
    r.tool_choice = read_choice(body.tool_choice, r, cx)
end

-- ---- writing

local function write_function(tool, cx)
    if tool.cache and cx then cx.drop("cache_control", "hint", "OpenAI caches by itself") end
    if tool.custom then return { type = "custom", name = tool.name, description = tool.description } end
    -- strict is on by default here and off everywhere else.
    return { type = "function", name = tool.name, description = tool.description, strict = tool.strict or false,
        parameters = tool.schema or { type = "object", properties = {} } }
end

local NOTHING = {}
local SEARCH = { allowed_domains = true, user_location = true }

-- Anthropic's search has these two as well.
local function search(tool, cx)
    local out, given = { type = "web_search" }, tool.origin == "anthropic" and tool.server or NOTHING
    losses.settings(tool, tool.origin == "anthropic" and SEARCH or NOTHING, cx)
    local domains = fields.array(given.allowed_domains)
    out.filters = domains and #domains > 0 and { allowed_domains = domains } or nil
    out.user_location = object(given.user_location)
    return out
end

local function write_server(tool, cx)
    if tool.origin == content.OWN then return tool.server end
    local kind = tool.kind or ""
    if kind:find("^web_search") then return search(tool, cx) end
    if kind:find("^code_execution") then
        losses.settings(tool, NOTHING, cx)
        return { type = "code_interpreter", container = { type = "auto" } }
    end
    losses.server(tool, cx)
end

local function write_choice(r)
    local choice = r.tool_choice
    if not choice then return nil end
    if choice.mode ~= "tool" then return choice.mode end
    local custom = false
    for _, tool in ipairs(r.tools or {}) do custom = custom or tool.name == choice.name and tool.custom end
    return { type = custom and "custom" or "function", name = choice.name }
end

function M.write(r, body, cx)
    local out = json.array()
    for _, tool in ipairs(r.tools or {}) do
        if tool.server then out[#out + 1] = write_server(tool, cx) else out[#out + 1] = write_function(tool, cx) end
    end
    if not out[1] then return end
    body.tools, body.tool_choice = out, write_choice(r)
    body.parallel_tool_calls = r.parallel
end

-- The request's tools and choice as an answer repeats them.
function M.echo(r)
    local out = json.array()
    for _, tool in ipairs(r.tools or {}) do
        if not tool.server then
            out[#out + 1] = write_function(tool)
        elseif tool.origin == content.OWN then
            out[#out + 1] = tool.server
        end
    end
    return out, write_choice(r) or "auto"
end

-- Names of the tools whose calls are custom calls.
function M.custom(r)
    local out = {}
    for _, tool in ipairs(r and r.tools or {}) do
        if tool.custom then out[tool.name] = true end
    end
    return out
end

return M
