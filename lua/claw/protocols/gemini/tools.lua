-- tools: functions, Google's own tools, and which may be called; both ways.

local fields = require("claw.protocols.fields")
local json = require("claw.json")
local losses = require("claw.protocols.losses")
local schema = require("claw.protocols.gemini.schema")
local spelling = require("claw.protocols.gemini.spelling")

local M = {}

local word, object, list, get = fields.word, fields.object, fields.list, spelling.get

local KIND = { googleSearch = "web_search", googleSearchRetrieval = "web_search", enterpriseWebSearch = "web_search",
    codeExecution = "code_execution", urlContext = "web_fetch" }

-- ---- reading

local DECLARATION = { name = true, description = true, parameters = true, parametersJsonSchema = true,
    parameters_json_schema = true }

local function declaration(f, cx, at, i)
    local name = object(f) and word(get(f, "name"))
    if not name then return nil end
    losses.extra(f, DECLARATION, cx, "tools[%d].functionDeclarations[%d]", at, i)
    return { name = name, description = word(get(f, "description")),
        schema = object(get(f, "parametersJsonSchema")) or schema.read(get(f, "parameters"), cx) }
end

local function read_tools(given, cx)
    if object(given) then given = { given } end
    local out, all = {}, list(given)
    for i = 1, #all do
        local tool = object(all[i])
        local functions = list(tool and get(tool, "functionDeclarations"))
        for j = 1, #functions do out[#out + 1] = declaration(functions[j], cx, i - 1, j - 1) end
        for name, value in cx.each(tool or cx.parse("{}")) do
            local camel = spelling.camel(name)
            if camel ~= "functionDeclarations" and fields.object(value) then
                out[#out + 1] = { server = cx.parse(json.encode({ [camel] = value })), kind = KIND[camel] or camel,
                    spelt = name, origin = "gemini" }
            end
        end
    end
    return out[1] and out or nil
end

local MODE = { AUTO = "auto", ANY = "required", NONE = "none", VALIDATED = "auto" }

-- Functions that may not be called are not shown either: that is how other protocols can say it.
local function only(tools, allowed)
    local out = {}
    for _, tool in ipairs(tools) do
        if tool.server or allowed[tool.name] then out[#out + 1] = tool end
    end
    return out
end

function M.read(body, r, cx)
    r.tools = read_tools(get(body, "tools"), cx)
    local config = object(get(body, "toolConfig"))
    if config and get(config, "retrievalConfig") ~= nil then cx.drop("toolConfig.retrievalConfig", "hint") end
    local calling = config and object(get(config, "functionCallingConfig"))
    local mode = calling and MODE[(word(get(calling, "mode")) or "AUTO"):upper()]
    if not mode then return end
    r.tool_choice = { mode = mode }
    if (word(get(calling, "mode")) or ""):upper() == "VALIDATED" then
        cx.drop("toolConfig.functionCallingConfig.mode", "hint", "VALIDATED is taken as AUTO")
    end
    local names, allowed, n = list(get(calling, "allowedFunctionNames")), {}, 0
    for i = 1, #names do
        if word(names[i]) and not allowed[names[i]] then allowed[names[i]], n = true, n + 1 end
    end
    if n == 0 then return end
    if n == 1 and mode == "required" then
        r.tool_choice = { mode = "tool", name = next(allowed) }
    else
        r.tools = only(r.tools or {}, allowed)
    end
end

-- ---- writing

local NOTHING = {}

local function server(tool, cx)
    if tool.origin == "gemini" then return tool.server end
    local kind = tool.kind or ""
    if kind:find("^web_search") or kind:find("^code_") or kind:find("^web_fetch") then
        losses.settings(tool, NOTHING, cx)
    end
    if kind:find("^web_search") then return { googleSearch = cx.parse("{}") } end
    if kind:find("^code_execution") or kind:find("^code_interpreter") then
        return { codeExecution = cx.parse("{}") }
    end
    if kind:find("^web_fetch") then return { urlContext = cx.parse("{}") } end
    losses.server(tool, cx)
end

function M.write(r, body, cx)
    local declared, tools = json.array(), json.array()
    for _, tool in ipairs(r.tools or {}) do
        if tool.server then
            tools[#tools + 1] = server(tool, cx)
        else
            if tool.strict then cx.drop("tools.strict", "hint") end
            if tool.cache then cx.drop("cache_control", "hint", "Gemini caches by itself") end
            declared[#declared + 1] = { name = tool.name, description = tool.description,
                parametersJsonSchema = tool.schema }
        end
    end
    if declared[1] then table.insert(tools, 1, { functionDeclarations = declared }) end
    if tools[1] then body.tools = tools end
    if r.parallel == false and declared[1] then cx.drop("parallel_tool_calls", "hint") end
    local choice = r.tool_choice
    if not choice or not declared[1] then return end
    local mode = choice.mode == "none" and "NONE" or choice.mode == "auto" and "AUTO" or "ANY"
    body.toolConfig = { functionCallingConfig = { mode = mode,
        allowedFunctionNames = choice.mode == "tool" and { choice.name } or nil } }
end

return M
