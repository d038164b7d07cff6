-- outgoing: a request of the vocabulary as a generateContent body. The stream is another path, no field.

local config = require("claw.protocols.gemini.config")
local contents = require("claw.protocols.gemini.contents")
local fields = require("claw.protocols.fields")
local json = require("claw.json")
local losses = require("claw.protocols.losses")
local tools = require("claw.protocols.gemini.tools")

local M = {}

-- Fields that other dialects have and Google has not, each a hint.
local function drop_hints(r, cx)
    if r.logit_bias and fields.says(r.logit_bias) then cx.drop("logit_bias", "hint") end
    if r.user then cx.drop("user", "hint") end
    if r.safety_identifier then cx.drop("safety_identifier", "hint") end
    if r.metadata and fields.says(r.metadata) then cx.drop("metadata", "hint") end
    local tier = r.service_tier
    if tier and tier ~= "auto" and tier ~= "default" then cx.drop("service_tier", "hint") end
    if r.store then cx.drop("store", "hint") end
    if r.verbosity and r.verbosity ~= "medium" then cx.drop("verbosity", "hint") end
end

local OWN = { safetySettings = true, labels = true, modelArmorConfig = true, serviceTier = true }

local function write_rest(r, body, cx)
    local names = {}
    for name in pairs(r.rest or {}) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
        if name == "modalities" and config.modalities(r) then
            body.modalities = nil -- it is in generationConfig
        elseif OWN[name] or r.dialect == "gemini" and not name:find("^generationConfig%.") then
            body[name] = r.rest[name]
        elseif not name:find("^generationConfig%.") and fields.says(r.rest[name]) then
            cx.drop(name, losses.class(name))
        end
    end
end

-- Returns the body. A name is never given: it is the usual one.
function M.write(r, cx)
    local body = {}
    local system = contents.system(r, cx)
    body.contents = contents.write(r, body, cx)
    if system[1] and not body.contents[1] then
        body.contents, system = json.array({ { role = "user", parts = system } }), {} -- Google wants a turn
    end
    if system[1] then body.systemInstruction = { parts = system } end
    if not body.contents[1] then body.contents[1] = { role = "user", parts = { { text = "" } } } end
    tools.write(r, body, cx)
    local generation = config.write(r, cx)
    if body.generationConfig then -- what `contents` found among the parts
        generation = generation or {}
        for name, value in pairs(body.generationConfig) do generation[name] = value end
    end
    body.generationConfig = generation
    drop_hints(r, cx)
    if r.dialect ~= "gemini" then losses.system(r, cx, "it goes as the user's words, in its place") end
    write_rest(r, body, cx)
    return body
end

return M
